"""What it takes: the value of one factor at which a law reaches a target, others held fixed."""

from collections.abc import Mapping, Sequence

import numpy as np

from mae_lib.errors import FitError
from mae_lib.scaling.fit import Fit
from mae_lib.scaling.predict import CALIBRATED_RHO, distances, point_of
from mae_lib.scaling.table import Table

# Searched beyond the data's upper end, in natural logs: a factor of 1e100.
SEARCHED = 100 * np.log(10.0)
STEPS = 4000
BISECTIONS = 80


def require(
    table: Table,
    fits: Sequence[Fit],
    target: float,
    solve: str,
    at: Mapping[str, float | int],
    *,
    level: float = 0.95,
) -> dict:
    """Return by law the least value of `solve` that reaches a target given in the table's unit.

    An accuracy is reached from below, an error or loss from above. `value` is None with `answer`
    "never" where the law stays short of the target as the factor grows by 1e100.
    `low`, `high` are quantiles over bootstrap refits; `never_share` is the share that never reach.
    Raises: FitError for an unknown factor, or a target outside what the response can be.
    """
    if solve not in table.factors:
        raise FitError(f"solve: {solve}: is no factor; the table has {', '.join(table.factors)}")
    if table.kind != "loss" and not 0 < target < table.scale:
        raise FitError(f"target: must lie between 0 and {table.scale:g}, got {target!r}")
    if table.kind == "loss" and not target > 0:
        raise FitError(f"target: must be a loss above 0, got {target!r}")
    others = {name: value for name, value in at.items() if name != solve}
    base = point_of(table, others | {solve: 1.0})
    answers = [_one(fit, base, target / table.scale, solve, level) for fit in fits]
    return {"format": 1, "target": target, "solve": solve, "at": others, "laws": answers}


def _one(fit: Fit, base: np.ndarray, target: float, solve: str, level: float) -> dict:
    table = fit.table
    answer = {"law": fit.law.name, "value": None, "answer": "never", "low": None, "high": None,
              "never_share": None, "rho": None, "rho_max": None, "calibrated": False}  # fmt: skip
    if solve not in fit.factors:
        return answer | {"answer": f"never: the law has no {solve}"}
    column = table.factors.index(solve)
    logs = table.logs[:, column]
    grid = np.linspace(logs.min() - np.ptp(logs), logs.max() + SEARCHED, STEPS)
    x = np.tile(base, (STEPS, 1))
    x[:, column] = np.exp(grid)
    up = 1.0 if table.kind == "accuracy" else -1.0
    short = up * (fit.predict(x) - target)
    place = int(_first_reach(short[None])[0])
    if place < 0:
        return answer | {"answer": _never(fit, float(up * short[-1] + target))}
    if place == 0:
        least = f"reached already at {np.exp(grid[0]):.4g}, the lowest value searched"
        return answer | {"answer": least}
    found = float(np.exp(_bisect(fit, base, column, grid, place, target, up)))
    rho = distances(fit, dict(zip(table.factors, _with(base, column, found), strict=True)))
    answer |= {
        "value": found, "answer": f"{found:.4g}", "rho": rho, "rho_max": max(rho.values()),
        "calibrated": max(rho.values()) <= CALIBRATED_RHO,
    }  # fmt: skip
    return answer | _from_draws(fit, x, grid, target, up, level)


def _never(fit: Fit, end: float) -> str:
    """Say why a target is never reached: what the law approaches, and its ceiling on accuracies."""
    if not np.isfinite(end):
        return "never: the law has no value there"
    why = f" ({fit.law.ceiling})" if fit.law.ceiling and fit.table.kind == "accuracy" else ""
    return f"never{why}; approaches {fit.table.scale * end:.4g}"


def _from_draws(
    fit: Fit, x: np.ndarray, grid: np.ndarray, target: float, up: float, level: float
) -> dict:
    """Return quantiles of the answer over bootstrap refits; a refit that never reaches is infinite."""
    if not len(fit.draws):
        return {}
    coarse = slice(None, None, 8)
    place = _first_reach(up * (fit.draws_at(x[coarse]) - target))
    reached = np.where(place < 0, np.inf, grid[coarse][np.maximum(place, 0)])
    low, high = np.quantile(reached, [(1 - level) / 2, (1 + level) / 2], method="nearest")
    return {
        "low": float(np.exp(low)) if np.isfinite(low) else None,
        "high": float(np.exp(high)) if np.isfinite(high) else None,
        "never_share": float((place < 0).mean()),
    }


def _first_reach(short: np.ndarray) -> np.ndarray:
    """Return by row the first place where the target is reached, -1 where it is not, `[B]`."""
    with np.errstate(invalid="ignore"):
        reached = short >= 0
    return np.where(reached.any(-1), reached.argmax(-1), -1)


def _bisect(
    fit: Fit,
    base: np.ndarray,
    column: int,
    grid: np.ndarray,
    place: int,
    target: float,
    up: float,
) -> float:
    """Narrow the first crossing down; a target reached at the grid's start is reported there."""
    if place == 0:
        return float(grid[0])
    low, high = float(grid[place - 1]), float(grid[place])
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        value = fit.predict(_with(base, column, np.exp(middle))[None])[0]
        low, high = (low, middle) if up * (value - target) >= 0 else (middle, high)
    return high


def _with(base: np.ndarray, column: int, value: float) -> np.ndarray:
    point = base.copy()
    point[column] = value
    return point
