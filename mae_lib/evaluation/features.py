"""Features of whole images: two ways to pool an encoder's patch tokens, and the raw pixels."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from mae_lib.kernels.crop import crop_resize, normalise, whole_boxes

Encode = Callable[[Tensor], Tensor]
# Raw pixels are read at this side at most: more pixels only make their probes worse and slower.
PIXEL_SIDE = 32


@dataclass(frozen=True)
class Features:
    """`mean`: mean of the patch tokens `[n, D]`; `pooled`: means of four quadrants `[n, 4 D]`."""

    mean: np.ndarray
    pooled: np.ndarray


def encoder_on(encode: Encode, where: torch.device) -> Encode:
    """Return an encoder that takes images from the host to where its weights are."""
    return lambda pixels: encode(pixels.to(where))


def extract(
    encode: Encode, images: UInt8[np.ndarray, "n S S 3"], *, pixels: int, batch_size: int = 256
) -> Features:
    """Encode images at `pixels` a side, unmasked, and pool their tokens in float32.

    `encode` maps normalised images `[B, H, W, 3]` to tokens `[B, 1 + L, D]`; the class token is
    left out, because it never did better than the mean.
    """
    means, pooled = [], []
    with torch.no_grad():
        for start in range(0, len(images), batch_size):
            tokens = encode(normalise(resized(images[start : start + batch_size], pixels)))
            patches = tokens[:, 1:].float()
            means.append(patches.mean(1).cpu().numpy())
            pooled.append(_quadrants(patches).cpu().numpy())
    return Features(np.concatenate(means), np.concatenate(pooled))


def raw_pixels(images: UInt8[np.ndarray, "n S S 3"], *, pixels: int) -> np.ndarray:
    """Return the pixels themselves as features, at most 32 a side: float32 `[n, 3 side^2]`."""
    side = min(pixels, PIXEL_SIDE)
    parts = [
        resized(images[start : start + 512], side).flatten(1).numpy()
        for start in range(0, len(images), 512)
    ]
    return np.concatenate(parts)


def resized(images: UInt8[np.ndarray, "n S S 3"], side: int) -> Float[Tensor, "n side side 3"]:
    """Resize whole images, antialiased, to grey levels in float32."""
    batch = torch.from_numpy(np.array(images))
    return crop_resize(batch, *whole_boxes(len(batch), batch.shape[1]), side)


def _quadrants(patches: Float[Tensor, "B L D"]) -> Float[Tensor, "B four_D"]:
    batch, tokens, dim = patches.shape
    side = int(tokens**0.5)
    grid = patches.view(batch, side, side, dim)
    half = (side + 1) // 2
    parts = [
        grid[:, rows, columns].mean((1, 2))
        for rows in (slice(0, half), slice(side - half, side))
        for columns in (slice(0, half), slice(side - half, side))
    ]
    return torch.cat(parts, dim=1)
