"""Counter-based random numbers: the same bits in numpy and torch, for any batch split.

Philox4x32-10 turns a key (seed, purpose) and a counter (what is drawn) into four 32-bit words.
Nothing is remembered between calls, so a resumed, split or reordered run draws the same numbers.

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; Random123 test vectors.
"""

from enum import IntEnum

import numpy as np

_MULTIPLIER_0, _MULTIPLIER_1 = 0xD2511F53, 0xCD9E8D57
_WEYL_0, _WEYL_1 = 0x9E3779B9, 0xBB67AE85
_WORD = 0xFFFFFFFF
_ROUNDS = 10


class Purpose(IntEnum):
    """The second key word: draws for one purpose never meet draws for another."""

    ORDER = 1
    CROP = 2
    MASK = 3
    SUBSET = 4
    SCENE = 5
    BOOTSTRAP = 6
    INITIALISE = 7
    SIMULATE = 8


def philox4x32(c0, c1, c2, c3, k0: int, k1: int):
    """Return four words of 32 random bits for each counter, as 64-bit integers.

    Takes numpy uint64 arrays or torch int64 tensors of shapes that broadcast; products of two
    32-bit words wrap in int64 but keep their bits, so both give the same words.
    """
    for i in range(_ROUNDS):
        p0, p1 = c0 * _MULTIPLIER_0, c2 * _MULTIPLIER_1
        a, b = (k0 + i * _WEYL_0) & _WORD, (k1 + i * _WEYL_1) & _WORD
        c0, c1, c2, c3 = (
            ((p1 >> 32) & _WORD) ^ c1 ^ a,
            p1 & _WORD,
            ((p0 >> 32) & _WORD) ^ c3 ^ b,
            p0 & _WORD,
        )
    return c0, c1, c2, c3


def random_words(seed: int, purpose: Purpose, item, step=0, *, draws: int) -> np.ndarray:
    """Draw `draws` words of 32 bits for each item (and step): uint64 [..., draws].

    `item` and `step` are integers or integer arrays that broadcast against each other; the
    counter is (draw block, item, step, high half of the item).
    """
    item, step = np.broadcast_arrays(np.asarray(item, np.uint64), np.asarray(step, np.uint64))
    block = np.arange(-(-draws // 4), dtype=np.uint64)
    low, high = item & np.uint64(_WORD), item >> np.uint64(32)
    words = philox4x32(
        *np.broadcast_arrays(block, low[..., None], step[..., None], high[..., None]),
        seed & _WORD,
        int(purpose),
    )
    return np.stack(words, -1).reshape(*item.shape, -1)[..., :draws]


def uniform(words: np.ndarray) -> np.ndarray:
    """Map 32-bit words to float64 in [0, 1): the upper 24 bits, exact in float32 too."""
    return (words >> np.uint64(8)).astype(np.float64) * 2.0**-24


def random_order(seed: int, purpose: Purpose, items: np.ndarray, step: int = 0) -> np.ndarray:
    """Return the permutation that sorts `items` by their keys; equal keys fall back on the item."""
    keys = random_words(seed, purpose, items, step, draws=2)
    return np.lexsort((items, keys[..., 1], keys[..., 0]))
