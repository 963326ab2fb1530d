"""The checklist of the reporting literature, filled in from fits, and what would change the answer.

Source: (Mis)Fitting, arXiv 2502.18969 (what papers leave out); arXiv 2404.10102, 2406.19146 and
2410.11840 (what then goes wrong).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from mae_lib.scaling.fit import Fit
from mae_lib.scaling.levels import level_codes
from mae_lib.scaling.predict import CALIBRATED_RHO

UNKNOWN = "not in the table: say it beside this page"
OBJECTIVES = {
    "ls": "least squares on the response",
    "log": "least squares on its logarithm",
    "huber": "Huber's function of log residuals",
    "binomial": "binomial likelihood",
}


def checklist(fits: Sequence[Fit], about: Mapping[str, object]) -> pd.DataFrame:
    """Return a row an item: what is asked, and what these fits can say of it."""
    table, first = fits[0].table, fits[0]
    units = dict(about.get("units") or {})
    factors = "; ".join(f"{f} ({units.get(f, 'unit ' + UNKNOWN)})" for f in table.factors)
    ranges = "; ".join(
        f"{f} {table.x[:, j].min():.4g} to {table.x[:, j].max():.4g}, "
        f"{len(np.unique(table.x[:, j]))} values"
        for j, f in enumerate(table.factors)
    )
    bounds = "; ".join(filter(None, (_at_bounds(fit) for fit in fits))) or "none"
    repeated = len(table.frame) - int(table.cell_codes.max()) - 1
    lack = "; ".join(
        f"{fit.law.name} p = {fit.lack_of_fit['p']:.2g}" for fit in fits if fit.lack_of_fit
    )
    rows = [
        ("law", "form", f"{len(fits)} forms: {', '.join(fit.law.name for fit in fits)}"),
        ("law", "factors and their units", factors),
        ("law", "response and its unit",
         f"{table.response} ({table.kind}, {units.get(table.response, 'as it stands')})"),
        ("runs", "where they are from", str(about.get("source", UNKNOWN))),
        ("runs", "licence", str(about.get("licence", UNKNOWN))),
        ("runs", "how many, and over what range", f"{len(table.frame)} rows; {ranges}"),
        ("runs", "repeats", f"{repeated} of {len(table.frame)} rows repeat a cell"),
        ("runs", "which runs share data",
         f"column {table.clusters}: {int(table.cluster_codes.max()) + 1} clusters"
         if table.clusters else "no column says so: rows count as independent"),
        ("runs", "training set-up of each run", str(about.get("training", UNKNOWN))),
        ("runs", "checkpoints and exclusions", str(about.get("exclusions", UNKNOWN))),
        ("fit", "objective", OBJECTIVES.get(first.objective, first.objective)),
        ("fit", "optimiser and starts", _starts(fits)),
        ("fit", "parameters at a bound", bounds),
        ("uncertainty", "what is resampled",
         f"{first.bootstrap['unit']}, {first.bootstrap['refits']} refits, level "
         f"{first.bootstrap['level']:.0%}"),
        ("uncertainty", "refits that failed",
         "; ".join(f"{fit.law.name} {fit.bootstrap['failed']}" for fit in fits)),
        ("validation", "lack of fit against repeats", lack or "no repeats, so not testable"),
        ("validation", "held-out extrapolation", str(about.get("holdout", "not run"))),
        ("reproduction", "command", str(about.get("command", UNKNOWN))),
        ("reproduction", "versions", ", ".join(f"{k} {v}" for k, v in about["versions"].items())),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["part", "asked", "answer"])


def what_would_change(fits: Sequence[Fit], answers: Mapping[str, Sequence[Mapping]]) -> list[str]:
    """Return sentences on what moves the answer, the largest movement first where it is known.

    `answers`: by target, what each law says there (value, low, high, rho).
    """
    table, said = fits[0].table, []
    for target, rows in answers.items():
        values = {row["law"]: row["value"] for row in rows}
        low, high = min(values, key=values.get), max(values, key=values.get)
        widths = [row["high"] - row["low"] for row in rows if row["low"] is not None]
        spread = values[high] - values[low]
        own = (
            f"; the widest interval of a single law is {_points(table, max(widths))}"
            if widths
            else ""
        )
        said.append(
            f"Another law: at {target} they answer {_value(table, values[low])} ({low}) to "
            f"{_value(table, values[high])} ({high}), a spread of {_points(table, spread)}{own}."
        )
        far = {f: rho for f, rho in rows[0]["rho"].items() if rho > 0}
        if far:
            worst = max(far, key=far.get)
            limit = ", beyond what is calibrated" if far[worst] > CALIBRATED_RHO else ""
            said.append(
                f"Runs nearer to {target}: it lies {far[worst]:.2g} ranges outside the data in "
                f"{worst}{limit}; one run that halves that distance is worth more than repeats here."
            )
    for factor in table.factors:
        levels = int(level_codes(table.logs[:, table.factors.index(factor)]).max()) + 1
        if levels < 3:
            said.append(f"A third level of {factor}: {levels} give a slope and no shape.")
    for fit in fits:
        for words in (*fit.law.dropped, *fit.identifiability["null_directions"]):
            if (sentence := f"A design that parts what is aliased now: {words}.") not in said:
                said.append(sentence)
    if rejected := [f.law.name for f in fits if f.lack_of_fit and f.lack_of_fit["p"] < 0.05]:
        said.append(
            f"A better form: {', '.join(rejected)} miss the cells' means by more than repeats scatter "
            "(lack of fit, 5 %)."
        )
    if not any(fit.lack_of_fit for fit in fits):
        said.append("Repeated cells: without them no law's form can be rejected.")
    return said + [f"A look at the table: {note}." for note in table.notes]


def _value(table, value: float) -> str:
    return f"{value:.4g}" if table.kind == "loss" else f"{100 * value:.3g} %"


def _points(table, width: float) -> str:
    return f"{width:.3g}" if table.kind == "loss" else f"{100 * width:.3g} points"


def _starts(fits: Sequence[Fit]) -> str:
    parts = [
        f"{fit.law.name} {fit.starts['agreeing']} of {fit.starts['tried']} agree" for fit in fits
    ]
    return "least squares from Sobol starts; " + ", ".join(parts)


def _at_bounds(fit: Fit) -> str:
    return f"{fit.law.name}: {', '.join(fit.at_bound)}" if fit.at_bound else ""
