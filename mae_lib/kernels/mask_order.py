"""The order of patches, drawn on the device: the very bits of model/masking.py's host draw.

A CUDA graph replays it for other images and epochs, since both are read from tensors.
"""

import torch
from jaxtyping import Int
from torch import Tensor

from mae_lib.kernels.dispatch import chosen
from mae_lib.kernels.philox import Purpose, philox4x32

_WORD = 0xFFFFFFFF


def mask_order(
    seed: int, items: Int[Tensor, " B"], steps: Int[Tensor, " B"], tokens: int
) -> Int[Tensor, "B {tokens}"]:
    """Return each image's patches in random order, by the kernel where there is one.

    `items` are store indices and `steps` epochs, int64 on the device. Equal bit for bit to
    `model.masking.patch_order` (tests/kernels/test_mask_order.py).
    """
    return chosen("mask_order", mask_order_reference, items)(seed, items, steps, tokens)


def mask_order_reference(
    seed: int, items: Int[Tensor, " B"], steps: Int[Tensor, " B"], tokens: int
) -> Int[Tensor, "B {tokens}"]:
    """Return the same by torch: keys of 32 random bits with the position below them, sorted."""
    words = random_words_reference(seed, Purpose.MASK, items, steps, draws=tokens)
    bits = max(1, (tokens - 1).bit_length())
    keys = (words << bits) | torch.arange(tokens, device=items.device)
    return keys.sort(dim=-1).values & ((1 << bits) - 1)


def random_words_reference(
    seed: int, purpose: Purpose, items: Int[Tensor, " B"], steps: Int[Tensor, " B"], *, draws: int
) -> Int[Tensor, "B {draws}"]:
    """Return philox.random_words as int64 on the device of `items`."""
    block = torch.arange(-(-draws // 4), device=items.device)
    item, step = items[:, None], steps[:, None]
    words = philox4x32(
        *torch.broadcast_tensors(block, item & _WORD, step, (item >> 32) & _WORD),
        seed & _WORD,
        int(purpose),
    )
    return torch.stack(words, -1).flatten(1)[:, :draws]
