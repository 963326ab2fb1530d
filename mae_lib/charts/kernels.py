"""Speed on a device: rates by mode, kernels against their ceiling, stages of a step."""

import altair as alt
import pandas as pd

from mae_lib.charts.theme import WIDTH, themed


def rates_by_mode(frame: pd.DataFrame) -> alt.TopLevelMixin:
    """Draw images a second of every setting and mode. `frame`: setting, mode, images_per_s, p20, p80."""
    modes = frame["mode"].drop_duplicates().tolist()
    base = alt.Chart(frame).encode(
        y=alt.Y("setting:N", sort=None, title=None, axis=alt.Axis(labelLimit=260)),
        yOffset=alt.YOffset("mode:N", sort=modes),
        color=alt.Color("mode:N", sort=modes, title="Mode"),
    )
    rate = alt.X("images_per_s:Q", title="Images a second", scale=alt.Scale(type="log"))
    points = base.mark_point(filled=True, size=60, opacity=1).encode(
        x=rate,
        shape=alt.Shape("mode:N", sort=modes, title="Mode"),
        tooltip=["setting", "mode", "batch", alt.Tooltip("images_per_s", format=",.0f")],
    )
    bands = base.mark_rule().encode(x="p20:Q", x2="p80:Q")
    height = 16 * len(modes) * frame.setting.nunique()
    chart = alt.layer(bands, points).properties(width=WIDTH - 180, height=max(80, height))
    best = frame.loc[frame.images_per_s.idxmax()]
    return themed(
        chart, f"Highest rate: {best.setting}, {best['mode']}, {best.images_per_s:,.0f} images/s."
    )


def share_of_ceiling(frame: pd.DataFrame) -> alt.TopLevelMixin:
    """Draw how near each kernel comes to its ceiling. `frame`: operation, size, share_of_ceiling."""
    known = frame.dropna(subset=["share_of_ceiling"])
    names = known.operation.drop_duplicates().tolist()
    chart = (
        alt.Chart(known)
        .mark_point(filled=True, size=60, opacity=1)
        .encode(
            x=alt.X(
                "share_of_ceiling:Q",
                title="Least possible time / measured time",
                scale=alt.Scale(domainMin=0),
                axis=alt.Axis(format="%"),
            ),
            y=alt.Y("size:N", sort=None, title=None, axis=alt.Axis(labelLimit=260)),
            color=alt.Color("operation:N", sort=names, title="Operation"),
            shape=alt.Shape("operation:N", sort=names, title="Operation"),
            tooltip=["operation", "size", alt.Tooltip("share_of_ceiling", format=".1%")],
        )
        .properties(width=WIDTH - 160, height=26 * max(3, known["size"].nunique()))
    )
    low = known.loc[known.share_of_ceiling.idxmin()] if len(known) else None
    text = "No kernel was timed." if low is None else (
        f"Farthest from its ceiling: {low.operation} at {low['size']}, {low.share_of_ceiling:.0%}."
    )  # fmt: skip
    return themed(chart, text)


def step_by_stage(frame: pd.DataFrame) -> alt.TopLevelMixin:
    """Draw the stages of uncaptured steps. `frame`: setting, mode, <stage>_ms."""
    stages = ["data_ms", "forward_ms", "backward_ms", "optimizer_ms"]
    known = frame.dropna(subset=stages)
    long = known.melt(
        id_vars=["setting"], value_vars=stages, var_name="stage", value_name="milliseconds"
    )
    long["stage"] = long.stage.str.removesuffix("_ms")
    order = [name.removesuffix("_ms") for name in stages]
    long["place"] = long.stage.map({name: i for i, name in enumerate(order)})
    chart = (
        alt.Chart(long)
        .mark_bar()
        .encode(
            x=alt.X("milliseconds:Q", stack="normalize", title="Share of the stages' time",
                    axis=alt.Axis(format="%")),
            y=alt.Y("setting:N", sort=None, title=None, axis=alt.Axis(labelLimit=260)),
            color=alt.Color("stage:N", sort=order, title="Stage"),
            order=alt.Order("place:Q"),
            tooltip=["setting", "stage", alt.Tooltip("milliseconds", format=".3g")],
        )
        .properties(width=WIDTH - 160, height=28 * max(2, long.setting.nunique()))
    )  # fmt: skip
    shares = long.groupby("stage").milliseconds.sum()
    text = f"Longest stage over all settings: {shares.idxmax()}." if len(long) else "No step."
    return themed(chart, text)


def rates_together(frame: pd.DataFrame) -> alt.TopLevelMixin:
    """Draw images a second in all by cells at once. `frame`: setting, at_once, images_per_s."""
    names = frame.setting.drop_duplicates().tolist()
    chart = (
        alt.Chart(frame)
        .mark_line(point=True)
        .encode(
            x=alt.X("at_once:O", title="Cells at once"),
            y=alt.Y("images_per_s:Q", title="Images a second in all"),
            color=alt.Color("setting:N", sort=names, title="Cell"),
            strokeDash=alt.StrokeDash("setting:N", sort=names, title="Cell"),
            tooltip=["setting", "at_once", alt.Tooltip("images_per_s", format=",.0f")],
        )
        .properties(width=WIDTH - 200, height=220)
    )
    return themed(chart, f"{len(names)} small cells, up to {frame.at_once.max()} at once.")
