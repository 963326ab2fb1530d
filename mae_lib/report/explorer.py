"""The law explorer of a page: fitted laws as JSON, and the script that asks them in the browser."""

import html
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mae_lib.charts.frames import table_html
from mae_lib.scaling.fit import Fit
from mae_lib.scaling.predict import predictions_frame

HERE = Path(__file__).parent
SCRIPT, STYLE = HERE / "explorer.js", HERE / "explorer.css"
# Enough for a 95 % interval that a reader compares by eye, and about 100 kB a page.
DRAWS = 300
DIGITS = 6
LABELS = {
    "images": "Distinct images",
    "params_encoder": "Parameters (N)",
    "n_params": "Parameters (N)",
    "resolution": "Resolution (pixels a side)",
    "res": "Resolution (pixels a side)",
    "hours": "Video (hours)",
    "tokens": "Tokens (D)",
    "n_tokens": "Tokens (D)",
}


def known_laws() -> set[str]:
    """Return the names of the laws that the script can compute, as the script has them."""
    text = SCRIPT.read_text(encoding="utf-8")
    block = re.search(r"const LAWS = \{(.*?)\n  \};", text, re.S)
    return set(re.findall(r"^    (\w+):", block[1], re.M))


def explorer_data(
    fits: Sequence[Fit],
    points: Mapping[str, Mapping[str, float]],
    *,
    title: str = "The point that the laws are asked about",
    response: str = "Top-1",
) -> dict:
    """Return what the page computes with: factors, data ranges, parameters and bootstrap draws.

    `points` are named places to jump to; the first is where the sliders begin. Laws that the
    script does not know, or that have no draws, are named in `left_out`.
    """
    table = fits[0].table
    logs = table.logs
    asked = np.log([[at[f] for f in table.factors] for at in points.values()])
    reach = logs.max(0) + 1.5 * np.ptp(logs, axis=0)
    low = np.minimum(asked.min(0), logs.min(0) - 0.5 * np.ptp(logs, axis=0))
    high = np.maximum(asked.max(0), reach)
    known = known_laws()
    shown = [fit for fit in fits if fit.law.name in known]
    return {
        "format": 1,
        "title": title,
        "response": response,
        "percent": table.kind != "loss",
        "bounded": table.kind != "loss",
        "level": fits[0].bootstrap["level"],
        "factors": [
            {
                "name": name,
                "label": LABELS.get(name, name),
                "low": _short(np.exp(low[j])),
                "high": _short(np.exp(high[j])),
                "min": float(table.x[:, j].min()),
                "max": float(table.x[:, j].max()),
                "at": float(next(iter(points.values()))[name]),
            }
            for j, name in enumerate(table.factors)
        ],
        "points": [
            {"name": name, "at": [float(at[f]) for f in table.factors]}
            for name, at in points.items()
        ],
        "laws": [_law(fit) for fit in shown],
        "left_out": [fit.law.name for fit in fits if fit.law.name not in known],
    }


def explorer_html(data: dict, fits: Sequence[Fit]) -> str:
    """Return the explorer as HTML; without a script the table at the first point stays."""
    first = data["points"][0]
    name, at = (
        first["name"],
        dict(zip((f["name"] for f in data["factors"]), first["at"], strict=True)),
    )
    frame = predictions_frame(fits, {name: at})[["law", "value", "low", "high", "rho_max"]]
    body = json.dumps(data, sort_keys=True, separators=(",", ":")).replace("<", "\\u003c")
    return (
        f'<div class="law-explorer"><div class="law-static"><p>At: {html.escape(name)}. The sliders '
        f"need a script.</p>{table_html(frame)}</div>"
        f'<script type="application/json">{body}</script></div>'
    )


def _law(fit: Fit) -> dict:
    columns = [fit.table.factors.index(factor) for factor in fit.factors]
    names = fit.law.parameters(fit.factors)
    pairs = [
        [j, k]
        for j, k in itertools.combinations(range(len(columns)), 2)
        if f"per_ln_{fit.factors[j]}_ln_{fit.factors[k]}" in names
    ]
    return {
        "name": fit.law.name,
        "columns": columns,
        "centre": [float(c) for c in fit.centre],
        "pairs": pairs,
        "shifted": [j for j, f in enumerate(fit.factors) if f"ln_shift_{f}" in names],
        "chance": _chance(fit),
        "invert": _inverted(fit),
        "params": [float(p) for p in fit.params],
        "draws": [[_short(p) for p in draw] for draw in fit.draws[:DRAWS]],
    }


def _chance(fit: Fit) -> float:
    """Return what a logistic law says at a level far below the data."""
    if not fit.law.name.startswith("logit_"):
        return 0.0
    far = np.array(fit.params)
    far[0], far[1 : 1 + len(fit.factors)] = -700.0, 0.0
    value = float(fit.law.evaluate(far, np.zeros((1, len(fit.factors))))[0][0])
    return value if value > 1e-100 else 0.0


def _inverted(fit: Fit) -> bool:
    """Whether the fit answers 1 - the law's value: an error law on a table of accuracies."""
    columns = [fit.table.factors.index(factor) for factor in fit.factors]
    z = fit.table.logs[:1, columns] - fit.centre
    law, answer = fit.law.evaluate(fit.params, z)[0][0], fit.predict(fit.table.x[:1])[0]
    return bool(abs(1 - law - answer) < abs(law - answer))


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
