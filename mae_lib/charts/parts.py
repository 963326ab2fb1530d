"""The three parts of a stacked interval."""

import altair as alt
import pandas as pd

from mae_lib.charts.theme import WIDTH, themed


def interval_parts(parts: pd.DataFrame, *, unit: str = "points") -> alt.TopLevelMixin:
    """Draw a bar a part of each target's interval: half-widths, which add in quadrature.

    `parts`: target, part, half_width.
    """
    order = parts.part.drop_duplicates().tolist()
    base = alt.Chart(parts).encode(
        y=alt.Y("part:N", sort=order, title=None, axis=alt.Axis(minExtent=100))
    )
    bars = base.mark_bar(height=14).encode(
        x=alt.X(
            "half_width:Q",
            title=f"Half-width of the 95 % interval ({unit})",
            axis=alt.Axis(tickCount=5),
        ),
        color=alt.Color("part:N", sort=order, legend=None),
        tooltip=["target", "part", alt.Tooltip("half_width", format=".3g")],
    )
    numbers = base.mark_text(align="left", dx=4).encode(
        x="half_width:Q", text=alt.Text("half_width:Q", format=".2g"), color=alt.value("#6b7280")
    )
    chart = alt.layer(bars, numbers).properties(width=WIDTH - 160, height=70)
    if parts.target.nunique() > 1:
        chart = chart.facet(row=alt.Row("target:N", title=None, sort=None))
    largest = parts.loc[parts.half_width.idxmax()]
    text = f"Largest part: {largest.part} at {largest.target}, {largest.half_width:.2g} {unit}."
    return themed(chart, text)
