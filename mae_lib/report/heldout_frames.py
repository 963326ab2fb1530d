"""Held-out extrapolation and the stacked prediction as tables and sentences."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mae_lib.errors import FitError
from mae_lib.scaling.fit import Fit
from mae_lib.scaling.holdout import hold_out
from mae_lib.scaling.predict import predict
from mae_lib.scaling.table import Table

PARTS = {"within_law": "within laws", "between_laws": "between laws", "held_out": "held-out error"}
LEVEL = "0.95"


def held_out(table: Table, fits: Sequence[Fit]) -> tuple[dict | None, str]:
    """Leave out the top cells; return what was found, or None and why no split is possible."""
    try:
        found = hold_out(table, fits)
    except FitError as error:
        return None, str(error)
    return found, "; ".join(found["skipped"])


def heldout_frame(found: Mapping | None) -> pd.DataFrame:
    """Return a row a split and method: distance, error, bias, and coverage of its 95 % interval.

    Errors are points for accuracies and the response's own unit for losses.
    """
    rows = []
    for split in found["splits"] if found else []:
        for law, scores in split["methods"].items():
            if scores is None:
                continue
            scale = _points(found)
            rows.append(
                {"law": law, "split": split["by"].replace(" (product of the factors)", "")}
                | {"runs": split["test"], "rho": split["rho_max"], "rmse": scale * scores["rmse"]}
                | {"bias": scale * scores["bias"], "coverage_95": scores["coverage"][LEVEL]}
            )
    columns = ["law", "split", "runs", "rho", "rmse", "bias", "coverage_95"]
    return pd.DataFrame(rows, columns=columns)


def heldout_wide(found: Mapping | None) -> pd.DataFrame:
    """Return a row a method and a column a split: the error there, with the mean coverage last."""
    frame = heldout_frame(found)
    if frame.empty:
        return pd.DataFrame()
    wide = frame.pivot(index="law", columns="split", values="rmse")
    wide = wide.loc[frame.law.drop_duplicates(), frame.split.drop_duplicates()]
    names = {s: f"{s} (rho {r:.2g})" for s, r in zip(frame.split, frame.rho, strict=True)}
    coverage = frame.groupby("law").coverage_95.mean()
    return wide.rename(columns=names).assign(coverage=coverage).reset_index()


def stacked_rows(
    table: Table, fits: Sequence[Fit], targets: Mapping[str, Mapping[str, float]]
) -> list[dict]:
    """Return the stacked answer at each target, with its name."""
    return [
        {"target": name} | predict(table, at, fits=fits)["stacked"] for name, at in targets.items()
    ]


def stacked_frame(table: Table, rows: Sequence[Mapping]) -> pd.DataFrame:
    """Return a row a target: value, interval and its three parts in points, or the spread alone."""
    to = 1.0 if table.kind == "loss" else 100.0 / table.scale
    found = []
    for row in rows:
        parts = row["parts"] or dict.fromkeys(PARTS)
        spread = row["spread"] or (None, None)
        shown = row["calibrated"]
        found.append(
            {"target": row["target"], "rho": row["rho_max"]}
            | {"value": _times(row["value"] if shown else None, to)}
            | {key: _times(row[key], to) for key in ("low", "high")}
            | {name: _times(parts[key], to) for key, name in PARTS.items()}
            | {"laws from": _times(spread[0], to), "laws to": _times(spread[1], to)}
            | {
                "weights": ", ".join(
                    f"{law} {w:.2g}" for law, w in row["weights"].items() if w > 0.005
                )
            }
        )
    return pd.DataFrame(found)


def parts_frame(table: Table, rows: Sequence[Mapping]) -> pd.DataFrame:
    """Return a row a target and part of its interval: half-width in points."""
    to = 1.0 if table.kind == "loss" else 100.0 / table.scale
    return pd.DataFrame(
        [
            {"target": row["target"], "part": name, "half_width": to * row["parts"][key]}
            for row in rows
            if row["parts"]
            for key, name in PARTS.items()
        ],
        columns=["target", "part", "half_width"],
    )


def heldout_sentence(found: Mapping | None, why: str) -> str:
    """Say which method errs least beyond its training cells, and how far its interval can be trusted."""
    if not found:
        return f"- Not measured: {why}."
    frame = heldout_frame(found)
    mean = frame.groupby("law").rmse.apply(lambda v: float(np.sqrt((v**2).mean())))
    coverage = frame.groupby("law").coverage_95.mean()
    best, worst = mean.idxmin(), mean.idxmax()
    unit = "" if found["unit"] == "as in the table" else " points"
    text = (
        f"- Measured on {frame.split.nunique()} held-out splits: {best} errs least "
        f"({mean[best]:.3g}{unit}), {worst} most ({mean[worst]:.3g}{unit}); 95 % intervals of single "
        f"laws hold {100 * coverage.drop('stacked', errors='ignore').mean():.0f} % of the runs left out"
    )
    return text + (
        f", the stack's {100 * coverage['stacked']:.0f} %." if "stacked" in coverage else "."
    )


def stacked_sentence(table: Table, row: Mapping) -> str:
    """Say what the stack of laws answers at a target, or that it gives no number there."""
    to, unit = (1.0, "") if table.kind == "loss" else (100.0 / table.scale, " %")
    if row["value"] is None:
        return f"- Not predicted at {row['target']}: {'; '.join(row['notes'])}."
    if not row["calibrated"]:
        low, high = row["spread"]
        return (
            f"- Predicted at {row['target']}: no number; {row['rho_max']:.2g} ranges outside the data "
            f"the possible laws spread from {to * low:.3g} to {to * high:.3g}{unit}."
        )
    largest = max(row["parts"], key=row["parts"].get)
    return (
        f"- Predicted at {row['target']}: {to * row['value']:.3g}{unit} "
        f"[{to * row['low']:.3g}, {to * row['high']:.3g}] by the stack, {row['rho_max']:.2g} ranges "
        f"outside the data; the largest part of the interval is {PARTS[largest]}."
    )


def _points(found: Mapping) -> float:
    return {"fraction": 100.0}.get(found["unit"], 1.0)


def _times(value: float | None, to: float) -> float | None:
    return None if value is None else to * value
