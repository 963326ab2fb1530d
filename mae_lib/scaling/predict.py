"""What laws say at a point, alone and stacked, and how far that point lies beyond the data."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from mae_lib.errors import FitError
from mae_lib.scaling.fit import Fit, fit_law
from mae_lib.scaling.frontier import beyond, direction, position
from mae_lib.scaling.laws import usable_laws
from mae_lib.scaling.stack import SCHEME, Stacked, quantile_at, stack_at
from mae_lib.scaling.table import Table

# Beyond one range of the data, in logs, no interval has been calibrated on real runs.
CALIBRATED_RHO = 1.0
OUTSIDE = "outside the calibrated range"


def predict(
    table: Table,
    at: Mapping[str, float | int],
    *,
    fits: Sequence[Fit] | None = None,
    level: float = 0.95,
    uncalibrated: bool = False,
    stack: Sequence[str] | None = None,
) -> dict:
    """Ask every law about a point, and the stack of laws; answers in the table's own unit.

    Without `fits`, every law that the table can carry is fitted. `stack` names the laws to average.
    Beyond one range of the data the stack gives the spread between laws and no interval, unless
    `uncalibrated` asks for it.
    Raises: FitError for a factor that is missing or not above 0, or a level outside 0 to 1.
    """
    _check_level(level)
    point = point_of(table, at)
    unfitted: list[str] = []
    if fits is None:
        fits, unfitted = _fit_usable(table)
    answers = [_in_unit(predict_law(fit, at, level=level), table) for fit in fits]
    # The mean of a cell that was not run has no value: such a law has nothing to say here.
    silent = [a["law"] for a in answers if not np.isfinite(a["value"])]
    answers = [a for a in answers if a["law"] not in silent]
    stacked = stacked_answer(
        table, point, answers, level=level, uncalibrated=uncalibrated, stack=stack
    )
    stacked["aicc_weights"] = aicc_weights(fits)
    return {
        "format": 1,
        "at": {factor: float(at[factor]) for factor in table.factors},
        "response": table.response,
        "kind": table.kind,
        "unit": _unit(table),
        "level": level,
        "laws": answers,
        "stacked": stacked,
        "left_out": [*(f"{name}: has no value at this point" for name in silent), *unfitted],
    }


def predict_law(fit: Fit, at: Mapping[str, float | int], *, level: float = 0.95) -> dict:
    """Return one law's value at a point (a fraction, or a loss), its interval, rho and leverage.

    The interval is of the law's mean, from its bootstrap, and assumes that the law is true.
    Raises: FitError when a factor is missing or not above 0.
    """
    x = point_of(fit.table, at)[None]
    value = float(fit.predict(x)[0])
    gradient = _on_scale(fit, value, fit.gradient(x)[0])
    draws = fit.draws_at(x)[:, 0]
    draws = draws[np.isfinite(draws)]
    low, high = (
        np.quantile(draws, [(1 - level) / 2, (1 + level) / 2]) if len(draws) else (None, None)
    )
    design = fit.design
    information = np.linalg.pinv(design.T @ design, rcond=1e-15)
    rho = distances(fit, at)
    with np.errstate(all="ignore"):
        leverage = float(gradient @ information @ gradient)
    return {
        "law": fit.law.name,
        "value": value,
        "low": None if low is None else float(low),
        "high": None if high is None else float(high),
        "rho": rho,
        "leverage": leverage if np.isfinite(leverage) else None,
        "calibrated": max(rho.values()) <= CALIBRATED_RHO,
        "inside_unit_interval": bool(0 <= value <= 1),
    }


def stacked_answer(
    table: Table,
    point: np.ndarray,
    answers: Sequence[dict] = (),
    *,
    level: float = 0.95,
    uncalibrated: bool = False,
    stack: Sequence[str] | None = None,
) -> dict:
    """Return the stacked prediction at raw factor values `[m]`, in the table's own unit.

    `parts` are half-widths that add in quadrature, on the upper side of the error or loss.
    `answers` of single laws, in the same unit, widen the spread that is given outside the range.
    """
    rho = dict(zip(table.factors, beyond(table, point)[0].tolist(), strict=True))
    about = {
        "value": None, "low": None, "high": None, "level": level, "parts": None, "weights": {},
        "rho": rho, "rho_max": max(rho.values()),
        "calibrated": max(rho.values()) <= CALIBRATED_RHO, "dropped": [], "notes": [],
        "spread": None,
    }  # fmt: skip
    try:
        found = stack_at(
            table,
            point,
            position(table, direction(table, point)),
            scheme=SCHEME if stack is None else replace(SCHEME, laws=tuple(stack)),
        )
    except FitError as error:
        about["notes"].append(str(error))
        return about
    outside = {a["law"] for a in answers if table.kind != "loss" and not a["inside_unit_interval"]}
    about["dropped"] = sorted(outside | set(found.dropped[0]))
    about["spread"] = _spread(table, found, answers)
    if np.isfinite(found.centre[0]):
        about["weights"] = found.by_law(0)
        about["value"] = float(response_of(table, found.centre)[0])
    if not about["calibrated"]:
        about["notes"].append(
            f"{OUTSIDE}: {max(rho.values()):.2f} ranges beyond the data in "
            f"{max(rho, key=rho.get)}; no interval has been tested there"
        )
    if about["value"] is not None and (about["calibrated"] or uncalibrated):
        _add_interval(about, table, found, level)
    return about


def distances(fit: Fit, at: Mapping[str, float | int]) -> dict[str, float]:
    """Return rho by factor: distance beyond the data over the data's range, both in logs."""
    rho = beyond(fit.table, point_of(fit.table, at))[0]
    return dict(zip(fit.table.factors, rho.tolist(), strict=True))


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
    # Without a target: the columns alone, so that the table can be written and read again.
    return pd.DataFrame(rows, columns=None if rows else ["target", "law"])


