"""How many images each source gives: whole numbers that sum exactly, or an error that says why not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pandas as pd

from mae_lib.errors import StudyError
from mae_lib.study.definition import Source

# What a study may say about sources that have too few images.
SHORTFALLS = ("error", "rescale", "repeat")


@dataclass(frozen=True)
class Part:
    """One source's part: images asked for in the study's total, there, and taken.

    `taken` counts repeats, `distinct` does not.
    """

    source: str
    asked: int
    available: int
    taken: int

    @property
    def distinct(self) -> int:
        """Different images among those taken."""
        return min(self.taken, self.available)

    @property
    def repeats(self) -> int:
        """Images taken again."""
        return self.taken - self.distinct

    @property
    def missing(self) -> int:
        """Images asked for beyond those that are there."""
        return max(0, self.asked - self.available)


@dataclass(frozen=True)
class Mixture:
    """What a study's mixture comes to with the images that are there."""

    asked: int
    parts: tuple[Part, ...]

    @property
    def total(self) -> int:
        """Images in the store, repeats included."""
        return sum(part.taken for part in self.parts)

    @property
    def repeats(self) -> int:
        """Images taken again, of all sources."""
        return sum(part.repeats for part in self.parts)

    @property
    def counts(self) -> dict[str, int]:
        """Images taken of each source, in the study's order."""
        return {part.source: part.taken for part in self.parts}

    def summary(self) -> str:
        """Say in one line what was asked for and what it came to."""
        line = f"{self.total:,} images"
        if self.total != self.asked:
            line += f", rescaled from {self.asked:,}"
        if self.repeats:
            named = ", ".join(f"{p.repeats:,} of {p.source}" for p in self.parts if p.repeats)
            line += f", {self.repeats:,} of them repeats ({named})"
        return line


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
    """Return the most images that keep the proportions without a repeat.

    That is where no source's exact part, total x share, is more than it has.
    """
    # The shares as they are written: 0.135 is 135/1000, not the nearest binary number.
    shares = {source.name: Fraction(str(source.share)) for source in sources}
    whole = sum(shares.values())
    return int(min(available[name] * whole / share for name, share in shares.items()))


def settle(
    total: int, sources: Sequence[Source], available: Mapping[str, int], shortfall: str = "error"
) -> Mixture:
    """Return how many images each source gives.

    `shortfall` is the study's word on sources that have too few: "error", "rescale" to the largest
    total in these proportions, or "repeat" their images.
    Raises: StudyError with asked against available and the two ways out, where it is "error"; also
    when a source has no image at all, which no way out helps.
    """
    asked = _allotted(total, sources)
    short = [name for name, count in asked.items() if count > available[name]]
    taken = asked
    if short:
        most = largest_total(sources, available)
        if shortfall == "error" or most == 0:
            raise StudyError(_why_not(total, asked, available, most))
        if shortfall == "rescale":
            taken = _allotted(most, sources)
    return Mixture(
        asked=total,
        parts=tuple(Part(n, asked[n], int(available[n]), taken[n]) for n in asked),
    )


def require_feasible(
    total: int, sources: Sequence[Source], available: Mapping[str, int]
) -> dict[str, int]:
    """Return how many images each source gives, without repeats and without rescaling.

    Raises: StudyError naming what is short and the largest total in these proportions.
    """
    return settle(total, sources, available).counts


def feasibility_frame(
    total: int, sources: Sequence[Source], available: Mapping[str, int | None]
) -> pd.DataFrame:
    """Return a row a source: share, asked, available and missing (NA where it is not found)."""
    asked = _allotted(total, sources)
    return pd.DataFrame(
        {
            "source": list(asked),
            "share": [source.share for source in sources],
            "asked": list(asked.values()),
            "available": pd.array([available[n] for n in asked], dtype="Int64"),
            "missing": pd.array(
                [None if (h := available[n]) is None else max(0, a - h) for n, a in asked.items()],
                dtype="Int64",
            ),
        }
    )


def _allotted(total: int, sources: Sequence[Source]) -> dict[str, int]:
    counts = allot(total, [source.share for source in sources])
    return {source.name: int(count) for source, count in zip(sources, counts, strict=True)}


def _why_not(total: int, asked: Mapping[str, int], available: Mapping[str, int], most: int) -> str:
    short = [n for n in asked if asked[n] > available[n]]
    parts = "; ".join(f"{n} asked {asked[n]:,}, has {available[n]:,}" for n in short)
    enough = "; ".join(
        f"{n} asked {asked[n]:,}, has {available[n]:,}" for n in asked if n not in short
    )
    repeats = sum(asked[n] - available[n] for n in short)
    line = f"data.total: {total:,} images cannot be had in these proportions: {parts}; "
    line += f"at most {most:,} can"
    if most:
        line += (
            "; set `shortfall: rescale` for that many, "
            f"or `shortfall: repeat` for {repeats:,} repeated images"
        )
    return line + (f" (enough: {enough})" if enough else "")
