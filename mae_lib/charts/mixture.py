"""The mixture of sources, as asked and as built."""

import altair as alt
import pandas as pd

from mae_lib.charts.theme import GREY, WIDTH, themed


def data_mixture(card: pd.DataFrame) -> alt.TopLevelMixin:
    """Draw a bar a source: the share built, with a tick at the share asked."""
    base = alt.Chart(card).encode(y=alt.Y("source:N", sort=None, title=None))
    bars = base.mark_bar(height=16).encode(
        x=alt.X("built:Q", title="Share of the images", axis=alt.Axis(format="%")),
        tooltip=["source", "images", "built", "asked"],
    )
    ticks = base.mark_tick(color=GREY, thickness=3, height=22).encode(x="asked:Q")
    parts = ", ".join(f"{row.source} {row.built:.1%}" for row in card.itertuples())
    chart = alt.layer(bars, ticks).properties(width=WIDTH, height=30 * len(card))
    return themed(chart, f"Shares of the mixture as built: {parts}; ticks are the shares asked.")
