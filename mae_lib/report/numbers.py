"""Numbers of the paper's own design, computed: what its two resolutions can say about 4096 pixels."""

import math


def ranges_beyond(low: float, high: float, target: float) -> float:
    """Return how many of the data's own ranges, in logs, the target lies beyond them."""
    return math.log(target / high) / math.log(high / low)


def standard_error_factor(low: float, high: float, target: float) -> float:
    """Return the standard error at the target over that of a mean of as many runs.

    For a straight line in the log of resolution and the best split of runs between two levels.
    Source: c-optimal design, Elfving 1952.
    """
    a, b, t = math.log(low), math.log(high), math.log(target)
    return ((t - a) + (t - b)) / (b - a)
