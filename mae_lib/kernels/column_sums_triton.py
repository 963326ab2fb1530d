"""The second stage of a gradient that sums over rows: partial sums added up in a fixed order.

Atomic additions would be one launch less, and other bits at every run.
"""

from typing import no_type_check  # a type checker's wrapper is not what Triton compiles

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

# Programs of a first stage, each with one partial sum a column: two a processor of an H200. A
# constant, so that the bits do not depend on the device.
PROGRAMS = 264
_COLUMNS = 32
_ROWS = 64


def column_sums(
    partials: Float[Tensor, "kinds programs D"], dtype: torch.dtype
) -> tuple[Float[Tensor, " D"], ...]:
    """Add up the programs' fp32 sums of one or two kinds in one launch; cast once, at the end.

    Each kind is a tensor of its own: results of an operation may not share memory.
    """
    kinds, programs, dim = partials.shape
    sums = tuple(torch.empty(dim, dtype=dtype, device=partials.device) for _ in range(kinds))
    grid = (triton.cdiv(dim, _COLUMNS), kinds)
    _sum_kernel[grid](sums[0], sums[-1], partials, programs, dim, ROWS=_ROWS, COLUMNS=_COLUMNS)
    return sums


@triton.jit
@no_type_check
def _sum_kernel(
    first,  # [dim]
    second,  # [dim]: the same as first where there is one kind
    partials,  # fp32 [kinds, programs, dim]
    programs,
    dim,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    kind = tl.program_id(1)
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(0, programs, ROWS):
        row = start + tl.arange(0, ROWS)
        there = (row < programs)[:, None] & (column < dim)[None, :]
        place = (kind * programs + row)[:, None] * dim + column[None, :]
        total += tl.load(partials + place, mask=there, other=0.0)
    sums = tl.sum(total, axis=0).to(first.dtype.element_ty)
    if kind == 0:
        tl.store(first + column, sums, mask=column < dim)
    else:
        tl.store(second + column, sums, mask=column < dim)
