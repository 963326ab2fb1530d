"""Where a question lies from the runs: its direction, the runs nearest to it, and what to hold out.

A question is a point beyond the data. Runs are placed along its direction; the furthest of them form
the frontier, the part of the data that is most like the question. Held out, it tells how far a law
errs there; weighted up, it tells a wrong law which part of the data to be right about.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mae_lib.scaling.table import Table

# Shares of the runs that are held out in turn, from the top along the question's direction.
SHARES = (0.4, 0.25, 0.1)
# Two positions closer than this, in logs, are one level.
SAME = 1e-9


@dataclass(frozen=True)
class Nested:
    """One split inside the runs: train on `train`, measure the error on `test`, both `[n]` bool."""

    train: np.ndarray
    test: np.ndarray


def ranges(logs: np.ndarray) -> np.ndarray:
    """Return each factor's range in logs `[m]`, never 0."""
    return np.maximum(np.ptp(logs, axis=0), SAME)


def beyond(table: Table, x: np.ndarray) -> np.ndarray:
    """Return rho by point and factor `[p, m]`: distance beyond the data over their range, in logs."""
    logs, points = table.logs, np.log(np.atleast_2d(np.asarray(x, np.float64)))
    outside = np.maximum(points - logs.max(0), logs.min(0) - points)
    return np.maximum(outside, 0.0) / ranges(logs)


def direction(table: Table, x: np.ndarray) -> np.ndarray:
    """Return the unit direction `[m]` of one point `[m]`, in ranges of the factors.

    Only the factors in which the point leaves the data count; inside the data, its displacement
    from the middle of the runs.
    """
    logs, point = table.logs, np.log(np.asarray(x, np.float64))
    away = np.where(point > logs.max(0), point - logs.max(0), 0.0)
    away = np.where(point < logs.min(0), point - logs.min(0), away)
    if not away.any():
        away = point - logs.mean(0)
    away = away / ranges(logs)
    length = np.linalg.norm(away)
    return away / length if length > 0 else np.full(len(away), len(away) ** -0.5)


def position(table: Table, towards: np.ndarray) -> np.ndarray:
    """Return where every run lies along a direction `[m]`, `[n]`; larger is nearer the question."""
    return (table.logs / ranges(table.logs)) @ towards


def top_rows(along: np.ndarray, rows: np.ndarray, share: float) -> np.ndarray:
    """Return the top share of `rows` along a direction, `[n]` bool; ties with the cut stay in."""
    placed = along[rows]
    cut = np.quantile(placed, 1 - share)
    top = rows & (along > cut + SAME)
    return top if top.any() else rows & (along >= placed.max() - SAME)


def nested_splits(
    table: Table,
    along: np.ndarray,
    *,
    least: int = 2,
    shares: Sequence[float] = SHARES,
) -> list[Nested]:
    """Return splits of the runs by the top shares along a direction, each test set once.

    A split needs `least` runs to train on, among which every factor varies. Where no split along
    the direction has that, the factors' own directions are taken.
    """
    found = _splits(table, [along], least, shares)
    return found or _splits(table, list(table.logs.T), least, shares)


def nearness(along: np.ndarray, rows: np.ndarray, steepness: float) -> np.ndarray:
    """Return weights `[n]` that fall by exp(-steepness) over the range of `rows`, 1 at its frontier."""
    placed = along[rows]
    # Runs outside `rows` may lie far ahead of them, where the exponential would overflow.
    behind = np.maximum(placed.max() - along, 0.0) / max(np.ptp(placed), SAME)
    return np.where(rows, np.exp(-steepness * behind), 0.0)


def _splits(
    table: Table, directions: list[np.ndarray], least: int, shares: Sequence[float]
) -> list[Nested]:
    rows, logs = np.ones(len(table.frame), bool), table.logs
    found: dict[bytes, Nested] = {}
    for along in directions:
        for share in shares:
            test = top_rows(along, rows, share)
            train = ~test
            if train.sum() >= least and (np.ptp(logs[train], axis=0) > SAME).all():
                found.setdefault(test.tobytes(), Nested(train, test))
    return list(found.values())
