"""Perceptual hashes of images, and all pairs of them that lie close.

A pHash keeps the signs of the lowest frequencies, a dHash the signs of the differences between
neighbours; both have 64 bits and come from the imagehash package, at its defaults.

Source: Zauner 2010 (pHash); Krawetz 2013 (dHash).
"""

from collections.abc import Iterator

import numpy as np
from PIL import Image

BITS = 64
# Pairs compared at once: 8 bytes each in memory, twice.
_PAIRS = 2**22


def perceptual_hashes(images: np.ndarray) -> tuple[list[int], list[int]]:
    """Return the pHash and the dHash of each image of uint8 `[n, S, S, 3]`, as 64-bit integers."""
    import imagehash  # brings scipy, and only this needs it

    found = [
        (int(str(imagehash.phash(image)), 16), int(str(imagehash.dhash(image)), 16))
        for image in map(Image.fromarray, images)
    ]
    return [phash for phash, _ in found], [dhash for _, dhash in found]


def close_pairs(
    one: tuple[np.ndarray, np.ndarray],
    two: tuple[np.ndarray, np.ndarray] | None,
    *,
    phash_bits: int,
    dhash_bits: int,
) -> np.ndarray:
    """Return all pairs whose pHash and dHash differ in at most so many bits: int64 `[n, 4]`.

    `one` and `two` are (pHash, dHash), uint64 `[n]` and `[m]` each; without `two` the pairs are
    within `one`, each once. Columns: index in `one`, index in `two`, bits of pHash, bits of dHash.
    Every pair is compared, 1e9 a second and core, so none can be missed.
    """
    if two is None:
        return _joined(_within(one, phash_bits, dhash_bits))
    return _joined(_across(one, two, phash_bits, dhash_bits))


def _across(one, two, phash_bits: int, dhash_bits: int) -> Iterator[np.ndarray]:
    step = max(1, _PAIRS // max(1, len(two[0])))
    for start in range(0, len(one[0]), step):
        part = (one[0][start : start + step], one[1][start : start + step])
        found = _near(part, two, phash_bits, dhash_bits)
        found[:, 0] += start
        yield found


def _within(one, phash_bits: int, dhash_bits: int) -> Iterator[np.ndarray]:
    step = max(1, int(_PAIRS**0.5))
    for start in range(0, len(one[0]), step):
        part = (one[0][start : start + step], one[1][start : start + step])
        # only what comes after, so that no pair is seen twice
        for found in _across(part, (one[0][start:], one[1][start:]), phash_bits, dhash_bits):
            yield found[found[:, 0] < found[:, 1]] + np.array([start, start, 0, 0])


def _near(one, two, phash_bits: int, dhash_bits: int) -> np.ndarray:
    differing = np.bitwise_count(one[0][:, None] ^ two[0][None, :])
    first, second = np.nonzero(differing <= phash_bits)
    other = np.bitwise_count(one[1][first] ^ two[1][second])
    kept = other <= dhash_bits
    first, second = first[kept], second[kept]
    columns = (first, second, differing[first, second], other[kept])
    return np.stack([column.astype(np.int64) for column in columns], axis=1)


def _joined(parts: Iterator[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty((0, 4), np.int64), *parts])
