"""The counter-based random words of philox.py in Triton: the same bits."""

from typing import no_type_check  # a type checker's wrapper is not what Triton compiles

import torch
import triton
import triton.language as tl
from jaxtyping import Int
from torch import Tensor

from mae_lib.kernels.philox import Purpose

_BLOCK = 256


def random_words_triton(
    seed: int, purpose: Purpose, items: Int[Tensor, " B"], steps: Int[Tensor, " B"], *, draws: int
) -> Int[Tensor, "B {draws}"]:
    """Return philox.random_words as int64, drawn on the device of `items`."""
    out = torch.empty(len(items), draws, dtype=torch.int64, device=items.device)
    grid = (len(items), triton.cdiv(draws, _BLOCK))
    _words_kernel[grid](
        out, items.contiguous(), steps.contiguous(), key64(seed, purpose), draws, BLOCK=_BLOCK
    )
    return out


def key64(seed: int, purpose: Purpose) -> int:
    """Pack the two key words, the seed's low half and the purpose, as tl.philox takes them."""
    return int(purpose) << 32 | (seed & 0xFFFFFFFF)


@triton.jit
@no_type_check
def random_word(key, item, step, draw):
    """Return word `draw` of an item at a step, 32 bits in int64. Purposes are small: `key` is positive.

    A block gives four words and each lane keeps one; the draw is a thousandth of any step.
    """
    counter = (draw >> 2).to(tl.uint32)
    low = counter * 0 + (item & 0xFFFFFFFF).to(tl.uint32)
    high = counter * 0 + ((item >> 32) & 0xFFFFFFFF).to(tl.uint32)
    time = counter * 0 + step.to(tl.uint32)
    a, b, c, d = tl.philox(key, counter, low, time, high)
    lane = draw & 3
    word = tl.where(lane == 0, a, tl.where(lane == 1, b, tl.where(lane == 2, c, d)))
    return word.to(tl.int64)


@triton.jit(do_not_specialize=["key", "draws"])
@no_type_check
def _words_kernel(
    out,  # int64 [B, draws]
    items,  # int64 [B]
    steps,  # int64 [B]
    key,
    draws,
    BLOCK: tl.constexpr,
):
    image = tl.program_id(0).to(tl.int64)
    draw = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    word = random_word(key, tl.load(items + image), tl.load(steps + image), draw)
    tl.store(out + image * draws + draw, word, mask=draw < draws)
