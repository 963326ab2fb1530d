"""Loss curves."""

import json
from pathlib import Path

import altair as alt
import pandas as pd

from mae_lib.charts.theme import HEIGHT, WIDTH, themed


def metrics_frame(folder: Path) -> pd.DataFrame:
    """Read the loss curve of a cell's folder, without its times."""
    return read_curve(folder / "metrics.jsonl")


def read_curve(path: Path) -> pd.DataFrame:
    """Read a loss curve without its times; a cell that was never begun has none."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = [row for row in map(json.loads, lines) if "step" in row]
    return pd.DataFrame(rows, columns=["step", "images_seen", "loss", "lr", "grad_norm"])


def loss_curve(metrics: pd.DataFrame) -> alt.TopLevelMixin:
    """Draw the loss of one cell over the images it has seen."""
    first, last = metrics.loss.iloc[0], metrics.loss.iloc[-1]
    chart = (
        alt.Chart(metrics)
        .mark_line(point=alt.OverlayMarkDef(size=14))
        .encode(
            x=alt.X("images_seen:Q", title="Images seen"),
            y=alt.Y("loss:Q", title="Loss on masked patches", scale=alt.Scale(zero=False)),
            tooltip=["step", "images_seen", alt.Tooltip("loss", format=".3f")],
        )
        .properties(width=WIDTH, height=HEIGHT)
    )
    return themed(chart, f"The loss goes from {first:.2f} to {last:.2f} over training.")


def loss_curves(curves: pd.DataFrame) -> alt.TopLevelMixin:
    """Draw the loss of every cell over the images seen: a panel a resolution, a colour a model, a
    dash an image level."""
    chart = (
        alt.Chart(curves)
        .mark_line(strokeWidth=1.5)
        .encode(
            x=alt.X("images_seen:Q", title="Images seen", axis=alt.Axis(format="~s", tickCount=4)),
            y=alt.Y(
                "loss:Q", title="Loss on masked patches", scale=alt.Scale(type="log", nice=False)
            ),
            color=alt.Color("model:N", title="Model", sort=None),
            strokeDash=alt.StrokeDash("images:O", title="Distinct images"),
            detail="cell:N",
            tooltip=["cell", "step", alt.Tooltip("loss", format=".3f")],
        )
        .properties(width=WIDTH // 2 - 40, height=220)
        .facet(column=alt.Column("resolution:O", title="Resolution (pixels a side)"))
        .resolve_scale(y="independent")
    )
    last = curves.groupby("cell").loss.last()
    return themed(
        chart,
        f"Loss curves of {len(last)} cells; they end between {last.min():.3f} and {last.max():.3f}.",
    )
