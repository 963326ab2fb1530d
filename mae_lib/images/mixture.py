"""How many images each source gives: whole numbers that sum exactly, or an error that says why not."""

from collections.abc import Mapping, Sequence

import numpy as np

from mae_lib.errors import StudyError
from mae_lib.study.definition import Source


def allot(total: int, shares: Sequence[float]) -> np.ndarray:
    """Split `total` by shares: int64, each within one of its exact part, summing to `total`.

    Source: largest remainders (Hamilton); ties go to the earlier source.
    """
    exact = np.asarray(shares, np.float64) / np.sum(shares) * total
    counts = np.floor(exact + 1e-9).astype(np.int64)
    remainder = exact - counts
    for index in np.argsort(-remainder, kind="stable")[: total - counts.sum()]:
        counts[index] += 1
    return counts


def largest_total(sources: Sequence[Source], available: Mapping[str, int]) -> int:
    """Return the most images that keep the proportions without a repeat."""
    return int(min(available[source.name] / source.share for source in sources) + 1e-9)


def require_feasible(
    total: int, sources: Sequence[Source], available: Mapping[str, int]
) -> dict[str, int]:
    """Return how many images each source gives.

    Raises: StudyError naming what is short and the largest total in these proportions.
    """
    asked = dict(
        zip(
            (s.name for s in sources),
            map(int, allot(total, [s.share for s in sources])),
            strict=True,
        )
    )
    short = [name for name, count in asked.items() if count > available[name]]
    if short:
        parts = "; ".join(f"{n} asked {asked[n]:,}, has {available[n]:,}" for n in short)
        raise StudyError(
            f"data.total: {total:,} images cannot be had in these proportions: {parts}; "
            f"at most {largest_total(sources, available):,} can"
        )
    return asked
