"""Cut and resize in whole numbers: equal bits on every processor, and Pillow's own.

Pillow rounds its bicubic weights to 22 bits and each of its two passes to whole grey levels. All of it
is integer arithmetic once the weights are there, so a sum in any order, in float64 or in int32, gives
the same bytes. The passes go across, then down, always: Pillow 13 goes down first where that is cheaper,
which changes the bytes of some crops (python-pillow/Pillow#9549).

The weights depend on the length of the box and the side of the result alone. They are made once on
the host, in float64 and in Pillow's order of operations, and shipped as a table: a compiler for a
GPU may fuse a product and a sum into one rounding, which would move the last of the 22 bits.
"""

import functools
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, Int32, UInt8
from torch import Tensor

from mae_lib.kernels.crop import crop_resize

BITS = 22
_HALF = 1 << (BITS - 1)


def crop_integer(
    images: UInt8[Tensor, "B height width 3"],
    boxes: Int[Tensor, "B 4"],
    flips: Bool[Tensor, " B"],
    out: int,
) -> UInt8[Tensor, "B {out} {out} 3"]:
    """Return each image's box (top, left, height, width) at `out` x `out` pixels.

    Error: none against Pillow 13 where it goes across first; mean absolute difference under one
    grey level where it goes down first (tests/kernels/test_crop_integer.py).
    """
    batch, height, width = images.shape[:3]
    down = _matrices(boxes[:, 0], boxes[:, 2], height, out)
    across = _matrices(boxes[:, 1], boxes[:, 3], width, out)
    across = torch.where(flips[:, None, None], across.flip(1), across)
    columns = images.transpose(1, 2).reshape(batch, width, height * 3)
    columns = _apply(across, columns).view(batch, out, height, 3)
    rows = columns.transpose(1, 2).reshape(batch, height, out * 3)
    return _apply(down, rows).view(batch, out, out, 3).to(torch.uint8)


def crop_way(arithmetic: str) -> Callable:
    """Return how images are cropped to grey levels in fp32: in `float` or in `integer` arithmetic."""
    return {"float": crop_resize, "integer": _crop_to_floats}[arithmetic]


def _crop_to_floats(
    images: UInt8[Tensor, "B height width 3"],
    boxes: Int[Tensor, "B 4"],
    flips: Bool[Tensor, " B"],
    out: int,
) -> Float[Tensor, "B {out} {out} 3"]:
    return crop_integer(images, boxes, flips, out).float()


@functools.lru_cache(maxsize=16)
def weight_table(
    size: int, out: int, device: torch.device
) -> tuple[Int32[Tensor, "lengths out taps"], Int32[Tensor, "lengths out"]]:
    """Return for every length 1 to `size` (row 0 is empty) and every output pixel the 22-bit weights
    of its taps, and the first pixel of the box that they stand on.

    A pixel has `window_taps` of them, all inside the box, so that a kernel reads nothing outside;
    those that Pillow would not read weigh nothing. 256 to 224 pixels is 1.6 MB.
    Source: Pillow's src/libImaging/Resample.c, precompute_coeffs, filter BICUBIC (a = -0.5).
    """
    whole = np.arange(1, size + 1)[:, None]
    length = whole.astype(np.float64)
    scale = length / out
    stretch = np.maximum(scale, 1.0)
    support, shrink = 2.0 * stretch, 1.0 / stretch
    centre = (np.arange(out) + 0.5) * scale
    low = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    high = np.minimum((centre + support + 0.5).astype(np.int64), whole)
    window = window_taps(whole, out)
    first = np.minimum(low, whole - window)
    taps = np.zeros((int(window.max()), *first.shape))
    for t in range(len(taps)):
        pixel = t + first
        weight = _bicubic((pixel - centre + 0.5) * shrink)
        taps[t] = np.where((pixel >= low) & (pixel < high), weight, 0.0)
    # Added tap by tap as in C: numpy's own sum over an axis pairs its terms.
    total = functools.reduce(np.add, taps)
    scaled = taps / total * (1 << BITS)
    rounded = np.where(scaled < 0, scaled - 0.5, scaled + 0.5).astype(np.int32)
    weights = np.zeros((size + 1, out, len(taps)), np.int32)
    weights[1:] = rounded.transpose(1, 2, 0)
    start = np.zeros((size + 1, out), np.int32)
    start[1:] = first
    return torch.from_numpy(weights).to(device), torch.from_numpy(start).to(device)


def window_taps(length: np.ndarray, out: int) -> np.ndarray:
    """Return over how many pixels of a box the filter reaches at most: 2 ceil(2 max(scale, 1)) + 1."""
    reach = -(-2 * np.maximum(length, out) // out)
    return np.minimum(2 * reach + 1, length)


def _bicubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution, a = -0.5, with the roundings of Pillow's C."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * -0.5
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _matrices(
    start: Int[Tensor, " B"], length: Int[Tensor, " B"], size: int, out: int
) -> Float64[Tensor, "B out size"]:
    """Spread each box's weights over the pixels of its image."""
    weights, first = weight_table(size, out, start.device)
    taps = weights.shape[-1]
    place = start.long()[:, None] + first[length.long()]
    place = place[..., None] + torch.arange(taps, device=start.device)
    # Rows are as wide as the widest window: past a smaller one they fall on columns that are cut off.
    matrix = torch.zeros(len(start), out, size + taps, dtype=torch.float64, device=start.device)
    return matrix.scatter_(2, place, weights[length.long()].double())[..., :size]


def _apply(
    weights: Float64[Tensor, "B out size"], pixels: Tensor
) -> Float64[Tensor, "B out values"]:
    """One pass: whole numbers below 2^53 are exact in float64, whatever the order of the sum."""
    sums = torch.bmm(weights, pixels.double())
    return ((sums + _HALF) * 2.0**-BITS).floor().clamp(0, 255)
