"""Loss curves."""

import json
from pathlib import Path

import altair as alt
import pandas as pd

from mae_lib.charts.theme import HEIGHT, WIDTH, themed


def metrics_frame(folder: Path) -> pd.DataFrame:
    """Read the loss curve of a cell's folder, without its times."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if "step" in row]
    return pd.DataFrame(rows)[["step", "images_seen", "loss", "lr", "grad_norm"]]


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
