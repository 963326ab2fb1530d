"""Bias and exact GELU in one launch; backward in two, the bias sum in the first one's registers."""

from typing import no_type_check  # a type checker's wrapper is not what Triton compiles

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from mae_lib.kernels.column_sums_triton import PROGRAMS, column_sums

# A tile of rows x columns; every program of the backward pass walks down one strip of columns.
_ROWS, _COLUMNS, _WARPS = 16, 256, 8


def bias_gelu_triton(
    x: Float[Tensor, "rows D"], bias: Float[Tensor, " D"]
) -> Float[Tensor, "rows D"]:
    """Return bias_gelu_reference, computed in fp32."""
    return torch.ops.mae_lib.bias_gelu(x, bias)


@torch.library.custom_op("mae_lib::bias_gelu", mutates_args=())
def _bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    rows, dim = x.shape
    out = torch.empty(rows, dim, dtype=x.dtype, device=x.device)
    grid = (triton.cdiv(rows, _ROWS), triton.cdiv(dim, _COLUMNS))
    _forward_kernel[grid](
        out, x.contiguous(), bias, rows, dim, ROWS=_ROWS, COLUMNS=_COLUMNS, num_warps=_WARPS
    )
    return out


@torch.library.custom_op("mae_lib::bias_gelu_backward", mutates_args=())
def _bias_gelu_backward(grad_out: Tensor, x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    rows, dim = x.shape
    strips = triton.cdiv(dim, _COLUMNS)
    programs = min(triton.cdiv(rows, _ROWS), triton.cdiv(4 * PROGRAMS, strips))
    grad = torch.empty(rows, dim, dtype=x.dtype, device=x.device)
    partials = torch.empty(1, programs, dim, dtype=torch.float32, device=x.device)
    _backward_kernel[(programs, strips)](
        grad,
        partials,
        grad_out.contiguous(),
        x.contiguous(),
        bias,
        rows,
        dim,
        programs,
        ROWS=_ROWS,
        COLUMNS=_COLUMNS,
        num_warps=_WARPS,
    )
    return grad, column_sums(partials, bias.dtype)[0]


@_bias_gelu.register_fake
def _(x, bias):
    return x.new_empty(x.shape)


@_bias_gelu_backward.register_fake
def _(grad_out, x, bias):
    return x.new_empty(x.shape), torch.empty_like(bias)


def _keep(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _gradient(ctx, grad_out):
    return torch.ops.mae_lib.bias_gelu_backward(grad_out, *ctx.saved_tensors)


_bias_gelu.register_autograd(_gradient, setup_context=_keep)


@triton.jit
@no_type_check
def _forward_kernel(
    out,  # [rows, dim]
    x,  # [rows, dim]
    bias,  # [dim]
    rows,
    dim,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    there = (row < rows)[:, None] & (column < dim)[None, :]
    place = row[:, None] * dim + column[None, :]
    shift = tl.load(bias + column, mask=column < dim, other=0.0).to(tl.float32)
    u = tl.load(x + place, mask=there, other=0.0).to(tl.float32) + shift[None, :]
    result = u * 0.5 * (1.0 + tl.erf(u * 0.7071067811865476))
    tl.store(out + place, result.to(out.dtype.element_ty), mask=there)


@triton.jit
@no_type_check
def _backward_kernel(
    grad,  # [rows, dim]
    partials,  # fp32 [programs, dim]: of the bias
    grad_out,  # [rows, dim]
    x,  # [rows, dim]
    bias,  # [dim]
    rows,
    dim,
    programs,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    program = tl.program_id(0)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    shift = tl.load(bias + column, mask=column < dim, other=0.0).to(tl.float32)
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(program * ROWS, rows, programs * ROWS):
        row = (start + tl.arange(0, ROWS)).to(tl.int64)
        there = (row < rows)[:, None] & (column < dim)[None, :]
        place = row[:, None] * dim + column[None, :]
        u = tl.load(x + place, mask=there, other=0.0).to(tl.float32) + shift[None, :]
        incoming = tl.load(grad_out + place, mask=there, other=0.0).to(tl.float32)
        # d/du of u P(u) is P(u) + u p(u), with the normal's distribution P and density p.
        share = 0.5 * (1.0 + tl.erf(u * 0.7071067811865476))
        density = 0.3989422804014327 * tl.exp(-0.5 * u * u)
        result = incoming * (share + u * density)
        total += result
        tl.store(grad + place, result.to(grad.dtype.element_ty), mask=there)
    tl.store(partials + program * dim + column, tl.sum(total, axis=0), mask=column < dim)
