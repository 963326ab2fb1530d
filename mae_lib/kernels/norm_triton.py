"""Residual addition and LayerNorm in one launch, backward in two: rows, then sums over rows."""

from typing import no_type_check  # a type checker's wrapper is not what Triton compiles

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from mae_lib.kernels.column_sums_triton import PROGRAMS, column_sums

# Numbers a program holds of each tensor.
_TILE = 4096
_WARPS = 8


def add_norm_triton(
    x: Float[Tensor, "rows D"],
    y: Float[Tensor, "rows D"] | None,
    weight: Float[Tensor, " D"],
    bias: Float[Tensor, " D"],
    eps: float,
) -> tuple[Float[Tensor, "rows D"], Float[Tensor, "rows D"]]:
    """Return add_norm_reference: the stream x + y and its LayerNorm, statistics in fp32."""
    if y is None:
        return x, torch.ops.mae_lib.norm(x, weight, bias, eps)[0]
    stream, normed, _, _ = torch.ops.mae_lib.add_norm(x, y, weight, bias, eps)
    return stream, normed


@torch.library.custom_op("mae_lib::norm", mutates_args=())
def _norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    _, normed, mean, rstd = _forward(x, None, weight, bias, eps)
    return normed, mean, rstd


@torch.library.custom_op("mae_lib::add_norm", mutates_args=())
def _add_norm(
    x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _forward(x, y, weight, bias, eps)


@torch.library.custom_op("mae_lib::norm_backward", mutates_args=())
def _norm_backward(
    grad_normed: Tensor,
    grad_stream: Tensor | None,
    stream: Tensor,
    weight: Tensor,
    mean: Tensor,
    rstd: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    rows, dim = stream.shape
    block, tile = _tile(dim)
    programs = min(triton.cdiv(rows, tile), PROGRAMS)
    grad = torch.empty_like(stream, memory_format=torch.contiguous_format)
    partials = torch.empty(2, programs, dim, dtype=torch.float32, device=stream.device)
    _backward_kernel[(programs,)](
        grad,
        partials,
        grad_normed.contiguous(),
        grad if grad_stream is None else grad_stream.contiguous(),
        stream.contiguous(),
        weight,
        mean,
        rstd,
        rows,
        dim,
        programs,
        STREAM=grad_stream is not None,
        ROWS=tile,
        BLOCK=block,
        num_warps=_WARPS,
    )
    grad_weight, grad_bias = column_sums(partials, weight.dtype)
    return grad, grad_weight, grad_bias


@_norm.register_fake
def _(x, weight, bias, eps):
    statistic = x.new_empty(x.shape[0], dtype=torch.float32)
    return x.new_empty(x.shape, dtype=weight.dtype), statistic, torch.empty_like(statistic)


@_add_norm.register_fake
def _(x, y, weight, bias, eps):
    statistic = x.new_empty(x.shape[0], dtype=torch.float32)
    stream, normed = x.new_empty(x.shape), x.new_empty(x.shape, dtype=weight.dtype)
    return stream, normed, statistic, torch.empty_like(statistic)


@_norm_backward.register_fake
def _(grad_normed, grad_stream, stream, weight, mean, rstd):
    return stream.new_empty(stream.shape), torch.empty_like(weight), torch.empty_like(weight)


def _keep_for_norm(ctx, inputs, output):
    x, weight, _, _ = inputs
    _, mean, rstd = output
    ctx.mark_non_differentiable(mean, rstd)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, weight, mean, rstd)


def _keep_for_add_norm(ctx, inputs, output):
    stream, _, mean, rstd = output
    ctx.mark_non_differentiable(mean, rstd)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(stream, inputs[2], mean, rstd)
    ctx.branch_dtype = inputs[1].dtype


def _norm_gradient(ctx, grad_normed, *unused):
    x, weight, mean, rstd = ctx.saved_tensors
    if grad_normed is None:
        return None, None, None, None
    gradients = torch.ops.mae_lib.norm_backward(grad_normed, None, x, weight, mean, rstd)
    return *gradients, None


def _add_norm_gradient(ctx, grad_stream, grad_normed, *unused):
    stream, weight, mean, rstd = ctx.saved_tensors
    if grad_normed is None:
        branch = None if grad_stream is None else grad_stream.to(ctx.branch_dtype)
        return grad_stream, branch, None, None, None
    grad, grad_weight, grad_bias = torch.ops.mae_lib.norm_backward(
        grad_normed, grad_stream, stream, weight, mean, rstd
    )
    return grad, grad.to(ctx.branch_dtype), grad_weight, grad_bias, None


_norm.register_autograd(_norm_gradient, setup_context=_keep_for_norm)
_add_norm.register_autograd(_add_norm_gradient, setup_context=_keep_for_add_norm)


def _tile(dim: int) -> tuple[int, int]:
    """Return the padded width and the rows of a tile."""
    block = triton.next_power_of_2(dim)
    return block, max(1, _TILE // block)


def _forward(
    x: Tensor, y: Tensor | None, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows, dim = x.shape
    block, tile = _tile(dim)
    normed = torch.empty(rows, dim, dtype=weight.dtype, device=x.device)
    stream = normed if y is None else torch.empty(rows, dim, dtype=x.dtype, device=x.device)
    mean = torch.empty(rows, dtype=torch.float32, device=x.device)
    rstd = torch.empty_like(mean)
    x = x.contiguous()
    _forward_kernel[(triton.cdiv(rows, tile),)](
        stream,
        normed,
        mean,
        rstd,
        x,
        x if y is None else y.contiguous(),
        weight,
        bias,
        eps,
        rows,
        dim,
        ADD=y is not None,
        ROWS=tile,
        BLOCK=block,
        num_warps=_WARPS,
    )
    return stream, normed, mean, rstd


@triton.jit
@no_type_check
def _forward_kernel(
    stream,  # [rows, dim]: written where ADD
    normed,  # [rows, dim]
    mean_out,  # fp32 [rows]
    rstd_out,  # fp32 [rows]
    x,  # [rows, dim]
    y,  # [rows, dim]: read where ADD
    weight,  # [dim]
    bias,  # [dim]
    eps,
    rows,
    dim,
    ADD: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    in_row = column < dim
    there = (row < rows)[:, None] & in_row[None, :]
    place = row[:, None] * dim + column[None, :]
    value = tl.load(x + place, mask=there, other=0.0).to(tl.float32)
    if ADD:
        value += tl.load(y + place, mask=there, other=0.0).to(tl.float32)
        # The norm is that of the stored, rounded stream: the backward pass sees no other.
        rounded = value.to(stream.dtype.element_ty)
        tl.store(stream + place, rounded, mask=there)
        value = rounded.to(tl.float32)
    mean = tl.sum(value, axis=1) / dim
    centred = tl.where(there, value - mean[:, None], 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=1) / dim + eps)
    gain = tl.load(weight + column, mask=in_row, other=0.0).to(tl.float32)
    shift = tl.load(bias + column, mask=in_row, other=0.0).to(tl.float32)
    result = centred * rstd[:, None] * gain[None, :] + shift[None, :]
    tl.store(normed + place, result.to(normed.dtype.element_ty), mask=there)
    tl.store(mean_out + row, mean, mask=row < rows)
    tl.store(rstd_out + row, rstd, mask=row < rows)


@triton.jit
@no_type_check
def _backward_kernel(
    grad,  # [rows, dim]: of the stream, and so of both terms
    partials,  # fp32 [2, programs, dim]: of weight and bias
    grad_normed,  # [rows, dim]
    grad_stream,  # [rows, dim]: read where STREAM
    stream,  # [rows, dim]
    weight,  # [dim]
    mean_in,  # fp32 [rows]
    rstd_in,  # fp32 [rows]
    rows,
    dim,
    programs,
    STREAM: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0)
    column = tl.arange(0, BLOCK)
    in_row = column < dim
    gain = tl.load(weight + column, mask=in_row, other=0.0).to(tl.float32)
    for_weight = tl.zeros([ROWS, BLOCK], tl.float32)
    for_bias = tl.zeros([ROWS, BLOCK], tl.float32)
    for start in range(program * ROWS, rows, programs * ROWS):
        row = (start + tl.arange(0, ROWS)).to(tl.int64)
        there = (row < rows)[:, None] & in_row[None, :]
        place = row[:, None] * dim + column[None, :]
        value = tl.load(stream + place, mask=there, other=0.0).to(tl.float32)
        incoming = tl.load(grad_normed + place, mask=there, other=0.0).to(tl.float32)
        mean = tl.load(mean_in + row, mask=row < rows, other=0.0)
        rstd = tl.load(rstd_in + row, mask=row < rows, other=0.0)
        unit = tl.where(there, (value - mean[:, None]) * rstd[:, None], 0.0)
        for_weight += incoming * unit
        for_bias += incoming
        scaled = incoming * gain[None, :]
        along = tl.sum(scaled * unit, axis=1) / dim
        level = tl.sum(scaled, axis=1) / dim
        result = (scaled - level[:, None] - unit * along[:, None]) * rstd[:, None]
        if STREAM:
            result += tl.load(grad_stream + place, mask=there, other=0.0).to(tl.float32)
        tl.store(grad + place, result.to(grad.dtype.element_ty), mask=there)
    place = program * dim + column
    tl.store(partials + place, tl.sum(for_weight, axis=0), mask=in_row)
    tl.store(partials + programs * dim + place, tl.sum(for_bias, axis=0), mask=in_row)
