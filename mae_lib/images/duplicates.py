"""Images that a store holds twice, and images of evaluation that it shows in pretraining.

Three kinds of pairs: `bytes` (the encoded files are the same), `pixels` (the stored pixels are),
`near` (perceptual hashes lie close and the edges correlate: a recompressed, rescaled or slightly
shifted copy). Exact pairs are found by sorting hashes, near ones among all pairs of images.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mae_lib.images.perceptual import close_pairs
from mae_lib.images.structure import edge_correlation, edges

COLUMNS = (
    "kind", "array_1", "row_1", "source_1", "name_1", "array_2", "row_2", "source_2", "name_2",
    "phash_bits", "dhash_bits", "edge_correlation",
)  # fmt: skip


@dataclass(frozen=True)
class Near:
    """What counts as a near duplicate: bits of 64 that may differ, and the edges' correlation."""

    phash_bits: int
    dhash_bits: int
    correlation: float


# Of 12,000 photographs the pairs above 0.72 are three true twins and two faces much alike.
PHOTOGRAPHS = Near(14, 20, 0.72)
# Drawn images of one class share their layout by design: only what could be taken for a copy.
DRAWN = Near(4, 8, 0.9)


@dataclass(frozen=True)
class Prints:
    """What is known of the n images of one array: names, hashes, and the pixels they are of.

    `encoded` is "" where an image never was a file.
    """

    array: str
    images: np.ndarray
    source: np.ndarray
    name: np.ndarray
    sha256: np.ndarray
    encoded: np.ndarray
    phash: np.ndarray
    dhash: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


def pairs_within(one: Prints, near: Near) -> pd.DataFrame:
    """Return the pairs of one array, each once: columns `COLUMNS`.

    Of k equal images there are k - 1 exact pairs, each with the first of them.
    """
    found: dict[tuple[int, int], str] = {}
    for kind, hashes in (("bytes", one.encoded), ("pixels", one.sha256)):
        for first, others in _groups(hashes):
            for other in others:
                found.setdefault((first, other), kind)
    return _frame(one, one, found, _near_pairs(one, None, near))


def pairs_across(one: Prints, two: Prints, near: Near) -> pd.DataFrame:
    """Return the pairs between two arrays: columns `COLUMNS`."""
    found: dict[tuple[int, int], str] = {}
    for kind, mine, theirs in (
        ("bytes", one.encoded, two.encoded),
        ("pixels", one.sha256, two.sha256),
    ):
        known: dict[str, list[int]] = {}
        for index, sha256 in enumerate(theirs):
            if sha256:
                known.setdefault(sha256, []).append(index)
        for index, sha256 in enumerate(mine):
            for other in known.get(sha256, ()) if sha256 else ():
                found.setdefault((index, other), kind)
    return _frame(one, two, found, _near_pairs(one, two, near))


def summary(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return a row a place where pairs were found: how many of each kind."""
    rows = []
    for (array, source_1, source_2), part in pairs.groupby(
        ["array_2", "source_1", "source_2"], sort=True
    ):
        counts = part["kind"].value_counts()
        within = array == "images.npy"
        rows.append(
            {
                "source": source_1,
                "against": source_2 if within else array.removesuffix(".npy"),
                **{kind: int(counts.get(kind, 0)) for kind in ("bytes", "pixels", "near")},
            }
        )
    return pd.DataFrame(rows, columns=["source", "against", "bytes", "pixels", "near"])


def _groups(hashes: np.ndarray) -> Iterator[tuple[int, list[int]]]:
    """Yield the first index and the later ones of every hash that is there more than once."""
    first: dict[str, int] = {}
    later: dict[int, list[int]] = {}
    for index, sha256 in enumerate(hashes):
        if sha256 and first.setdefault(sha256, index) != index:
            later.setdefault(first[sha256], []).append(index)
    yield from later.items()


def _near_pairs(one: Prints, two: Prints | None, near: Near) -> pd.DataFrame:
    close = close_pairs(
        (one.phash, one.dhash),
        None if two is None else (two.phash, two.dhash),
        phash_bits=near.phash_bits,
        dhash_bits=near.dhash_bits,
    )
    first, mine = np.unique(close[:, 0], return_inverse=True)
    second, theirs = np.unique(close[:, 1], return_inverse=True)
    other = one if two is None else two
    correlation = edge_correlation(
        edges(one.images[first]), edges(other.images[second]), np.stack([mine, theirs], axis=1)
    )
    kept = correlation >= near.correlation
    columns = dict(zip(("first", "second", "phash", "dhash"), close[kept].T, strict=True))
    return pd.DataFrame(columns | {"correlation": correlation[kept]})


def _frame(one: Prints, two: Prints, exact: dict, near: pd.DataFrame) -> pd.DataFrame:
    rows = [(kind, a, b, 0, 0, 1.0) for (a, b), kind in exact.items()]
    for pair in near.itertuples(index=False):
        a, b = int(pair.first), int(pair.second)
        if (a, b) not in exact and one.sha256[a] != two.sha256[b]:
            rows.append(("near", a, b, int(pair.phash), int(pair.dhash), pair.correlation))
    order = {"bytes": 0, "pixels": 1, "near": 2}
    rows.sort(key=lambda row: (order[row[0]], -row[5], row[1], row[2]))
    table = [
        (
            kind,
            one.array,
            a,
            one.source[a],
            one.name[a],
            two.array,
            b,
            two.source[b],
            two.name[b],
            phash,
            dhash,
            round(float(correlation), 4),
        )
        for kind, a, b, phash, dhash, correlation in rows
    ]
    return pd.DataFrame(table, columns=list(COLUMNS))
