"""Normalised targets, squared error and its gradient: pixels are read once forward, once backward.

The backward pass computes the target again from the patch's mean and deviation. To keep the difference
instead would move as many bytes, and round it once more.
"""

from typing import no_type_check  # a type checker's wrapper is not what Triton compiles

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from mae_lib.kernels.loss import TARGET_EPS

_TILE = 4096
_WARPS = 8


def masked_error_triton(
    predicted: Float[Tensor, "B M ppC"], target: Float[Tensor, "B M ppC"], normalise: bool
) -> Float[Tensor, ""]:
    """Return masked_error_reference, computed in fp32."""
    return torch.ops.mae_lib.masked_error(predicted, target, normalise)[0]


@torch.library.custom_op("mae_lib::masked_error", mutates_args=())
def _masked_error(
    predicted: Tensor, target: Tensor, normalise: bool
) -> tuple[Tensor, Tensor, Tensor]:
    batch, masked, values = predicted.shape
    rows = batch * masked
    block, tile = _tile(values)
    target = _with_whole_patches(target)
    mean = torch.empty(rows, dtype=torch.float32, device=predicted.device)
    rstd = torch.empty_like(mean)
    programs = triton.cdiv(rows, tile)
    sums = torch.empty(programs, dtype=torch.float32, device=predicted.device)
    _forward_kernel[(programs,)](
        sums,
        mean,
        rstd,
        predicted.contiguous(),
        target,
        rows,
        masked,
        target.stride(0),
        target.stride(1),
        1.0 / predicted.numel(),
        TARGET_EPS,
        NORMALISE=normalise,
        VALUES=values,
        ROWS=tile,
        BLOCK=block,
        num_warps=_WARPS,
    )
    return sums.sum(), mean, rstd


@torch.library.custom_op("mae_lib::masked_error_backward", mutates_args=())
def _masked_error_backward(
    grad_loss: Tensor, predicted: Tensor, target: Tensor, mean: Tensor, rstd: Tensor
) -> Tensor:
    batch, masked, values = predicted.shape
    rows = batch * masked
    block, tile = _tile(values)
    target = _with_whole_patches(target)
    grad = torch.empty(batch, masked, values, dtype=predicted.dtype, device=predicted.device)
    _backward_kernel[(triton.cdiv(rows, tile),)](
        grad,
        grad_loss,
        predicted.contiguous(),
        target,
        mean,
        rstd,
        rows,
        masked,
        target.stride(0),
        target.stride(1),
        2.0 / predicted.numel(),
        VALUES=values,
        ROWS=tile,
        BLOCK=block,
        num_warps=_WARPS,
    )
    return grad


@_masked_error.register_fake
def _(predicted, target, normalise):
    statistic = predicted.new_empty(predicted.shape[0] * predicted.shape[1], dtype=torch.float32)
    loss = predicted.new_empty((), dtype=torch.float32)
    return loss, statistic, torch.empty_like(statistic)


@_masked_error_backward.register_fake
def _(grad_loss, predicted, target, mean, rstd):
    return predicted.new_empty(predicted.shape)


def _keep(ctx, inputs, output):
    predicted, target, _ = inputs
    _, mean, rstd = output
    ctx.mark_non_differentiable(mean, rstd)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(predicted, target, mean, rstd)


def _gradient(ctx, grad_loss, *unused):
    if grad_loss is None:
        return None, None, None
    return torch.ops.mae_lib.masked_error_backward(grad_loss, *ctx.saved_tensors), None, None


_masked_error.register_autograd(_gradient, setup_context=_keep)


def _tile(values: int) -> tuple[int, int]:
    """Return the padded length of a patch and the patches of a tile."""
    block = triton.next_power_of_2(values)
    return block, max(1, _TILE // block)


def _with_whole_patches(target: Tensor) -> Tensor:
    """A slice of patches is read where it lies; only values that are strewn are copied."""
    return target if target.stride(-1) == 1 else target.contiguous()


@triton.jit
@no_type_check
def _forward_kernel(
    sums,  # fp32 [programs]
    mean_out,  # fp32 [rows]
    rstd_out,  # fp32 [rows]
    predicted,  # [rows, VALUES], rows = batch x masked
    target,  # [batch, masked, VALUES], strides over batch and masked
    rows,
    masked,
    stride_image,
    stride_patch,
    weight,
    eps,
    NORMALISE: tl.constexpr,
    VALUES: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0)
    row = program.to(tl.int64) * ROWS + tl.arange(0, ROWS)
    value = tl.arange(0, BLOCK)
    there = (row < rows)[:, None] & (value < VALUES)[None, :]
    start = (row // masked) * stride_image + (row % masked) * stride_patch
    pixel = tl.load(target + start[:, None] + value[None, :], mask=there, other=0.0)
    pixel = pixel.to(tl.float32)
    guess = tl.load(predicted + row[:, None] * VALUES + value[None, :], mask=there, other=0.0)
    guess = guess.to(tl.float32)
    if NORMALISE:
        mean = tl.sum(pixel, axis=1) / VALUES
        centred = tl.where(there, pixel - mean[:, None], 0.0)
        rstd = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=1) / (VALUES - 1) + eps)
        pixel = centred * rstd[:, None]
    else:
        mean = tl.zeros([ROWS], tl.float32)
        rstd = mean + 1.0
    tl.store(mean_out + row, mean, mask=row < rows)
    tl.store(rstd_out + row, rstd, mask=row < rows)
    difference = tl.where(there, guess - pixel, 0.0)
    total = tl.sum(tl.sum(difference * difference, axis=1), axis=0)
    tl.store(sums + program, total * weight)


@triton.jit
@no_type_check
def _backward_kernel(
    grad,  # [rows, VALUES]
    grad_loss,  # [1]
    predicted,  # [rows, VALUES]
    target,  # [batch, masked, VALUES], strides over batch and masked
    mean_in,  # fp32 [rows]
    rstd_in,  # fp32 [rows]
    rows,
    masked,
    stride_image,
    stride_patch,
    weight,
    VALUES: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    value = tl.arange(0, BLOCK)
    there = (row < rows)[:, None] & (value < VALUES)[None, :]
    start = (row // masked) * stride_image + (row % masked) * stride_patch
    pixel = tl.load(target + start[:, None] + value[None, :], mask=there, other=0.0)
    place = row[:, None] * VALUES + value[None, :]
    guess = tl.load(predicted + place, mask=there, other=0.0).to(tl.float32)
    mean = tl.load(mean_in + row, mask=row < rows, other=0.0)
    rstd = tl.load(rstd_in + row, mask=row < rows, other=0.0)
    scale = tl.load(grad_loss).to(tl.float32) * weight
    wanted = (pixel.to(tl.float32) - mean[:, None]) * rstd[:, None]
    result = (guess - wanted) * scale
    tl.store(grad + place, result.to(grad.dtype.element_ty), mask=there)
