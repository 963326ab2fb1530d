"""Fits as tables."""

from collections.abc import Sequence

import pandas as pd

from mae_lib.scaling.fit import Fit


def residual(fit: Fit) -> dict[str, float]:
    """Return the root mean squared residual under a name that says its scale."""
    if fit.objective in ("log", "huber"):
        return {"RMSE (log)": fit.rmse}
    if fit.table.kind == "loss":
        return {"RMSE": fit.rmse}
    return {"RMSE (points)": 100 * fit.rmse}


def laws_frame(fits: Sequence[Fit]) -> pd.DataFrame:
    """Return a row a law: formula, parameters, residual in points, criteria."""
    return pd.DataFrame(
        [
            {
                "law": fit.law.name,
                "formula": fit.law.formula,
                "k": fit.k,
                **residual(fit),
                "AICc": fit.aicc,
                "starts agreeing": f"{fit.starts['agreeing']} of {fit.starts['tried']}",
                "failed refits": f"{fit.bootstrap['failed']} of {fit.bootstrap['refits']}",
            }
            for fit in fits
        ]
    )


def parameters_frame(fits: Sequence[Fit]) -> pd.DataFrame:
    """Return a row a law and parameter: value and interval."""
    rows = []
    for fit in fits:
        about = fit.to_json()
        for name, value in about["params"].items():
            low, high = about["intervals"][name]
            rows.append(
                {"law": fit.law.name, "parameter": name, "value": value, "low": low, "high": high}
            )
    return pd.DataFrame(rows)


def fitted_frame(fits: Sequence[Fit]) -> pd.DataFrame:
    """Return a row a law and cell: measured and fitted response."""
    parts = []
    for fit in fits:
        factors = fit.table.frame[list(fit.table.factors)]
        cell = factors.astype(str).agg(", ".join, axis=1)
        parts.append(
            pd.DataFrame(
                {"law": fit.law.name, "cell": cell, "measured": fit.table.y, "fitted": fit.fitted()}
            )
        )
    return pd.concat(parts, ignore_index=True)


def identifiability_frame(fits: Sequence[Fit]) -> pd.DataFrame:
    """Return a row a law: rank, condition, factors with two levels only, and what is aliased."""
    return pd.DataFrame(
        [
            {
                "law": fit.law.name,
                "rank": f"{fit.identifiability['rank']} of {fit.identifiability['parameters']}",
                "condition": fit.identifiability["condition"],
                "two levels only": ", ".join(fit.identifiability["too_few_levels"]) or "none",
                "aliased": "; ".join(fit.identifiability["null_directions"]) or "none",
                "note": fit.identifiability["note"],
            }
            for fit in fits
        ]
    )
