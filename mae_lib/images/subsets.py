"""Nested subsets: the first n images of a family's order, every prefix in the mixture's proportions.

Which images come first is decided by a keyed hash of their content or their name, so that neither
file order nor machine nor number of workers has a say; each seed gives an independent family.
"""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np


def subset_order(kind: str, sources: np.ndarray, keys: Sequence[str], seed: int) -> np.ndarray:
    """Return all images in the order in which subsets of a store take them: int64 `[N]`.

    `sources` numbers each image's source in the study's order. For kind "sources", `keys` are
    `name_key`s (no image has to be decoded to be chosen); for the kinds before it they are the
    sha256 of the pixels, and the order is the one that their results were made with.
    """
    order = proportional_order if kind == "sources" else family_order
    return order(sources, keys, seed)


def proportional_order(sources: np.ndarray, keys: Sequence[str], seed: int) -> np.ndarray:
    """Return an order whose every prefix holds each source in proportion within less than one image.

    The n-th place goes to the source that falls due first among those that are behind enough.
    Source: Tijdeman 1980, "The chairman assignment problem": with m sources no prefix is further
    than 1 - 1 / (2m - 2) from n x share. Integers throughout, so that it is the same everywhere.
    """
    counts = np.bincount(sources)
    used = np.flatnonzero(counts)
    ranked = _ranked(sources, keyed(keys, seed), used)
    if len(used) < 2:
        return np.concatenate([*ranked, np.empty(0, np.int64)])
    total, sizes = len(sources), [int(counts[source]) for source in used]
    slack = 2 * len(used) - 2
    order, taken = np.empty(total, np.int64), [0] * len(used)
    for place in range(total):
        best, best_due = -1, 0
        for index, size in enumerate(sizes):
            behind = slack * ((place + 1) * size - taken[index] * total)
            if behind < total:
                continue
            # The time at which it would be too far behind, as a fraction over `size`.
            due = total * (slack - 1) - behind
            if best < 0 or due * sizes[best] < best_due * size:
                best, best_due = index, due
        order[place] = ranked[best][taken[best]]
        taken[best] += 1
    return order


def family_order(sources: np.ndarray, hashes: Sequence[str], seed: int) -> np.ndarray:
    """Return all images in the order in which subsets take them: int64 `[N]`.

    `sources` numbers each image's source, `hashes` are the sha256 of its pixels. The k-th image of
    a source with n of N images stands at (k + 1/2) / n of the way. Equal hashes fall back on the
    index.
    Error: prefixes of the paper's mixture are within 0.78 of an image of each source's part; with
    m sources the rule bounds it by m / 2 only (`proportional_order` by 1).
    """
    keys = keyed(hashes, seed)
    place = np.empty(len(keys), np.float64)
    used = np.unique(sources)
    for ranked in _ranked(sources, keys, used):
        place[ranked] = (np.arange(len(ranked)) + 0.5) / len(ranked)
    return np.lexsort((sources, place)).astype(np.int64)


def keyed(texts: Iterable[str], seed: int) -> np.ndarray:
    """Return 56 bits of sha256 of each text under a seed: int64 `[n]`."""
    hashes = (hashlib.sha256(f"{seed}:{text}".encode()).digest()[:7] for text in texts)
    return np.fromiter((int.from_bytes(h, "big") for h in hashes), np.int64)


def name_key(source: str, name: str, repeat: int = 0) -> str:
    """Return the text by which an image of kind "sources" is chosen.

    The k-th repeat of an image has a key of its own, so that repeats are spread over the order.
    """
    return f"{source}/{name}" if repeat == 0 else f"{source}/{name}#{repeat}"


def _ranked(sources: np.ndarray, keys: np.ndarray, used: np.ndarray) -> list[np.ndarray]:
    """Return the images of each source by rising key: a list of int64 arrays."""
    members = (np.flatnonzero(sources == source) for source in used)
    return [m[np.lexsort((m, keys[m]))] for m in members]
