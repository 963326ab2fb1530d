"""Every operation that has a Triton kernel: its two ways, real sizes, and the work it cannot avoid.

`mae bench gpu` and the tests on a device go through this list.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch

from mae_lib.kernels import (
    crop_patches,
    dispatch,
    gelu,
    loss,
    mask_order,
    norm,
    packed_attention,
)

CHANNELS = 3
# Grey levels are read as one byte a channel, pixels of the loss as fp32.
_FP32_BYTES = 4


@dataclass(frozen=True)
class Size:
    """One half of a model in training: `tokens` rows a sequence with the class token, of which the
    last `queries` are asked for by the last block; `patches` of `patch` pixels, `stored` the side
    of the stored image."""

    name: str
    batch: int
    tokens: int
    queries: int
    dim: int
    heads: int
    patch: int
    patches: int
    stored: int

    @property
    def rows(self) -> int:
        """Tokens of the whole batch."""
        return self.batch * self.tokens

    @property
    def pixels(self) -> int:
        """Side of the cropped image."""
        return round(self.patches**0.5) * self.patch

    @property
    def values(self) -> int:
        """Numbers in a patch."""
        return self.patch**2 * CHANNELS


# Mask 0.8. The encoder sees K + 1 tokens, the decoder L + 1 and its last block L - K of them.
SIZES: tuple[Size, ...] = (
    Size("S/16@64 encoder", 4096, 4, 3, 384, 6, 16, 16, 64),
    Size("S/16@64 decoder", 4096, 17, 13, 512, 16, 16, 16, 64),
    Size("Ti/4@32 encoder", 4096, 13, 12, 192, 3, 4, 64, 64),
    Size("Ti/4@32 decoder", 4096, 65, 52, 128, 4, 4, 64, 64),
    Size("B/16@224 encoder", 256, 40, 39, 768, 12, 16, 196, 256),
    Size("B/16@224 decoder", 256, 197, 157, 512, 16, 16, 196, 256),
    Size("L/16@256 encoder", 256, 52, 51, 1024, 16, 16, 256, 256),
    Size("L/16@256 decoder", 256, 257, 205, 512, 16, 16, 256, 256),
)
TINY = Size("tiny", 2, 5, 3, 32, 2, 4, 4, 12)


@dataclass(frozen=True)
class GpuOp:
    """An operation: `example(device, dtype, size)` gives the arguments that both ways take.

    `bytes_moved(dtype, size)` and `flops(dtype, size)` count what no way can avoid, forward and,
    where `differentiable`, backward: each tensor read or written once a pass, 2 FLOP a
    multiply-add of matrix products (none where there are no products).
    """

    name: str
    reference: Callable
    fast: Callable
    example: Callable[[torch.device, torch.dtype, Size], tuple]
    bytes_moved: Callable[[torch.dtype, Size], int]
    flops: Callable[[torch.dtype, Size], int]
    differentiable: bool = True


def _fast(name: str) -> Callable:
    """Return the Triton function, looked up at the call: triton may be absent."""

    def call(*arguments, **keywords):
        return dispatch.triton_way(name)(*arguments, **keywords)

    return call


def _no_flops(dtype: torch.dtype, size: Size) -> int:
    return 0


def _norm_example(device: torch.device, dtype: torch.dtype, size: Size) -> tuple:
    return norm.random_arguments(size.rows, size.dim, device=device, dtype=dtype)


def _norm_bytes(dtype: torch.dtype, size: Size) -> int:
    # Forward: two in, two out. Backward: two gradients and the stream in, one gradient out.
    return 8 * size.rows * size.dim * dtype.itemsize


def _gelu_example(device: torch.device, dtype: torch.dtype, size: Size) -> tuple:
    return gelu.random_arguments(size.rows, 4 * size.dim, device=device, dtype=dtype)


def _gelu_bytes(dtype: torch.dtype, size: Size) -> int:
    return 5 * size.rows * 4 * size.dim * dtype.itemsize


def _loss_example(device: torch.device, dtype: torch.dtype, size: Size) -> tuple:
    masked = size.patches - size.patches // 5
    return loss.random_arguments(size.batch, masked, size.values, device=device, dtype=dtype)


def _loss_bytes(dtype: torch.dtype, size: Size) -> int:
    masked = size.patches - size.patches // 5
    return size.batch * masked * size.values * (3 * dtype.itemsize + 2 * _FP32_BYTES)


def _packed_example(device: torch.device, dtype: torch.dtype, size: Size) -> tuple:
    head_dim = size.dim // size.heads
    return packed_attention.random_arguments(
        size.batch, size.tokens, size.heads, head_dim, device=device, dtype=dtype
    )


def _query_example(device: torch.device, dtype: torch.dtype, size: Size) -> tuple:
    return packed_attention.random_arguments(
        size.batch,
        size.tokens,
        size.heads,
        size.dim // size.heads,
        device=device,
        dtype=dtype,
        queries=size.queries,
    )


def _attention_bytes(dtype: torch.dtype, size: Size, *, all_queries: bool) -> int:
    # Forward: q, k, v in, o out. Backward: q, k, v, o and its gradient in, three gradients out.
    queries = size.tokens if all_queries else size.queries
    return size.batch * size.dim * dtype.itemsize * (6 * size.tokens + 6 * queries)


def _attention_flops(dtype: torch.dtype, size: Size, *, all_queries: bool) -> int:
    # Two products forward, and five backward: the scores are computed again.
    queries = size.tokens if all_queries else size.queries
    return 7 * 2 * size.batch * size.tokens * queries * size.dim


def _crop_example(device: torch.device, dtype: torch.dtype, size: Size) -> tuple:
    tensors = crop_patches.random_arguments(
        size.batch, stored=size.stored, out=size.pixels, patch=size.patch, device=device
    )
    return *tensors, size.pixels, size.patch, dtype


def _crop_bytes(dtype: torch.dtype, size: Size) -> int:
    # The mean crop is 0.6 of the image: crop_min 0.2.
    read = round(0.6 * size.stored**2) * CHANNELS
    return size.batch * (read + size.pixels**2 * CHANNELS * dtype.itemsize)


def _crop_way(function: Callable) -> Callable:
    """Let a crop be called with the example's arguments by position."""

    def call(store, index, boxes, flips, order, out, patch, dtype):
        return function(store, index, boxes, flips, order, out=out, patch=patch, dtype=dtype)

    return call


