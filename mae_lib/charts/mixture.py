"""The mixture of sources, as asked and as built, and how many of its pixels are real."""

import altair as alt
import pandas as pd

from mae_lib.charts.theme import GREY, HEIGHT, WIDTH, themed


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


def native_sizes(frame: pd.DataFrame) -> alt.TopLevelMixin:
    """Draw how the native sides of each source spread: a circle a size, its area the share."""
    chart = (
        alt.Chart(frame)
        .mark_circle(opacity=0.8)
        .encode(
            x=alt.X(
                "native_side:Q",
                title="Shorter native side (pixels)",
                scale=alt.Scale(type="log", base=2, nice=False, padding=24),
                axis=alt.Axis(tickCount=6, format="d"),
            ),
            y=alt.Y("source:N", sort=None, title=None),
            size=alt.Size("share:Q", title="Share of the source", legend=alt.Legend(format="%")),
            color=alt.Color("source:N", legend=None),
            tooltip=["source", "native_side", "images", alt.Tooltip("share", format=".1%")],
        )
        .properties(width=WIDTH, height=36 * frame["source"].nunique())
    )
    spans = frame.groupby("source", sort=False)["native_side"].agg(["min", "max"])
    parts = ", ".join(f"{name} {low:g} to {high:g}" for name, low, high in spans.itertuples())
    return themed(chart, f"Shorter native sides in pixels, by source: {parts}.")


def real_pixels(frame: pd.DataFrame) -> alt.TopLevelMixin:
    """Draw the share of real pixels over the resolution, a line a source, the mixture dashed."""
    mixed = frame["source"].str.startswith("all")
    lines = (
        alt.Chart(frame.assign(mixture=mixed))
        .mark_line(point=True)
        .encode(
            x=alt.X(
                "resolution:Q",
                title="Resolution (pixels a side)",
                scale=alt.Scale(type="log", base=2),
            ),
            y=alt.Y(
                "real_pixels:Q",
                title="Share of pixels that are real",
                scale=alt.Scale(type="log", domainMax=1),
                axis=alt.Axis(format="~%"),
            ),
            color=alt.Color("source:N", title=None, sort=None),
            shape=alt.Shape("source:N", legend=None, sort=None),
            strokeDash=alt.StrokeDash("mixture:N", legend=None),
            tooltip=["source", "resolution", alt.Tooltip("real_pixels", format=".2%")],
        )
        .properties(width=WIDTH, height=HEIGHT)
    )
    last = frame.loc[mixed].sort_values("resolution").iloc[-1]
    text = (
        f"Of the whole mixture {last.real_pixels:.1%} of the pixels are real at "
        f"{int(last.resolution)} pixels a side."
    )
    return themed(lines, text)
