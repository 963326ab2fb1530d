"""What a reader of a fit should know of its table, in words; none of it stops the fit."""

import re
from collections.abc import Iterator
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mae_lib.scaling.levels import level_names

if TYPE_CHECKING:
    from mae_lib.scaling.table import Table

COLLINEAR = 0.95
_BEST = {"max", "best", "min", "peak"}
_FINAL = ("final", "last", "end")
_SETTINGS = {"epochs", "lr", "rate", "batch", "warmup", "wd", "decay", "optimizer", "schedule"}
_PROGRESS = {"step", "steps", "iter", "iters", "iterations", "epoch", "seen", "tokens", "samples"}
# So many points along one progress factor look like one curve rather than single runs.
_CURVE_POINTS = 5


def table_notes(table: "Table") -> list[str]:
    """Return the notes on a checked table, each one sentence."""
    return [
        *_constant(table),
        *_few_levels(table),
        *_collinear(table),
        *_repeats(table),
        *_best_epoch(table),
        *_settings(table),
        *_curves(table),
        *_clusters(table),
    ]


def _constant(table: "Table") -> Iterator[str]:
    if np.ptp(table.y) == 0:
        yield f"{table.response}: never varies, so there is nothing that a factor could explain"


def _few_levels(table: "Table") -> Iterator[str]:
    for j, factor in enumerate(table.factors):
        names = level_names(table.logs[:, j])
        if len(names) == 2:
            distinct = len(np.unique(table.x[:, j]))
            close = f", {distinct} values of which the close ones count as one" * (distinct > 2)
            yield (
                f"{factor}: two levels ({names[0]} and {names[1]}{close}) give a slope and no "
                "shape: no law can be told from another along it"
            )


def _collinear(table: "Table") -> Iterator[str]:
    correlation = np.corrcoef(table.logs, rowvar=False).reshape(len(table.factors), -1)
    for (i, a), (j, b) in combinations(enumerate(table.factors), 2):
        if abs(correlation[i, j]) > COLLINEAR:
            yield (
                f"{a} and {b} vary together (correlation of logs {correlation[i, j]:.3f}): "
                "their effects cannot be told apart"
            )


def _repeats(table: "Table") -> Iterator[str]:
    codes = table.cell_codes
    if codes.max() + 1 == len(codes):
        yield (
            "one run a cell: there is no pure error, so lack of fit cannot be tested; "
            "repeat some cells with other seeds"
        )


def _best_epoch(table: "Table") -> Iterator[str]:
    words = table.response.split("_")
    if not (found := _BEST.intersection(words)):
        return
    others = ["_".join(end if w in found else w for w in words) for end in _FINAL]
    beside = [name for name in others if name in table.frame.columns]
    yield (
        f"{table.response}: the best of several epochs, chosen on the data that scores it, is "
        f"optimistic{f'; {beside[0]} stands beside it' if beside else ''}"
    )
    if {"epoch_best", "epochs"} <= set(table.frame.columns):
        yield from _cut_short(table)


def _cut_short(table: "Table") -> Iterator[str]:
    """Name the level at which nearly all runs lie that are best at their last epoch."""
    last = (table.frame.epoch_best >= table.frame.epochs).to_numpy()
    for j in _fewest_first(table):
        for value in np.unique(table.x[:, j]):
            rows = table.x[:, j] == value
            if last[rows].sum() >= max(2, 0.9 * last.sum()) and last[rows].mean() > 0.5:
                yield (
                    f"{table.factors[j]} {value:g}: {last[rows].sum()} of {rows.sum()} runs are "
                    "best at their last epoch, so training was cut short there"
                )
                return


def _settings(table: "Table") -> Iterator[str]:
    """Name each tuning setting that moves with a factor."""
    used = {*table.factors, table.response, table.clusters, table.trials}
    for column in table.frame.columns:
        words = set(re.split(r"[^a-z]+", str(column).lower()))
        values = table.frame[column]
        if column in used or not words & _SETTINGS or "best" in words or values.nunique() < 2:
            continue
        for j in _fewest_first(table):
            factor, levels = table.factors[j], table.x[:, j]
            groups = values.groupby(levels)
            if (groups.nunique(dropna=False) == 1).all():
                pairs = list(groups.first().items())
                shown = ", ".join(f"{_short(value)} at {level:.4g}" for level, value in pairs[:4])
                more = ", ..." if len(pairs) > 4 else ""
                yield (
                    f"{column} changes with {factor} ({shown}{more}): what {factor} does and what "
                    "the tuning does cannot be told apart"
                )
                break


def _fewest_first(table: "Table") -> list[int]:
    """Return the factors whose levels repeat, the one with the fewest levels first."""
    counts = [len(np.unique(column)) for column in table.x.T]
    return sorted(
        (j for j, c in enumerate(counts) if c <= len(table.x) / 2), key=counts.__getitem__
    )


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, (int, float, np.number)) else str(value)


def _curves(table: "Table") -> Iterator[str]:
    """Name a factor that counts progress and takes many values at the same other factors."""
    for j, factor in enumerate(table.factors):
        words = set(re.split(r"[^a-z]+", factor.lower()))
        if not words & _PROGRESS or table.clusters:
            continue
        others = np.delete(table.logs, j, axis=1).round(9)
        labels = [
            c for c in table.frame.columns
            if c not in (factor, table.response)
            and pd.api.types.is_string_dtype(table.frame[c])
            and 1 < table.frame[c].nunique() < len(table.frame)
        ]  # fmt: skip
        keys = pd.DataFrame(others).assign(**{f"label {c}": table.frame[c] for c in labels})
        keys = keys if keys.shape[1] else keys.assign(one=0)
        groups = pd.Series(table.logs[:, j]).groupby([keys[c] for c in keys.columns])
        sizes, distinct = groups.size(), groups.nunique()
        curves = (sizes >= _CURVE_POINTS) & (distinct == sizes)
        if sizes[curves].sum() > len(table.frame) / 2:
            yield (
                f"{factor}: {int(curves.sum())} sets of {int(sizes[curves].min())} to "
                f"{int(sizes[curves].max())} rows differ in it alone: if they are points of one "
                "training run, they are not independent runs; name the column of runs as clusters"
            )


def _clusters(table: "Table") -> Iterator[str]:
    codes = table.cluster_codes
    if codes is None:
        return
    count = int(codes.max()) + 1
    if count == len(codes):
        yield f"{table.clusters}: every cluster holds one run, so clusters are the same as runs"
    elif count < 8:
        yield (
            f"{table.clusters}: {count} clusters are fewer than 8: intervals take Student's t "
            f"with {count - 1} degrees of freedom"
        )
