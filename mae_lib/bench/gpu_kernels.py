"""Each operation by itself at real sizes: its reference, its kernel, and the work neither can avoid."""

from collections.abc import Iterator

import torch

from mae_lib.bench.gpu_throughput import OPERATIONS
from mae_lib.bench.gpu_timing import device_for, forward_backward, graphed, time_calls
from mae_lib.kernels.gpu_ops import OPS, SIZES, TINY, GpuOp, Size

# A replay is one kernel or a few: short rounds hold thousands.
ROUNDS, ROUND_SECONDS = 5, 0.03


def kernels(operation: str, dry: bool) -> Iterator[dict]:
    """Time the operations behind a word, forward and backward, as replays of a graph."""
    device = device_for(dry)
    dtype = torch.float32 if dry else torch.bfloat16
    for op in OPS:
        if op.name not in OPERATIONS[operation]:
            continue
        for size in (TINY,) if dry else SIZES:
            yield _measured(op, size, device, dtype)
            if device.type == "cuda":
                torch.cuda.empty_cache()


def _measured(op: GpuOp, size: Size, device: torch.device, dtype: torch.dtype) -> dict:
    row = {
        "operation": op.name,
        "size": size.name,
        "dtype": str(dtype).removeprefix("torch."),
        "passes": "forward and backward" if op.differentiable else "forward",
        "bytes_moved": op.bytes_moved(dtype, size),
        "flops": op.flops(dtype, size),
    }
    errors = []
    # The kernel needs a device; what a dry run can try is the reference in both places.
    ways = {"reference": op.reference, "triton": op.fast if device.type == "cuda" else None}
    for name, way in ways.items():
        if way is None:
            row[f"{name}_seconds"] = None
            continue
        try:
            arguments = op.example(device, dtype, size)
            call, why = graphed(forward_backward(way, arguments), device)
            found = time_calls(call, device, rounds=ROUNDS, round_s=ROUND_SECONDS)
            row |= {f"{name}_{key}": value for key, value in found.items()}
            row[f"{name}_replayed"] = not why
            del arguments, call
        except Exception as error:
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            errors.append(f"{op.name}, {name}, {size.name}: {said}")
    return {"kernels": [row], "error": "; ".join(errors)} if errors else {"kernels": [row]}
