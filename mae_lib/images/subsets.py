"""Nested subsets: the first n images of a family's order, every prefix in the mixture's proportions.

Which images come first is decided by a keyed hash of their content or their name, so that neither
file order nor machine nor number of workers has a say; each seed gives an independent family.
"""

import hashlib
from collections.abc import Sequence

import numpy as np


def family_order(sources: np.ndarray, hashes: Sequence[str], seed: int) -> np.ndarray:
    """Return all images in the order in which subsets take them: int64 `[N]`.

    `sources` numbers each image's source; `hashes` are what the choice is keyed by: the sha256 of
    an image's pixels (kinds "procedural" and "tars"), or its `name_key` (kind "sources": no image
    has to be decoded to be chosen). The k-th image of a source with n of N images stands at
    (k + 1/2) / n of the way, so every prefix holds each source in proportion within one image.
    Equal keys fall back on the index.
    """
    keys = keyed(hashes, seed)
    place = np.empty(len(keys), np.float64)
    for source in np.unique(sources):
        members = np.flatnonzero(sources == source)
        ranked = members[np.lexsort((members, keys[members]))]
        place[ranked] = (np.arange(len(ranked)) + 0.5) / len(ranked)
    return np.lexsort((sources, place)).astype(np.int64)


def keyed(texts: Sequence[str], seed: int) -> np.ndarray:
    """Return 56 bits of sha256 of each text under a seed: int64 `[n]`."""
    return np.array(
        [
            int.from_bytes(hashlib.sha256(f"{seed}:{text}".encode()).digest()[:7], "big")
            for text in texts
        ],
        np.int64,
    )


def name_key(source: str, name: str, repeat: int = 0) -> str:
    """Return the text by which an image of kind "sources" is chosen.

    The k-th repeat of an image has a key of its own, so that repeats are spread over the order.
    """
    return f"{source}/{name}" if repeat == 0 else f"{source}/{name}#{repeat}"
