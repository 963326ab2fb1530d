"""A chart as a notebook output that opens offline: a picture, its data as CSV, and its spec.

The picture is drawn here; the book draws the live chart over it where scripts run. The same data
give the same text, so that notebooks compare equal.
"""

import base64
import html
import json
import math
from dataclasses import dataclass

import altair as alt
import pandas as pd
import vl_convert

DIGITS = 4


@dataclass(frozen=True)
class Figure:
    """A chart with its data; notebooks show it by its HTML."""

    chart: alt.TopLevelMixin
    data: pd.DataFrame
    name: str

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        spec = rounded(self.chart.to_dict())
        text = str(spec.get("description", self.name))
        return {"text/html": figure_html(spec, self.data, self.name), "text/plain": text}


def show(chart: alt.TopLevelMixin, *, data: pd.DataFrame, name: str) -> Figure:
    """Return a chart as a notebook output, with a link to its data as `<name>.csv`."""
    return Figure(chart, data, name)


def figure_html(spec: dict, data: pd.DataFrame, name: str) -> str:
    """Return the HTML of a chart: picture with alt text, spec, and data link."""
    picture = vl_convert.vegalite_to_svg(json.dumps(spec))
    source = base64.b64encode(picture.encode()).decode()
    text = html.escape(str(spec.get("description", name)), quote=True)
    body = json.dumps(spec, sort_keys=True).replace("<", "\\u003c")
    csv = base64.b64encode(data.to_csv(index=False, float_format="%.6g").encode()).decode()
    return (
        f'<div class="vega-chart"><img alt="{text}" src="data:image/svg+xml;base64,{source}">'
        f'<script type="application/json">{body}</script></div>'
        f'<p class="figure-links"><a download="{html.escape(name, quote=True)}.csv" '
        f'href="data:text/csv;base64,{csv}">data (CSV)</a></p>'
    )


def rounded(value: object) -> object:
    """Round every number of a spec to four significant digits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value
