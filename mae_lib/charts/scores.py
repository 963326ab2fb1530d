"""Scores beside their baselines."""

import altair as alt
import pandas as pd

from mae_lib.charts.theme import GREY, WIDTH, themed


def baselines_by_cell(rows: pd.DataFrame) -> alt.TopLevelMixin:
    """Draw each cell's top-1 with its interval beside raw pixels, random weights and chance."""
    frame = rows[rows.status == "complete"].copy()
    random = [name for name in frame.columns if name.startswith("random")]
    frame["random weights"] = frame[random].max(axis=1)
    frame["label"] = frame["cell"].str.rsplit("-", n=1).str[0] + ", " + frame["protocol"]
    if frame.task.nunique() > 1:
        frame["label"] = frame["task"] + ", " + frame["label"]
    kinds = {"top1": "pretrained", "pixels_top1": "raw pixels", "chance": "chance"}
    long = frame.rename(columns=kinds).melt(
        id_vars=["label", "top1_low", "top1_high"],
        value_vars=["pretrained", "random weights", "raw pixels", "chance"],
        var_name="features",
        value_name="share",
    )
    names = ["pretrained", "random weights", "raw pixels", "chance"]
    points = (
        alt.Chart(long)
        .mark_point(filled=True, size=60, opacity=1)
        .encode(
            x=alt.X("share:Q", title="Top-1", axis=alt.Axis(format="%")),
            y=alt.Y("label:N", sort=None, title=None, axis=alt.Axis(labelLimit=260)),
            color=alt.Color("features:N", scale=alt.Scale(domain=names), title="Features"),
            shape=alt.Shape("features:N", scale=alt.Scale(domain=names), title="Features"),
            tooltip=["label", "features", alt.Tooltip("share", format=".1%")],
        )
    )
    bars = (
        alt.Chart(long[long.features == "pretrained"])
        .mark_rule(color=GREY)
        .encode(x="top1_low:Q", x2="top1_high:Q", y=alt.Y("label:N", sort=None))
    )
    above = int((frame["top1"] > frame[["pixels_top1", "random weights"]].max(axis=1)).sum())
    chart = alt.layer(bars, points).properties(width=WIDTH - 200, height=22 * len(frame) + 20)
    return themed(chart, f"{above} of {len(frame)} scores lie above both of their baselines.")
