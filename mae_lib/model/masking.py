"""Which patches are visible: an explicit count, and an order drawn by counter."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mae_lib.errors import KernelError
from mae_lib.kernels.philox import Purpose, random_words

RULES = ("reference", "exact")


def keep_count(tokens: int, mask_ratio: float, rule: str = "reference") -> int:
    """Return how many patches stay visible.

    `reference` truncates in binary arithmetic as the MAE paper's code does, which keeps one patch
    too few when 0.8 is removed from a multiple of 5 (100 gives 19); `exact` rounds first (20).
    Raises: KernelError for an unknown rule, or when nothing is visible or nothing masked.
    """
    if rule not in RULES:
        raise KernelError(f"keep_rule: one of {', '.join(RULES)}, got {rule!r}")
    kept = tokens * (1 - mask_ratio)
    keep = int(kept) if rule == "reference" else int(round(kept, 9))
    if not 0 < keep < tokens:
        raise KernelError(f"mask_ratio: {mask_ratio:g} leaves {keep} of {tokens} patches visible")
    return keep


def patch_order(seed: int, items: np.ndarray, step, tokens: int) -> Int[Tensor, "B L"]:
    """Return each image's patches in random order; the first `keep` of them are the visible ones.

    Keys are 32 random bits over (seed, item, step) with the position below them, so that equal
    keys cannot make the order depend on the sort.
    """
    keys = random_words(seed, Purpose.MASK, items, step, draws=tokens).astype(np.int64)
    bits = max(1, (tokens - 1).bit_length())
    order = np.argsort((keys << bits) | np.arange(tokens), axis=-1)
    return torch.from_numpy(order)


def order_of_noise(noise: Float[Tensor, "B L"]) -> Int[Tensor, "B L"]:
    """Return the order that facebookresearch/mae and Hugging Face draw from this noise.

    Both sort each image's noise upwards and keep the patches with the least; equal values, which
    they leave undefined, are taken by position here. `model(images, order_of_noise(noise))` is the
    loss of `ViTMAEForPreTraining(images, noise=noise)`.
    """
    return torch.argsort(noise, dim=1, stable=True)


def noise_of_order(order: Int[Tensor, "B L"]) -> Float[Tensor, "B L"]:
    """Return noise that makes the others mask as `order` does: each patch's rank / L in [0, 1).

    Exact in float32 up to 2^24 patches.
    """
    return torch.argsort(order, dim=1) / order.shape[1]
