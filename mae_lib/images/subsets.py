"""Nested subsets: the first n images of a family's order, every prefix in the mixture's proportions.

Which images come first is decided by a keyed hash of their content, so that neither file order nor
machine nor number of workers has a say; each seed gives an independent family.
"""

import hashlib
from collections.abc import Sequence

import numpy as np


def family_order(sources: np.ndarray, hashes: Sequence[str], seed: int) -> np.ndarray:
    """Return all images in the order in which subsets take them: int64 `[N]`.

    `sources` numbers each image's source, `hashes` are the sha256 of its pixels. The k-th image of
    a source with n of N images stands at (k + 1/2) / n of the way, so every prefix holds each
    source in proportion within one image. Equal content falls back on the index.
    """
    keys = np.array(
        [
            int.from_bytes(hashlib.sha256(f"{seed}:{h}".encode()).digest()[:7], "big")
            for h in hashes
        ],
        np.int64,
    )
    place = np.empty(len(keys), np.float64)
    for source in np.unique(sources):
        members = np.flatnonzero(sources == source)
        ranked = members[np.lexsort((members, keys[members]))]
        place[ranked] = (np.arange(len(ranked)) + 0.5) / len(ranked)
    return np.lexsort((sources, place)).astype(np.int64)