def point_of(table: Table, at: Mapping[str, float | int]) -> np.ndarray:
    """Return a point's raw factor values `[m]` in the table's order.

    Raises: FitError when a factor is missing, unknown to the table, or not above 0.
    """
    for factor in table.factors:
        value = at.get(factor, 0)
        if not (value > 0 and np.isfinite(value)):
            raise FitError(
                f"at: {factor}: must be a number above 0, got {at.get(factor, 'nothing')}"
            )
    if unknown := [name for name in at if name not in table.factors]:
        raise FitError(
            f"at: {unknown[0]}: is no factor of the table; it has {', '.join(table.factors)}"
        )
    return np.array([at[factor] for factor in table.factors], np.float64)


def response_of(table: Table, log_loss: np.ndarray) -> np.ndarray:
    """Turn ln of the error or loss `[...]` into the table's response, in its own unit."""
    loss = np.exp(log_loss)
    return table.scale * (1 - loss if table.kind == "accuracy" else loss)


def aicc_weights(fits: Sequence[Fit]) -> dict[str, float]:
    """Return Akaike weights of fits on one scale: how well they fit, not how far they reach.

    Fits that minimised different objectives cannot be compared, so there are none then.
    """
    known = [fit for fit in fits if fit.aicc is not None]
    if not known or len({fit.objective for fit in fits}) > 1:
        return {}
    scores = np.array([fit.aicc for fit in known])
    weights = np.exp(-(scores - scores.min()) / 2)
    return dict(zip((f.law.name for f in known), (weights / weights.sum()).tolist(), strict=True))


def _fit_usable(table: Table) -> tuple[list[Fit], list[str]]:
    """Fit every law that the table can carry; one that does not converge is said, and no stop."""
    fits, unfitted = [], []
    for name in usable_laws(table)[0]:
        try:
            fits.append(fit_law(table, name))
        except FitError as error:
            unfitted.append(str(error))
    return fits, unfitted


def _add_interval(about: dict, table: Table, found: Stacked, level: float) -> None:
    reach, note = quantile_at(table, level)
    if note:
        about["notes"].append(note)
    centre, deviation = found.centre[0], found.deviation[0]
    ends = response_of(table, centre + reach * deviation * np.array([-1.0, 1.0]))
    low, high = (float(end) for end in np.sort(ends))
    if table.kind != "loss":
        low, high = max(low, 0.0), min(high, table.scale)
    about["low"], about["high"] = low, high
    # The three parts share the half-width by their variances, so that they add in quadrature.
    half = reach * float(np.exp(centre)) * table.scale
    about["parts"] = {
        "within_law": half * float(np.sqrt(found.within[0])),
        "between_laws": half * float(np.sqrt(found.between[0])),
        "held_out": half * float(np.sqrt(found.held_out[0])),
    }


def _spread(table: Table, found: Stacked, answers: Sequence[dict]) -> list[float] | None:
    """Return the least and largest answer of the laws that stay possible."""
    values = [a["value"] for a in answers if table.kind == "loss" or a["inside_unit_interval"]]
    members = response_of(table, found.values[:, 0])
    values = np.array([*values, *members[np.isfinite(members)]])
    return [float(values.min()), float(values.max())] if len(values) else None


def _on_scale(fit: Fit, value: float, gradient: np.ndarray) -> np.ndarray:
    """Bring a gradient of the response to the scale of the fit's design: its logs where it has them."""
    if fit.objective not in ("log", "huber"):
        return gradient
    return gradient / (1 - value if getattr(fit, "flips", False) else value)


def _in_unit(answer: dict, table: Table) -> dict:
    scaled = {
        key: None if answer[key] is None else table.scale * answer[key]
        for key in ("value", "low", "high")
    }
    inside = table.kind == "loss" or answer["inside_unit_interval"]
    return answer | scaled | {
        "rho_max": max(answer["rho"].values()), "inside_unit_interval": inside
    }  # fmt: skip


def _unit(table: Table) -> str:
    if table.kind == "loss":
        return "as in the table"
    return "percent" if table.scale == 100 else "fraction"


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise FitError(f"level: must lie between 0 and 1, got {level!r}")
