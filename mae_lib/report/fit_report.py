"""`mae fit --report`: one page that holds a fit, its checklist and its explorer, and loads nothing."""

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mae_lib.charts.extrapolation import factor_map, heldout_by_rho, law_fan
from mae_lib.charts.frames import table_html
from mae_lib.charts.laws import law_fit
from mae_lib.charts.parts import interval_parts
from mae_lib.charts.renderer import Figure
from mae_lib.errors import FitError
from mae_lib.records.atomic import write_text
from mae_lib.records.provenance import versions
from mae_lib.report.checklist import checklist, what_would_change
from mae_lib.report.explorer import SCRIPT, STYLE, explorer_data, explorer_html
from mae_lib.report.heldout_frames import (
    held_out,
    heldout_frame,
    heldout_sentence,
    heldout_wide,
    parts_frame,
    stacked_rows,
    stacked_sentence,
)
from mae_lib.report.law_curves import design_frame, fan_frame, measured_along
from mae_lib.report.law_frames import (
    fitted_frame,
    identifiability_frame,
    parameters_frame,
    residual,
)
from mae_lib.scaling.fit import Fit
from mae_lib.scaling.predict import predict_law
from mae_lib.scaling.read import read_sheet
from mae_lib.scaling.table import Table

# More combinations of levels than this make a map that nobody reads.
LARGEST_MAP = 400

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body><main><h1>{title}</h1>
{body}
</main><script>{script}</script></body></html>
"""


def write_report(
    fits: Sequence[Fit],
    path: Path,
    *,
    targets: Mapping[str, Mapping[str, float]] | None = None,
    about: Mapping[str, object] | None = None,
) -> Path:
    """Write the report of fits to one table as a self-contained HTML page and return its path.

    `targets`: named points; without any, twice the largest value of every factor. `about`: source,
    licence, units, training, exclusions, command: whatever is not in the table or the YAML beside it.
    Raises: FitError when no law has a value away from the cells.
    """
    table, every = fits[0].table, fits
    # One mean a cell is the yardstick of the table of laws, and has no value anywhere else.
    fits = [fit for fit in every if fit.law.levels_needed > 1]
    if not fits:
        raise FitError(f"report: {every[0].law.name} has no value away from its cells; fit a law")
    targets = dict(targets or {"twice the largest run": _twice(table)})
    about = {"versions": versions()} | beside(table) | dict(about or {})
    left_out, why = held_out(table, fits)
    about.setdefault("holdout", f"{len(left_out['splits'])} splits, above" if left_out else why)
    stacked = stacked_rows(table, fits, targets)
    answers = {name: [predict_law(fit, at) for fit in fits] for name, at in targets.items()}
    sections = [
        _answer(table, answers, stacked),
        _explorer(fits, targets),
        _laws(fits, every),
        _validation(left_out, why, table),
        _design(fits, targets),
        _details(fits),
        _section("What would change the answer", _items(what_would_change(fits, answers))),
        _section("Checklist", _note(
            "Asked of every scaling law by arXiv 2502.18969; filled in from the table and the fit.")
            + table_html(checklist(fits, about), prose=True)),
    ]  # fmt: skip
    page = PAGE.format(
        title=html.escape(f"Laws for {table.response} by {', '.join(table.factors)}"),
        style=_style(),
        body="\n".join(filter(None, sections)),
        script=SCRIPT.read_text(encoding="utf-8"),
    )
    write_text(Path(path), page)
    return Path(path)


def beside(table) -> dict:
    """Return source, licence and units from the YAML beside a table that was read from a file."""
    path = Path(table.name)
    fields = read_sheet(path).fields if path.is_file() else {}
    return {key: fields[key] for key in ("source", "licence", "units") if key in fields}


def laws_table(fits: Sequence[Fit]) -> pd.DataFrame:
    """Return a row a law: parameters, residual, criteria, lack of fit."""
    return pd.DataFrame(
        [
            {
                "law": fit.law.name,
                "formula": fit.law.formula,
                "k": fit.k,
                **residual(fit),
                "AICc": fit.aicc,
                "lack_of_fit_p": fit.lack_of_fit["p"] if fit.lack_of_fit else None,
                "source": fit.law.source,
            }
            for fit in fits
        ]
    )


def _answer(table, answers: Mapping[str, list[dict]], stacked: Sequence[dict]) -> str:
    parts = []
    for row, (name, rows) in zip(stacked, answers.items(), strict=True):
        values = [r["value"] for r in rows]
        rho = max(rows[0]["rho"].values())
        low, high = (_text(table, v) for v in (min(values), max(values)))
        where = "inside the data" if rho == 0 else f"{rho:.2g} × the data's range outside it"
        far = "" if rows[0]["calibrated"] else (
            " Nothing is calibrated beyond 1 ×: the spread is the answer, not a number.")  # fmt: skip
        text = f"{len(rows)} laws answer {low} to {high} at {name}, {where}.{far}"
        frame = pd.DataFrame(
            [{"law": r["law"], "value": _text(table, r["value"]), "low": _text(table, r["low"]),
              "high": _text(table, r["high"])} for r in rows]
        )  # fmt: skip
        said = stacked_sentence(table, row).removeprefix("- ")
        parts.append(f"<p><strong>{html.escape(text)}</strong></p>{_note(said)}{table_html(frame)}")
    interval = parts_frame(table, stacked)
    if len(interval):
        unit = table.response if table.kind == "loss" else "points"
        parts.append(_note("The stacked interval by its parts, which add in quadrature:"))
        parts.append(_figure(interval_parts(interval, unit=unit), interval, "parts"))
    return _section("The answer", "".join(parts))


def _explorer(fits: Sequence[Fit], targets: Mapping) -> str:
    table = fits[0].table
    largest = {f: float(table.x[:, j].max()) for j, f in enumerate(table.factors)}
    points = {"largest values": largest} | dict(targets)
    data = explorer_data(fits, points, response=table.response)
    left = f"<p>Not here: {', '.join(data['left_out'])}.</p>" if data["left_out"] else ""
    return _section("Ask the laws elsewhere", explorer_html(data, fits) + left)


def _laws(fits: Sequence[Fit], every: Sequence[Fit]) -> str:
    fitted = fitted_frame(fits)
    picture = _figure(
        law_fit(fitted, response=fits[0].table.response, percent=fits[0].table.kind != "loss"),
        fitted,
        "fitted",
    )
    return _section("The laws", table_html(laws_table(every), prose=True) + picture)


def _validation(found: dict | None, why: str, table: Table) -> str:
    if found is None:
        return _section("Held out", _note(f"No held-out extrapolation: {why}."))
    frame = heldout_frame(found)
    unit = table.response if table.kind == "loss" else "points"
    chart = _figure(heldout_by_rho(frame, unit=unit), frame, "holdout")
    said = _note(heldout_sentence(found, why).removeprefix("- "))
    skipped = _note(f"Not possible: {why}.") if why else ""
    return _section("Held out", said + chart + table_html(heldout_wide(found)) + skipped)


def _design(fits: Sequence[Fit], targets: Mapping) -> str:
    table = fits[0].table
    cells = design_frame(table)
    parts = []
    if len(cells) <= LARGEST_MAP:
        chart = factor_map(cells, across=table.factors[0], factors=table.factors)
        parts.append(_note(chart.description) + _figure(chart, cells, "design"))
    else:
        parts.append(_note(f"{len(cells):,} combinations of levels: too many to draw."))
    name, at = next(iter(targets.items()))
    largest = {f: float(table.x[:, j].max()) for j, f in enumerate(table.factors)}
    for j, factor in enumerate(table.factors):
        until = max(float(at[factor]), 1.01 * table.x[:, j].max())
        curves = fan_frame(fits, largest, factor, until=until)
        measured = measured_along(table, largest, factor)
        chart = law_fan(
            curves,
            measured,
            factor=factor,
            response=table.response,
            percent=table.kind != "loss",
        )
        held = ", ".join(f"{f} {v:.4g}" for f, v in largest.items() if f != factor)
        parts.append(_note(f"Along {factor}, to {name}; held: {held or 'nothing'}."))
        parts.append(_figure(chart, curves, f"along-{factor}"))
    return _section("The design, and the laws along each factor", "".join(parts))


def _details(fits: Sequence[Fit]) -> str:
    return _section(
        "Parameters",
        _note("Factors are natural logs about the centre of the data.")
        + table_html(parameters_frame(fits))
        + "<h3>What the design can identify</h3>"
        + table_html(identifiability_frame(fits), prose=True),
    )


def _figure(chart, data: pd.DataFrame, name: str) -> str:
    """Return the picture and its data; a page that loads nothing has no use for the live chart."""
    text = Figure(chart, data, name)._repr_mimebundle_()["text/html"]
    return re.sub(r'<script type="application/json">.*?</script>', "", text, flags=re.S)


def _section(title: str, body: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2>{body}</section>"


def _note(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def _items(sentences: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(s)}</li>" for s in sentences) + "</ul>"


def _text(table, value: float | None) -> str:
    if value is None or not np.isfinite(value):
        return "-"
    return f"{value:.4g}" if table.kind == "loss" else f"{100 * value:.3g} %"


def _twice(table) -> dict[str, float]:
    return {f: 2.0 * float(table.x[:, j].max()) for j, f in enumerate(table.factors)}


def _style() -> str:
    """The page's look, which follows the reader's light or dark, and the explorer's."""
    own = (Path(__file__).parent / "fit_report.css").read_text(encoding="utf-8")
    return f"{own}\n{STYLE.read_text(encoding='utf-8')}"
