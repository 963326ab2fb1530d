"""Whether two images show the same picture: their edges correlate, a small shift allowed.

Perceptual hashes of aligned faces agree by their layout alone; their edges do not.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

SIDE = 32
# Pixels of 32 by which one copy may be shifted: crops of one photograph differ by that.
SHIFT = 3
# Room for the gradients (31) and the shift, so that what wraps around is never read.
_PADDED = 36
_CHUNK = 512


@dataclass(frozen=True)
class Edges:
    """Grey gradients of n images at 32 pixels.

    `spectrum` is their Fourier transform, complex64 `[n, 36, 36]`; `energy` the sum of squares that
    is left of them at each shift, float64 `[n, 7, 7]`.
    """

    spectrum: np.ndarray
    energy: np.ndarray


def edges(images: np.ndarray) -> Edges:
    """Return the gradients of each image of uint8 `[n, S, S, 3]`, S at least 2."""
    import scipy.fft  # not needed by who only opens a store

    grey = np.empty((len(images), SIDE, SIDE), np.float32)
    for slot, image in enumerate(images):
        small = Image.fromarray(image).convert("L").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        grey[slot] = small
    across = np.diff(grey, axis=2)[:, :-1]
    down = np.diff(grey, axis=1)[:, :, :-1]
    padded = (_PADDED, _PADDED)
    spectrum = scipy.fft.fft2((across + 1j * down).astype(np.complex64), padded)
    return Edges(spectrum, _energies(across.astype(np.float64) ** 2 + down.astype(np.float64) ** 2))


def edge_correlation(one: Edges, two: Edges, pairs: np.ndarray) -> np.ndarray:
    """Return the correlation of the gradients of each pair at its best shift: float64 `[n]`.

    `pairs` is int `[n, 2]`, an index into each. 1 is the same picture; unrelated photographs reach
    0.5 and aligned faces 0.74 (12,000 photographs, all pairs that pHash calls close).
    """
    found = [
        _best_shift(one, two, pairs[start : start + _CHUNK])
        for start in range(0, len(pairs), _CHUNK)
    ]
    return np.concatenate([np.empty(0), *found])


def _best_shift(one: Edges, two: Edges, pairs: np.ndarray) -> np.ndarray:
    import scipy.fft

    first, second = pairs[:, 0], pairs[:, 1]
    lags = scipy.fft.ifft2(one.spectrum[first] * two.spectrum[second].conj()).real
    shifts = np.arange(-SHIFT, SHIFT + 1)
    product = lags[:, shifts[:, None], shifts[None, :]].astype(np.float64)
    # where one image is shifted by d, the other is by -d
    norm = np.sqrt(one.energy[first] * two.energy[second][:, ::-1, ::-1])
    return np.divide(product, norm, out=np.zeros_like(product), where=norm > 0).max((1, 2))


def _energies(squares: np.ndarray) -> np.ndarray:
    """Return the sum of what a shift leaves inside: float64 `[n, 7, 7]`."""
    side = squares.shape[1]
    sums = np.zeros((len(squares), side + 1, side + 1))
    sums[:, 1:, 1:] = squares.cumsum(1).cumsum(2)
    shifts = np.arange(-SHIFT, SHIFT + 1)
    low, high = np.maximum(0, shifts), side + np.minimum(0, shifts)
    rows = sums[:, high] - sums[:, low]
    return rows[:, :, high] - rows[:, :, low]
