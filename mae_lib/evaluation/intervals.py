"""Intervals of shares, and distances between them in standard errors. No torch."""

import math
from statistics import NormalDist


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the Wilson interval of a share. Source: Wilson 1927, JASA 22."""
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def standard_errors_apart(share: float, other: float, n: int) -> float:
    """Return (share - other) over the standard error of the difference of two shares of n each."""
    variance = (share * (1 - share) + other * (1 - other)) / n
    if variance == 0:
        return 0.0 if share == other else math.copysign(math.inf, share - other)
    return (share - other) / math.sqrt(variance)
