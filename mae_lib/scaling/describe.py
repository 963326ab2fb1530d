"""A fit in one object: parameters, what the design can know, and what the data cannot tell apart."""

from collections.abc import Mapping, Sequence

import numpy as np

from mae_lib.scaling.fit import Fit
from mae_lib.scaling.identify import at_target
from mae_lib.scaling.profile import profile_parameter, profile_prediction
from mae_lib.scaling.table import Table
from mae_lib.scaling.uncertainty import cluster_effect, pure_error, standard_errors

# Above this share of failed refits the intervals are those of the easy samples.
MOST_FAILED = 0.05


def describe_fit(
    fit: Fit,
    *,
    at: Mapping[str, float] | None = None,
    profile: bool = False,
    level: float = 0.95,
) -> dict:
    """Return `fit.to_json()` with unit, notes, standard errors, pure error and cluster effect.

    `sse`, `rmse` and all errors are fractions where the table was percent (`unit` says so), or
    logs for the log and huber objectives. `at` adds `target`: value, rho by factor, leverage and,
    with `profile`, the profile of the prediction; `profile` adds those of all parameters.
    """
    table = fit.table
    found = fit.to_json() | {
        "unit": unit_words(table),
        "standard_errors": _standard_errors(fit),
        "pure_error": pure_error(table),
        "cluster_effect": cluster_effect(table),
        "notes": [*table.notes, *fit_notes(fit)],
    }
    if at is not None:
        x = np.array([[float(at[f]) if f in at else np.nan for f in table.factors]])
        target, value = at_target(fit, at), float(fit.predict(x)[0])
        # A law that says nothing beyond its rows (cell means) has no value there.
        found["target"] = target | {"value": value if np.isfinite(value) else None}
        if profile and np.isfinite(value):
            found["target"]["profile"] = profile_prediction(fit, at, level=level).to_json()
    if profile:
        names = fit.law.names(table.factors)
        profiles = {name: profile_parameter(fit, name, level=level) for name in names}
        found["profiles"] = {name: p.to_json() for name, p in profiles.items()}
        if any(p.better for p in profiles.values()):
            found["notes"].append("a profile found a lower loss than the fit: it is no minimum")
    return found


def fit_notes(fit: Fit) -> list[str]:
    """Return what a reader should know of one fit, in words."""
    block, about, notes = fit.identifiability, fit.bootstrap, []
    notes += [f"{fit.law.name}: {words}" for words in block["null_directions"]]
    notes += [f"{fit.law.name}: {words}: no standard error there" for words in block["on_bound"]]
    if about["refits"] and about["failed"] > MOST_FAILED * about["refits"]:
        notes.append(
            f"{fit.law.name}: {about['failed']} of {about['refits']} refits failed and are left "
            "out, so its intervals are too narrow"
        )
    if (lack := fit.lack_of_fit) and lack["p"] < 0.05:
        notes.append(
            f"{fit.law.name}: lack of fit F({lack['df'][0]}, {lack['df'][1]}) = {lack['f']:.3g}, "
            f"p = {lack['p']:.1g}: it leaves more than the scatter of repeated cells"
        )
    if fit.starts["agreeing"] == 1 and fit.starts["tried"] > 1:
        notes.append(
            f"{fit.law.name}: 1 of {fit.starts['tried']} starts found the best fit; "
            "another may be better still"
        )
    return notes


def unit_words(table: Table) -> dict:
    """Say what the response is in the file, and what it is divided by before a fit."""
    unit = "native" if table.kind == "loss" else "percent" if table.scale == 100 else "fraction"
    return {"kind": table.kind, "response": unit, "scale": table.scale}


def law_notes(found: Sequence[dict]) -> list[str]:
    """Return the notes of several described fits, each once, in order."""
    return list(dict.fromkeys(note for one in found for note in one["notes"]))


def _standard_errors(fit: Fit) -> dict | None:
    """Return OLS and CR1 errors by parameter; None for a parameter on its bound, or not squares."""
    if fit.objective not in ("ls", "log"):
        return None
    y = 1 - fit.table.y if fit.flips else fit.table.y
    value = fit.law.evaluate(fit.params, fit.z)[0]
    if fit.objective == "log":
        y, value = np.log(y), np.log(value)
    names = fit.law.names(fit.table.factors)
    # A parameter on its bound does not move: it has no error, and takes none from the others.
    free = np.array([name not in fit.at_bound for name in names])
    codes = fit.table.cluster_codes
    found = standard_errors(fit.design[:, free], y - value, codes)
    shown: dict = {"clusters": None if codes is None else int(codes.max()) + 1}
    for kind, values in found.items():
        known = dict.fromkeys(names) | dict(
            zip(
                np.array(names)[free].tolist(), (values if values is not None else ()), strict=False
            )
        )
        shown[kind] = None if values is None else {n: _plain(v) for n, v in known.items()}
    return shown


def _plain(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)
