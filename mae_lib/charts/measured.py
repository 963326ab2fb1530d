"""The measured grid: which cells there are, what they score, and what was foretold of the largest."""

import altair as alt
import pandas as pd

from mae_lib.charts.theme import GREY, WIDTH, themed

PERCENT = alt.Axis(format="%", tickCount=4)


def measured_grid(cells: pd.DataFrame) -> alt.TopLevelMixin:
    """Draw a panel a resolution: models by images, filled by mean top-1; holes are empty squares.

    `cells`: model, images, resolution, seeds (measured), planned, top1 (none where nothing is).
    """
    models = cells.model.drop_duplicates().tolist()
    base = alt.Chart(cells).encode(
        x=alt.X("images:O", title="Distinct images", axis=alt.Axis(labelAngle=0, format="~s")),
        y=alt.Y("model:N", sort=models, title=None, axis=alt.Axis(labelLimit=140)),
        tooltip=[
            "model",
            "images",
            "resolution",
            "seeds",
            "planned",
            alt.Tooltip("top1", format=".1%"),
        ],
    )
    measured = base.transform_filter(alt.datum.seeds > 0)
    layers = [
        base.transform_filter(alt.datum.seeds == 0).mark_square(
            size=330, filled=False, stroke=GREY, strokeDash=[3, 3]
        ),
        measured.mark_square(size=420, opacity=1).encode(
            color=alt.Color(
                "top1:Q", title="Top-1", scale=alt.Scale(scheme="viridis"),
                legend=alt.Legend(format=".0%", gradientLength=160, tickCount=4),
            )
        ),
        measured.transform_filter(alt.datum.seeds > 1).mark_text(
            color="white", fontSize=11, fontWeight="bold"
        ).encode(text="seeds:Q"),
    ]  # fmt: skip
    panels = alt.layer(*layers).properties(width=150, height=26 * len(models))
    chart = panels.facet(
        facet=alt.Facet("resolution:O", title="Resolution (pixels a side)"), columns=3
    )
    done, planned = int(cells.seeds.sum()), int(cells.planned.sum())
    holes = int((cells.seeds == 0).sum())
    return themed(
        chart,
        f"{done} of {planned} planned runs are measured; {holes} combinations of levels have none.",
    )


def measured_scores(cells: pd.DataFrame) -> alt.TopLevelMixin:
    """Draw mean top-1 over distinct images, a panel a resolution, a colour and shape a model.

    `cells`: model, images, resolution, top1, low, high, baseline (the better of the two baselines).
    """
    models = alt.Scale(domain=cells.model.drop_duplicates().tolist())
    base = alt.Chart(cells).encode(
        x=alt.X(
            "images:Q", scale=alt.Scale(type="log"), title="Distinct images",
            axis=alt.Axis(format="~s", values=sorted(set(cells.images.tolist()))),
        ),
        color=alt.Color("model:N", title="Model", scale=models),
    )  # fmt: skip
    layers = [
        base.mark_line(strokeDash=[4, 4], opacity=0.6).encode(y="baseline:Q"),
        base.mark_line(strokeWidth=1.5).encode(y="top1:Q"),
        base.mark_rule().encode(y="low:Q", y2="high:Q"),
        base.mark_point(filled=True, size=45, opacity=1).encode(
            y=alt.Y("top1:Q", title="Top-1", axis=PERCENT, scale=alt.Scale(zero=False)),
            shape=alt.Shape("model:N", title="Model", scale=models),
            tooltip=["model", "images", "resolution", alt.Tooltip("top1", format=".1%")],
        ),
    ]
    panels = alt.layer(*layers).properties(width=WIDTH // 3 - 30, height=190)
    chart = panels.facet(
        facet=alt.Facet("resolution:O", title="Resolution (pixels a side)"), columns=3
    )
    top = cells.sort_values("top1").iloc[-1]
    return themed(
        chart,
        f"Top-1 by distinct images; the highest is {top.top1:.1%}, of {top.model} with "
        f"{top.images:,} images at {top.resolution} pixels. Dashed: the better baseline.",
    )


def registered_chart(rows: pd.DataFrame) -> alt.TopLevelMixin:
    """Draw the registered intervals as bars and what was then measured as points.

    `rows`: cell, low, high, predicted, measured (none where it is not yet), outcome.
    """
    order = rows.cell.tolist()
    base = alt.Chart(rows).encode(
        y=alt.Y("cell:N", sort=order, title=None, axis=alt.Axis(labelLimit=320))
    )
    layers = [
        base.mark_rule(strokeWidth=5, opacity=0.35).encode(
            x=alt.X("low:Q", title="Top-1", axis=PERCENT, scale=alt.Scale(zero=False)), x2="high:Q"
        ),
        base.mark_tick(thickness=2, size=14, color=GREY).encode(x="predicted:Q"),
        base.transform_filter("isValid(datum.measured)").mark_point(
            filled=True, size=80, opacity=1
        ).encode(
            x="measured:Q",
            color=alt.Color("outcome:N", title="Measured"),
            shape=alt.Shape("outcome:N", title="Measured"),
            tooltip=["cell", alt.Tooltip("measured", format=".1%")],
        ),
    ]  # fmt: skip
    chart = alt.layer(*layers).properties(width=WIDTH - 240, height=24 * len(rows) + 10)
    said = rows.outcome.value_counts().to_dict()
    text = ", ".join(f"{count} {name}" for name, count in said.items())
    return themed(
        chart, f"Registered intervals of the largest cells, then the measurement: {text}."
    )
