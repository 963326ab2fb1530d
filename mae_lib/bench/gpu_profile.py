"""Where a step's time goes: its four stages, the number of launches, and the longest kernels."""

import time
from collections.abc import Callable, Iterator

import torch
from torch.profiler import ProfilerActivity
from torch.profiler import profile as record

from mae_lib.bench.gpu_plan import Setting
from mae_lib.bench.gpu_throughput import MODES, cell_of, in_mode, noise_store, stepper
from mae_lib.bench.gpu_timing import device_for, time_calls, wait
from mae_lib.training.graph import WholeStep

LONGEST = 12
_PROFILED_STEPS = 3
_STAGE_ROUNDS = 15


def profile(setting: dict, dry: bool) -> Iterator[dict]:
    """Profile a setting uncaptured without and with our kernels, and replayed."""
    wanted, device = Setting(**setting), device_for(dry)
    store = noise_store(wanted, dry)
    for name in ("eager, images on the device", "ours"):
        mode = MODES[name]
        cell = cell_of(wanted, store, batch=wanted.batch, mode=mode)
        common = {"setting": wanted.name, "mode": name, "batch": wanted.batch}
        with in_mode(mode, cell.recipe):
            advance, whole = stepper(cell, store, mode, device)
            for _ in range(6):
                advance()
            stages = _stages(whole, device) if not mode.capture else {}
            found = {"step_s": time_calls(advance, device, warm_up=1)["seconds"], **stages}
            yield {"profile": [common | found | _launches(advance, device)]}
            del advance, whole
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _stages(whole: WholeStep, device: torch.device) -> dict[str, float]:
    """Return the median seconds of data, forward, backward, and clip with optimiser: each waited
    for, so their sum is more than a step's time where the host is ahead of the device."""
    step, seconds = whole.step, {"data_s": [], "forward_s": [], "backward_s": [], "optimizer_s": []}
    whole.inbox.fill(whole.draws(0))
    for _ in range(_STAGE_ROUNDS):
        batch = _clocked(seconds["data_s"], whole._batch, device)
        loss = _clocked(
            seconds["forward_s"], lambda b=batch: step.loss_of(b.pixels, b.order), device
        )
        _clocked(seconds["backward_s"], loss.backward, device)
        _clocked(seconds["optimizer_s"], lambda: _update(step), device)
    return {name: sorted(values)[len(values) // 2] for name, values in seconds.items()}


def _update(step) -> None:
    torch.nn.utils.clip_grad_norm_(step.parameters, step.limit, foreach=True)
    step.optimizer.step()
    step.optimizer.zero_grad(set_to_none=True)


def _clocked(seconds: list[float], call: Callable, device: torch.device):
    wait(device)
    started = time.perf_counter()
    found = call()
    wait(device)
    seconds.append(time.perf_counter() - started)
    return found


def _launches(advance: Callable[[], object], device: torch.device) -> dict:
    """Count what a step runs on the device, and sum it up by kernel."""
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with record(activities=activities) as found:
        for _ in range(_PROFILED_STEPS):
            advance()
        wait(device)
    on_device = torch.autograd.DeviceType.CUDA if device.type == "cuda" else None
    totals: dict[str, list[float]] = {}
    issued = 0
    for event in found.events():
        if event.name.startswith(("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch")):
            issued += 1
        if (
            on_device is not None
            and event.device_type == on_device
            and not event.name.startswith(("Memcpy", "Memset"))
            # Spans such as the optimiser's cover kernels that are counted by themselves.
            and not getattr(event, "is_user_annotation", False)
        ):
            kept = totals.setdefault(event.name, [0, 0.0])
            kept[0] += 1
            kept[1] += _device_seconds(event)
    longest = sorted(totals.items(), key=lambda item: -item[1][1])[:LONGEST]
    return {
        "launches": issued / _PROFILED_STEPS,
        "kernels": sum(count for count, _ in totals.values()) / _PROFILED_STEPS,
        "kernel_s": sum(seconds for _, seconds in totals.values()) / _PROFILED_STEPS,
        "longest": [
            {
                "name": name[:120],
                "calls": count / _PROFILED_STEPS,
                "seconds": seconds / _PROFILED_STEPS,
            }
            for name, (count, seconds) in longest
        ],
    }


def _device_seconds(event) -> float:
    spent = getattr(event, "device_time", None)
    return (event.cuda_time if spent is None else spent) * 1e-6
