"""What the one public grid of this kind says of the claim, law by law (arXiv 2308.03712, 78 runs)."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mae_lib.scaling.fit import Fit, fit_laws
from mae_lib.scaling.predict import CALIBRATED_RHO, distances, predict
from mae_lib.scaling.require import require
from mae_lib.scaling.table import Table, check_table

FACTORS = ("hours", "n_params", "res")
# Chosen before looking at their answers: every form of the literature that three levels allow.
LAWS = (
    "log_product",
    "log_additive",
    "log_bilinear",
    "logit_additive",
    "logit_bilinear",
    "logit_ceiling",
    "power_product",
    "power_sum",
)
TARGETS = {
    "own": {"hours": 20_000.0, "n_params": 2.5e9, "res": 952.0},
    "claim": {"hours": 5_000.0, "n_params": 522e9, "res": 4096.0},
}
# The paper's check on the way: from 100 to 200 billion parameters at 4096 pixels.
INTERMEDIATE = (100e9, 200e9)
# A law that has not reached a level here never does in any sense that matters.
LARGEST_N = 1e24


def grid_table(frame: pd.DataFrame, response: str = "acc1_max") -> Table:
    """Return the public grid as a table whose runs are resampled by shared subset."""
    return check_table(
        frame,
        response=response,
        factors=FACTORS,
        clusters="subset",
        cells=("arch", "res", "data_frac"),
        kind="accuracy",
        name="orhan2023",
    )


def evidence(frame: pd.DataFrame, *, bootstrap: int = 2000, seed: int = 0) -> dict:
    """Fit every law to the grid and ask each the claim's questions.

    Returns `laws` (fit by law), `answers` (by target and law), `stacked` (by target), `needed`
    (parameters for 90 % by law), `intermediate`, `top5`.
    """
    table = grid_table(frame)
    fits = fit_laws(table, LAWS, bootstrap=bootstrap, seed=seed)
    top5 = fit_laws(grid_table(frame, "acc5_max"), LAWS, bootstrap=20, seed=seed)
    return {
        "laws": [_fit_row(fit) for fit in fits],
        "answers": answers(fits, TARGETS),
        "stacked": [
            {"target": name} | predict(table, at, fits=fits)["stacked"]
            for name, at in TARGETS.items()
        ],
        "needed": needed(table, fits),
        "intermediate": intermediate(fits),
        "top5": [
            {"law": fit.law.name, "target": name, "value": value_at(fit, at)}
            for name, at in TARGETS.items()
            for fit in top5
        ],
    }


def value_at(fit: Fit, at: Mapping[str, float]) -> float:
    """Return what a law answers at a point."""
    return float(fit.predict(_point(fit, at))[0])


def answers(fits: Sequence[Fit], targets: Mapping[str, Mapping[str, float]]) -> list[dict]:
    """Return a row a target and law: value, bootstrap interval, distance."""
    rows = []
    for name, at in targets.items():
        for fit in fits:
            tails = (1 - fit.bootstrap["level"]) / 2
            low, high = np.quantile(fit.draws_at(_point(fit, at))[:, 0], [tails, 1 - tails])
            rho, value = distances(fit, at), value_at(fit, at)
            rows.append(
                {"target": name, "law": fit.law.name, "value": value}
                | {"low": float(low), "high": float(high), "rho": rho}
                | {"rho_max": max(rho.values()), "inside_unit_interval": bool(0 <= value <= 1)}
                | {"calibrated": max(rho.values()) <= CALIBRATED_RHO}
            )
    return rows


def needed(table: Table, fits: Sequence[Fit]) -> list[dict]:
    """Return the parameters that each law wants for 90 % at the claim's pixels and data.

    None where the law never gets there, or only beyond 1e24.
    """
    found = require(table, fits, 0.9 * table.scale, "n_params", TARGETS["claim"])
    rows = []
    for row in found["laws"]:
        reached = row["value"] is not None and row["value"] <= LARGEST_N
        rows.append({"law": row["law"], "n_params": row["value"] if reached else None})
    return rows


def intermediate(fits: Sequence[Fit]) -> dict:
    """Return what each law answers at both ends of the check on the way, at the claim's pixels."""
    first, second = INTERMEDIATE
    rows = []
    for fit in fits:
        values = [value_at(fit, TARGETS["claim"] | {"n_params": n}) for n in (first, second)]
        rows.append({"law": fit.law.name, "first": values[0], "second": values[1]})
    return {"first_n": first, "second_n": second, "by_law": rows}


def _point(fit: Fit, at: Mapping[str, float]) -> np.ndarray:
    return np.array([[float(at[f]) for f in fit.table.factors]])


def _fit_row(fit: Fit) -> dict:
    return {
        "law": fit.law.name,
        "k": fit.k,
        "sse_points": fit.sse * 1e4,
        "rmse_points": 100 * fit.rmse,
        "aicc": fit.aicc,
        "lack_of_fit_p": fit.lack_of_fit["p"] if fit.lack_of_fit else None,
    }
