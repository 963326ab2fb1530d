"""Fits as curves over a factor, as lines of equal accuracy, and the design that they stand on."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mae_lib.charts.frames import number
from mae_lib.scaling.fit import Fit
from mae_lib.scaling.levels import level_codes
from mae_lib.scaling.table import Table

STEPS = 40
# Lines of equal accuracy are followed on a grid of this many values a factor.
GRID = 61


def fan_frame(
    fits: Sequence[Fit],
    at: Mapping[str, float],
    factor: str,
    *,
    until: float,
    level: float = 0.95,
) -> pd.DataFrame:
    """Return each law's value and bootstrap interval along one factor, the others held at `at`.

    Columns: law, x, value, low, high, part ("inside" the data's range of the factor or "beyond").
    """
    table = fits[0].table
    column = table.factors.index(factor)
    low, high = table.x[:, column].min(), table.x[:, column].max()
    # the edge of the data stands in both parts, so that the two lines meet
    inside = np.exp(np.linspace(np.log(low), np.log(high), STEPS // 2))
    beyond = np.exp(np.linspace(np.log(high), np.log(until), STEPS // 2))
    x = np.concatenate([inside, beyond])
    points = np.tile([float(at[f]) for f in table.factors], (len(x), 1))
    points[:, column] = x
    parts = []
    for fit in fits:
        draws = fit.draws_at(points)
        tails = [(1 - level) / 2, (1 + level) / 2]
        interval = np.quantile(draws, tails, axis=0) if len(draws) else np.full((2, len(x)), np.nan)
        parts.append(
            pd.DataFrame(
                {
                    "law": fit.law.name,
                    "x": x,
                    "value": fit.predict(points),
                    "low": interval[0],
                    "high": interval[1],
                    "part": ["inside"] * len(inside) + ["beyond"] * len(beyond),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def measured_along(table: Table, at: Mapping[str, float], factor: str) -> pd.DataFrame:
    """Return the rows of a table whose other factors are on the level of `at`: x and value."""
    column = table.factors.index(factor)
    asked = np.log([float(at[f]) for f in table.factors])
    near = np.ones(len(table.frame), bool)
    for j in (j for j in range(len(table.factors)) if j != column):
        codes = level_codes(np.append(table.logs[:, j], asked[j]))
        near &= codes[:-1] == codes[-1]
    return pd.DataFrame({"x": table.x[near, column], "value": table.y[near]})


def isoquant_frame(
    fits: Sequence[Fit],
    at: Mapping[str, float],
    pair: tuple[str, str],
    levels: Sequence[float],
    *,
    until: tuple[float, float],
) -> pd.DataFrame:
    """Return where each law reaches each level: law, level, and the two factors of `pair`.

    For every value of the first factor the second is found by linear interpolation of the law
    on a fine grid in logs; where a law never reaches a level within `until`, no row is given.
    """
    table = fits[0].table
    columns = [table.factors.index(f) for f in pair]
    starts = table.x[:, columns].min(0)
    first, second = (
        np.exp(np.linspace(np.log(s), np.log(u), GRID)) for s, u in zip(starts, until, strict=True)
    )
    points = np.tile([float(at[f]) for f in table.factors], (first.size * second.size, 1))
    grid = np.array(list(itertools.product(first, second)))
    points[:, columns] = grid
    rows = []
    for fit in fits:
        values = fit.predict(points).reshape(first.size, second.size)
        for level in levels:
            for x, along in zip(first, values, strict=True):
                if (y := _crossing(along, np.log(second), level)) is not None:
                    rows.append(
                        {"law": fit.law.name, "level": level, "x": x, "y": float(np.exp(y))}
                    )
    return pd.DataFrame(rows, columns=["law", "level", "x", "y"])


def isoquants_of(
    fits: Sequence[Fit], pair: tuple[str, str], *, reach: float = 10.0
) -> tuple[pd.DataFrame, pd.DataFrame, tuple[float, float]]:
    """Return lines of equal response, the runs, and the point `reach` times the largest first factor.

    Levels are five tenths from the data's middle up, or five even steps of a loss down from it; the
    other factors stay at their largest value.
    """
    table = fits[0].table
    columns = [table.factors.index(f) for f in pair]
    top = dict(zip(table.factors, table.x.max(0).tolist(), strict=True))
    until = (100 * reach * top[pair[0]], 10 * top[pair[1]])
    middle = float(np.median(table.y))
    if table.kind == "accuracy":
        levels = np.round(np.linspace(round(middle, 1) + 0.1, 0.9, 5), 2)
    else:
        levels = np.round(np.linspace(middle, 0.8 * table.y.min(), 5), 3)
    lines = isoquant_frame(fits, top, pair, levels.tolist(), until=until)
    runs = pd.DataFrame(table.x[:, columns], columns=["x", "y"])
    return lines, runs, (reach * top[pair[0]], top[pair[1]])


def _crossing(values: np.ndarray, logs: np.ndarray, level: float) -> float | None:
    """Return the first place where `values` pass `level`, going up or down."""
    side = values >= level
    moves = np.flatnonzero(side[1:] != side[:-1])
    if not len(moves):
        return None
    i = moves[0]
    part = (level - values[i]) / (values[i + 1] - values[i])
    return float(logs[i] + part * (logs[i + 1] - logs[i]))


def design_frame(table: Table) -> pd.DataFrame:
    """Return a row a possible cell: every combination of levels, with how many runs it has."""
    numbers = {f: level_codes(table.logs[:, j]) for j, f in enumerate(table.factors)}
    frame = pd.DataFrame(numbers)
    names = {
        f: {n: float(np.exp(table.logs[frame[f] == n, j].mean())) for n in sorted(set(frame[f]))}
        for j, f in enumerate(table.factors)
    }
    counts = frame.value_counts().to_dict()
    rows = []
    for combination in itertools.product(*(names[f] for f in table.factors)):
        row = {f: number(names[f][n]) for f, n in zip(table.factors, combination, strict=True)}
        rows.append(row | {"runs": int(counts.get(combination, 0))})
    return pd.DataFrame(rows)
