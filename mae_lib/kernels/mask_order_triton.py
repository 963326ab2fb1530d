"""Patch orders drawn and sorted on the device, some images a program."""

from typing import no_type_check  # a type checker's wrapper is not what Triton compiles

import torch
import triton
import triton.language as tl
from jaxtyping import Int
from torch import Tensor

from mae_lib.kernels.mask_order import mask_order_reference
from mae_lib.kernels.philox import Purpose
from mae_lib.kernels.philox_triton import key64, random_word

# One program sorts a whole image; longer ones go to torch's sort.
LONGEST = 4096
_TILE = 1024


def mask_order_triton(
    seed: int, items: Int[Tensor, " B"], steps: Int[Tensor, " B"], tokens: int
) -> Int[Tensor, "B {tokens}"]:
    """Return mask_order_reference, bit for bit."""
    if tokens > LONGEST:
        return mask_order_reference(seed, items, steps, tokens)
    return torch.ops.mae_lib.mask_order(seed, items, steps, tokens)


@torch.library.custom_op("mae_lib::mask_order", mutates_args=())
def _mask_order(seed: int, items: Tensor, steps: Tensor, tokens: int) -> Tensor:
    block = triton.next_power_of_2(tokens)
    images = max(1, _TILE // block)
    out = torch.empty(len(items), tokens, dtype=torch.int64, device=items.device)
    _order_kernel[(triton.cdiv(len(items), images),)](
        out,
        items,
        steps,
        key64(seed, Purpose.MASK),
        len(items),
        items.stride(0),
        steps.stride(0),
        TOKENS=tokens,
        BITS=max(1, (tokens - 1).bit_length()),
        IMAGES=images,
        BLOCK=block,
    )
    return out


@_mask_order.register_fake
def _(seed, items, steps, tokens):
    return items.new_empty(items.shape[0], tokens, dtype=torch.int64)


@triton.jit(do_not_specialize=["key", "batch"])
@no_type_check
def _order_kernel(
    out,  # int64 [batch, TOKENS]
    items,  # int64 [batch], item_stride apart: columns of one table
    steps,  # int64 [batch], step_stride apart
    key,
    batch,
    item_stride,
    step_stride,
    TOKENS: tl.constexpr,
    BITS: tl.constexpr,
    IMAGES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    image = tl.program_id(0).to(tl.int64) * IMAGES + tl.arange(0, IMAGES)[:, None]
    there = image < batch
    position = tl.arange(0, BLOCK)[None, :] + tl.zeros([IMAGES, BLOCK], tl.int32)
    item = tl.load(items + image * item_stride, mask=there, other=0)
    step = tl.load(steps + image * step_stride, mask=there, other=0)
    word = random_word(key, item, step, position)
    keys = (word << BITS) | position.to(tl.int64)
    # What fills up the block sorts behind every key.
    keys = tl.where(position < TOKENS, keys, 0x7FFFFFFFFFFFFFFF)
    order = tl.sort(keys, dim=1) & ((1 << BITS) - 1)
    tl.store(out + image * TOKENS + position, order, mask=there & (position < TOKENS))