def _order_example(device: torch.device, dtype: torch.dtype, size: Size) -> tuple:
    items = torch.arange(size.batch, device=device)
    return 0, items, torch.zeros_like(items), size.patches


def _order_bytes(dtype: torch.dtype, size: Size) -> int:
    return torch.int64.itemsize * size.batch * (2 + size.patches)


OPS: tuple[GpuOp, ...] = (
    GpuOp(
        "mask_order",
        mask_order.mask_order_reference,
        _fast("mask_order"),
        _order_example,
        _order_bytes,
        _no_flops,
        differentiable=False,
    ),
    GpuOp(
        "crop_patches",
        _crop_way(crop_patches.crop_patches_reference),
        _crop_way(_fast("crop_patches")),
        _crop_example,
        _crop_bytes,
        _no_flops,
        differentiable=False,
    ),
    GpuOp(
        "add_norm",
        norm.add_norm_reference,
        _fast("add_norm"),
        _norm_example,
        _norm_bytes,
        _no_flops,
    ),
    GpuOp(
        "bias_gelu",
        gelu.bias_gelu_reference,
        _fast("bias_gelu"),
        _gelu_example,
        _gelu_bytes,
        _no_flops,
    ),
    GpuOp(
        "masked_error",
        loss.masked_error_reference,
        _fast("masked_error"),
        _loss_example,
        _loss_bytes,
        _no_flops,
    ),
    GpuOp(
        "packed_attention",
        packed_attention.packed_attention_reference,
        _fast("packed_attention"),
        _packed_example,
        functools.partial(_attention_bytes, all_queries=True),
        functools.partial(_attention_flops, all_queries=True),
    ),
    GpuOp(
        "query_attention",
        packed_attention.query_attention_reference,
        _fast("query_attention"),
        _query_example,
        functools.partial(_attention_bytes, all_queries=False),
        functools.partial(_attention_flops, all_queries=False),
    ),
)
