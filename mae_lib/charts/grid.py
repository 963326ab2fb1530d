"""The grid of cells: accuracy over images, and which cells exist."""

import altair as alt
import pandas as pd

from mae_lib.charts.theme import WIDTH, themed

PERCENT = alt.Axis(format="%")


def accuracy_by_images(runs: pd.DataFrame) -> alt.TopLevelMixin:
    """Draw top-1 over distinct images, a panel a resolution, a colour and shape a model.

    Points carry 95 % intervals over test images; the dashed line is the best of the baselines.
    """
    frame = runs[runs.status == "complete"].copy()
    random = [name for name in frame.columns if name.startswith("random")]
    frame["baseline"] = frame[["pixels_top1", *random]].max(axis=1)
    columns = ["images", "resolution", "model", "top1", "top1_low", "top1_high", "baseline"]
    frame = frame[columns]
    # One domain for colour and shape, or the legend shows each of them alone.
    models = alt.Scale(domain=frame.model.unique().tolist())
    base = alt.Chart(frame).encode(
        x=alt.X(
            "images:Q",
            scale=alt.Scale(type="log"),
            title="Distinct images",
            axis=alt.Axis(format="~s", values=sorted(set(frame.images.tolist()))),
        ),
        color=alt.Color("model:N", title="Model", scale=models),
    )
    lines = base.mark_line(strokeWidth=1.5).encode(y="top1:Q")
    points = base.mark_point(filled=True, size=60, opacity=1).encode(
        y=alt.Y("top1:Q", title="Top-1", axis=PERCENT, scale=alt.Scale(zero=False)),
        shape=alt.Shape("model:N", title="Model", scale=models),
        tooltip=["model", "images", "resolution", alt.Tooltip("top1", format=".1%")],
    )
    bars = base.mark_rule().encode(y="top1_low:Q", y2="top1_high:Q")
    best = base.mark_line(strokeDash=[4, 4], opacity=0.7).encode(y="baseline:Q")
    panels = alt.layer(best, lines, bars, points).properties(width=WIDTH // 2 - 40, height=260)
    chart = panels.facet(column=alt.Column("resolution:O", title="Resolution (pixels a side)"))
    top = frame.sort_values("top1").iloc[-1]
    text = (
        f"Top-1 by distinct images; the highest is {top.top1:.1%} for {top.model} with "
        f"{top.images:,} images at {top.resolution} pixels. Dashed: the better baseline."
    )
    return themed(chart, text)


def design_map(runs: pd.DataFrame) -> alt.TopLevelMixin:
    """Draw a mark a cell: model and resolution by images; holes and failures are hollow."""
    cells = runs.drop_duplicates("cell")[["cell", "model", "images", "resolution", "status"]].copy()
    cells["row"] = cells.model + ", " + cells.resolution.astype(str) + " px"
    done = (cells.status == "complete").sum()
    chart = (
        alt.Chart(cells)
        .mark_point(size=160, filled=True)
        .encode(
            x=alt.X("images:O", title="Distinct images", axis=alt.Axis(labelAngle=0, format="~s")),
            y=alt.Y("row:N", sort=None, title=None, axis=alt.Axis(labelLimit=220)),
            shape=alt.Shape("status:N", title="Status"),
            color=alt.Color("status:N", title="Status"),
            tooltip=["cell", "status"],
        )
        .properties(width=WIDTH - 160, height=30 * cells.row.nunique() + 20)
    )
    return themed(chart, f"{done} of {len(cells)} cells are complete.")
