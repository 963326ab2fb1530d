"""Timing on a device: rounds of calls between two waits, work replayed as a graph where it can be."""

import time
from collections.abc import Callable

import numpy as np
import torch

# Rounds a measurement, each at least this long on a device.
ROUNDS = 7
ROUND_SECONDS = 0.15
DRY_ROUND_SECONDS = 0.002


def device_for(dry: bool) -> torch.device:
    """Return the CUDA device, or the CPU of a dry run."""
    return torch.device("cpu" if dry else "cuda")


def wait(device: torch.device) -> None:
    """Wait until the device has done what was issued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_calls(
    call: Callable[[], object],
    device: torch.device,
    *,
    rounds: int = ROUNDS,
    warm_up: int = 3,
    round_s: float = ROUND_SECONDS,
) -> dict[str, float]:
    """Return seconds a call: median, 20th and 80th percentile over rounds of many calls."""
    for _ in range(warm_up):
        call()
    wait(device)
    least = round_s if device.type == "cuda" else DRY_ROUND_SECONDS
    started = time.perf_counter()
    call()
    wait(device)
    calls = int(np.clip(least / max(time.perf_counter() - started, 1e-7), 1, 5000))
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(calls):
            call()
        wait(device)
        seconds.append((time.perf_counter() - started) / calls)
    low, middle, high = np.quantile(seconds, (0.2, 0.5, 0.8))
    return {"seconds": float(middle), "seconds_p20": float(low), "seconds_p80": float(high)}


def graphed(work: Callable[[], object], device: torch.device) -> tuple[Callable[[], object], str]:
    """Return `work` as a replay of a CUDA graph, so that launches cost nothing; where it cannot be
    captured, `work` itself and the reason."""
    if device.type != "cuda":
        return work, "no CUDA device"
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=side):
            work()
    except RuntimeError as error:
        torch.cuda.synchronize()
        return work, " ".join(str(error).split())[:200]
    return graph.replay, ""


def forward_backward(function: Callable, arguments: tuple) -> Callable[[], object]:
    """Return a call that computes a function and, where anything needs it, its gradients."""
    needed = [a for a in arguments if isinstance(a, torch.Tensor) and a.requires_grad]
    if not needed:
        return lambda: function(*arguments)
    outputs = _tensors(function(*arguments))
    given = [torch.randn_like(out) for out in outputs]
    del outputs

    def call() -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(_tensors(function(*arguments)), needed, given)

    return call


def _tensors(found: object) -> list[torch.Tensor]:
    return list(found) if isinstance(found, tuple | list) else [found]
