"""Which attention is fastest for a shape, as `mae bench gpu` measured it; unmeasured means torch's.

`attention_table.json` holds one row a measured shape: device, dtype, tokens, queries, head_dim, and the
`way` that took the least time forward and backward. A shape takes the nearest row of its own device,
dtype and head_dim whose tokens and queries are both within a quarter of its own. Where there is no
such row torch's scaled_dot_product_attention chooses its backend itself.
"""

import functools
import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch

from mae_lib.errors import KernelError
from mae_lib.kernels import dispatch

WAYS = ("torch", "flash", "efficient", "cudnn", "math", "triton")
PATH = Path(__file__).with_name("attention_table.json")
_REACH = math.log(1.25)


@functools.cache
def measured_rows() -> tuple[dict, ...]:
    """Return the measured rows.

    Raises: KernelError for a row that names no way.
    """
    rows = tuple(json.loads(PATH.read_text())["rows"])
    for row in rows:
        if row.get("way") not in WAYS:
            raise KernelError(f"{PATH.name}: way: one of {', '.join(WAYS)}, got {row.get('way')!r}")
    return rows


def nearest_way(
    rows: Sequence[dict], *, device: str, dtype: str, tokens: int, queries: int, head_dim: int
) -> str:
    """Return the way of the nearest measured row, `torch` where none is near enough."""
    best, way = _REACH, "torch"
    for row in rows:
        if (row["device"], row["dtype"], row["head_dim"]) != (device, dtype, head_dim):
            continue
        distance = max(
            abs(math.log(tokens / row["tokens"])), abs(math.log(queries / row["queries"]))
        )
        if distance <= best:
            best, way = distance, row["way"]
    return way


@torch.compiler.assume_constant_result
def attention_way(
    name: str, tokens: int, queries: int, head_dim: int, dtype: torch.dtype, device: str
) -> str:
    """Return how the attention operation `name` is computed for this shape on this machine.

    Forced by MAE_KERNELS it is `triton` or `torch`.
    """
    if not dispatch.takes_triton(name, device, dtype):
        return "torch"
    if dispatch.wish() == "triton":
        return "triton"
    return nearest_way(
        measured_rows(),
        device=torch.cuda.get_device_name(),
        dtype=str(dtype).removeprefix("torch."),
        tokens=tokens,
        queries=queries,
        head_dim=head_dim,
    )
