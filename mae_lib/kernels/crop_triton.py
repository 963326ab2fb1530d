"""One launch from stored images to the patches of a step, in the integers of crop_integer.py.

A program makes one patch. It computes the pass across again for every row of the pass down that needs
it: T squared reads of the first-level cache a value where two passes would take 2 T (T is 5 to 9 down
to half the size), and nothing is written between the passes.
"""

from typing import no_type_check  # a type checker's wrapper is not what Triton compiles

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from mae_lib.kernels.crop_integer import BITS, weight_table
from mae_lib.kernels.crop_patches import level_table

CHANNELS = 3


def crop_patches_triton(
    store: UInt8[Tensor, "N height width 3"],
    index: Int[Tensor, " B"],
    boxes: Int[Tensor, "B 4"],
    flips: Bool[Tensor, " B"],
    order: Int[Tensor, "B n"],
    *,
    out: int,
    patch: int,
    dtype: torch.dtype,
) -> Float[Tensor, "B n ppC"] | UInt8[Tensor, "B n ppC"]:
    """Return crop_patches_reference, bit for bit in uint8 and fp32."""
    return torch.ops.mae_lib.crop_patches(store, index, boxes, flips, order, out, patch, dtype)


@torch.library.custom_op("mae_lib::crop_patches", mutates_args=())
def _crop_patches(
    store: Tensor,
    index: Tensor,
    boxes: Tensor,
    flips: Tensor,
    order: Tensor,
    out: int,
    patch: int,
    dtype: torch.dtype,
) -> Tensor:
    batch, wanted = order.shape
    _, height, width, _ = store.shape
    values = patch * patch * CHANNELS
    block = triton.next_power_of_2(values)
    down, down_first = weight_table(height, out, store.device)
    across, across_first = weight_table(width, out, store.device)
    # Columns of one table are read where they lie: a copy each would be a launch each.
    boxes = boxes if boxes.stride(1) == 1 else boxes.contiguous()
    patches = torch.empty(batch, wanted, values, dtype=dtype, device=store.device)
    _crop_kernel[(batch, wanted)](
        patches,
        store.contiguous(),
        index,
        boxes,
        flips.view(torch.uint8),
        order.contiguous(),
        down,
        down_first,
        across,
        across_first,
        level_table(store.device),
        index.stride(0),
        boxes.stride(0),
        flips.stride(0),
        HEIGHT=height,
        WIDTH=width,
        OUT=out,
        PATCH=patch,
        DOWN_TAPS=down.shape[-1],
        ACROSS_TAPS=across.shape[-1],
        PRECISION=BITS,
        GREY=dtype == torch.uint8,
        BLOCK=block,
        num_warps=max(1, min(8, block // 128)),
    )
    return patches


@_crop_patches.register_fake
def _(store, index, boxes, flips, order, out, patch, dtype):
    return store.new_empty(*order.shape, patch * patch * CHANNELS, dtype=dtype)


@triton.jit
@no_type_check
def _taps(length, OUT: tl.constexpr):
    """crop_integer.window_taps: so many pixels of the box weigh on one of the result."""
    reach = (2 * tl.maximum(length, OUT) + OUT - 1) // OUT
    return tl.minimum(2 * reach + 1, length)


@triton.jit
@no_type_check
def _to_level(total, PRECISION: tl.constexpr):
    """Round a sum of weighted grey levels to a level, as Pillow does after each pass."""
    level = (total + (1 << (PRECISION - 1))) >> PRECISION
    return tl.minimum(tl.maximum(level, 0), 255)


@triton.jit
@no_type_check
def _crop_kernel(
    patches,  # [B, n, PATCH, PATCH, 3]
    store,  # uint8 [N, HEIGHT, WIDTH, 3]
    index,  # int [B], index_stride apart
    boxes,  # int [B, 4], box_stride apart: top, left, height, width
    flips,  # uint8 [B], flip_stride apart
    order,  # int [B, n]
    down,  # int32 [HEIGHT + 1, OUT, DOWN_TAPS]
    down_first,  # int32 [HEIGHT + 1, OUT]
    across,  # int32 [WIDTH + 1, OUT, ACROSS_TAPS]
    across_first,  # int32 [WIDTH + 1, OUT]
    levels,  # fp32 [256, 3]
    index_stride,
    box_stride,
    flip_stride,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    OUT: tl.constexpr,
    PATCH: tl.constexpr,
    DOWN_TAPS: tl.constexpr,
    ACROSS_TAPS: tl.constexpr,
    PRECISION: tl.constexpr,
    GREY: tl.constexpr,
    BLOCK: tl.constexpr,
):
    image = tl.program_id(0).to(tl.int64)
    slot = image * tl.num_programs(1) + tl.program_id(1)
    chosen = tl.load(order + slot).to(tl.int32)
    value = tl.arange(0, BLOCK)
    there = value < PATCH * PATCH * 3
    channel = value % 3
    y = chosen // (OUT // PATCH) * PATCH + value // (PATCH * 3)
    x = chosen % (OUT // PATCH) * PATCH + value // 3 % PATCH
    y = tl.where(there, y, 0)
    x = tl.where(tl.load(flips + image * flip_stride) != 0, OUT - 1 - x, x)
    box = boxes + image * box_stride
    top = tl.load(box).to(tl.int32)
    left = tl.load(box + 1).to(tl.int32)
    height = tl.load(box + 2).to(tl.int32)
    width = tl.load(box + 3).to(tl.int32)
    source = store + tl.load(index + image * index_stride).to(tl.int64) * (HEIGHT * WIDTH * 3)
    row = top + tl.load(down_first + height * OUT + y)
    column = left + tl.load(across_first + width * OUT + x)
    line = (row * WIDTH + column) * 3 + channel
    down_weights = down + (height * OUT + y) * DOWN_TAPS
    across_weights = across + (width * OUT + x) * ACROSS_TAPS
    total = tl.zeros([BLOCK], tl.int32)
    across_taps = _taps(width, OUT)
    for i in range(_taps(height, OUT)):
        level = tl.zeros([BLOCK], tl.int32)
        for j in range(across_taps):
            pixel = tl.load(source + line + j * 3).to(tl.int32)
            level += tl.load(across_weights + j) * pixel
        total += tl.load(down_weights + i) * _to_level(level, PRECISION)
        line += WIDTH * 3
    level = _to_level(total, PRECISION)
    place = patches + slot * (PATCH * PATCH * 3) + value
    if GREY:
        tl.store(place, level.to(tl.uint8), mask=there)
    else:
        normalised = tl.load(levels + level * 3 + channel)
        tl.store(place, normalised.to(patches.dtype.element_ty), mask=there)
