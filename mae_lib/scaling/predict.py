"""What laws say at a point, and how far that point lies beyond the data."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mae_lib.errors import FitError
from mae_lib.scaling.fit import Fit

# Beyond one range of the data, in logs, no interval has been calibrated on real runs.
CALIBRATED_RHO = 1.0


def distances(fit: Fit, at: Mapping[str, float | int]) -> dict[str, float]:
    """Return rho by factor: distance beyond the data over the data's range, both in logs."""
    found = {}
    for column, factor in enumerate(fit.table.factors):
        logs, point = fit.table.logs[:, column], np.log(at[factor])
        beyond = max(point - logs.max(), logs.min() - point, 0.0)
        found[factor] = float(beyond / np.ptp(logs))
    return found


def predict_law(fit: Fit, at: Mapping[str, float | int], *, level: float = 0.95) -> dict:
    """Return one law's value at a point, its bootstrap interval, rho and leverage.

    The interval is of the law's mean, and assumes that the law is true.
    Raises: FitError when a factor is missing or not above 0.
    """
    for factor in fit.table.factors:
        if not at.get(factor, 0) > 0:
            raise FitError(f"at: {factor}: must be a number above 0, got {at.get(factor)!r}")
    z = np.array([[np.log(at[factor]) for factor in fit.factors]]) - fit.centre
    value, gradient = (part[0] for part in fit.law.evaluate(fit.params, z))
    draws = fit.law.evaluate(fit.draws, z)[0][:, 0] if len(fit.draws) else np.array([])
    low, high = (
        np.quantile(draws, [(1 - level) / 2, (1 + level) / 2]) if len(draws) else (None, None)
    )
    design = fit.law.evaluate(fit.params, _rows(fit))[1]
    leverage = float(gradient @ np.linalg.pinv(design.T @ design) @ gradient)
    rho = distances(fit, at)
    return {
        "law": fit.law.name,
        "value": float(value),
        "low": None if low is None else float(low),
        "high": None if high is None else float(high),
        "rho": rho,
        "leverage": leverage,
        "calibrated": max(rho.values()) <= CALIBRATED_RHO,
        "inside_unit_interval": bool(0 <= value <= 1),
    }


def predictions_frame(
    fits: Sequence[Fit], targets: Mapping[str, Mapping[str, float | int]], *, level: float = 0.95
) -> pd.DataFrame:
    """Return every law's answer at every target, one row each."""
    rows = []
    for target, at in targets.items():
        for fit in fits:
            found = predict_law(fit, at, level=level)
            rho = found.pop("rho")
            rows.append(
                {"target": target}
                | found
                | {f"rho_{factor}": value for factor, value in rho.items()}
                | {"rho_max": max(rho.values())}
            )
    return pd.DataFrame(rows)


def _rows(fit: Fit) -> np.ndarray:
    columns = [fit.table.factors.index(factor) for factor in fit.factors]
    return fit.table.logs[:, columns] - fit.centre
