"""Laws against the cells, and what they say beyond them."""

import altair as alt
import pandas as pd

from mae_lib.charts.theme import GREY, WIDTH, themed


def law_fit(
    fitted: pd.DataFrame, *, response: str = "top-1", percent: bool = True
) -> alt.TopLevelMixin:
    """Draw each law's fitted value against the measured one, a panel a law; the line is equality."""
    low, high = (
        fitted[["measured", "fitted"]].min().min(),
        fitted[["measured", "fitted"]].max().max(),
    )
    scale = alt.Scale(domain=[low * 0.95, high * 1.05], nice=False)
    axis, digits = (alt.Axis(format="%", tickCount=4), ".1%") if percent else (
        alt.Axis(tickCount=4), ".4g")  # fmt: skip
    points = (
        alt.Chart()
        .mark_point(filled=True, size=50, opacity=0.9)
        .encode(
            x=alt.X("measured:Q", title=f"Measured {response}", scale=scale, axis=axis),
            y=alt.Y("fitted:Q", title="Fitted", scale=scale, axis=axis),
            tooltip=[
                "cell",
                alt.Tooltip("measured", format=digits),
                alt.Tooltip("fitted", format=digits),
            ],
        )
    )
    equal = (
        alt.Chart().mark_line(color=GREY, strokeDash=[4, 4]).encode(x="measured:Q", y="measured:Q")
    )
    chart = (
        alt.layer(equal, points, data=fitted)
        .properties(width=WIDTH // 2 - 60, height=180)
        .facet(facet=alt.Facet("law:N", title=None, sort=None), columns=2)
    )
    worst = (fitted.measured - fitted.fitted).abs().groupby(fitted["law"]).max()
    text = ", ".join(f"{law} {value:{digits}}" for law, value in worst.items())
    return themed(chart, f"Largest residual by law: {text}.")


def prediction_fan(predictions: pd.DataFrame) -> alt.TopLevelMixin:
    """Draw every law's answer at every target with its interval; the band is the possible range.

    Answers beyond the calibrated range are hollow; intervals are cut at -50 % and 150 %.
    """
    frame = predictions[["target", "law", "value", "low", "high", "rho_max", "calibrated"]].copy()
    frame[["low", "high"]] = frame[["low", "high"]].clip(-0.5, 1.5)
    frame["shown"] = frame.value.clip(-0.5, 1.5)
    frame["range"] = frame.calibrated.map(
        {True: "calibrated", False: "beyond the calibrated range"}
    )
    possible = pd.DataFrame({"low": [0.0], "high": [1.0]})
    band = alt.Chart(possible).mark_rect(opacity=0.12, color=GREY).encode(x="low:Q", x2="high:Q")
    base = alt.Chart().encode(y=alt.Y("law:N", sort=None, title=None))
    bars = base.mark_rule().encode(x="low:Q", x2="high:Q", color=alt.Color("law:N", legend=None))
    points = base.mark_point(size=70, strokeWidth=2).encode(
        x=alt.X("shown:Q", title="Top-1", axis=alt.Axis(format="%")),
        color=alt.Color("law:N", legend=None, sort=None),
        fill=alt.condition("datum.calibrated", "law:N", alt.value("transparent"), legend=None),
        shape=alt.Shape("range:N", title="Answer is"),
        tooltip=[
            "target",
            "law",
            alt.Tooltip("value", format=".1%"),
            alt.Tooltip("rho_max", format=".2f", title="rho"),
        ],
    )
    rows = []
    for target in frame.target.unique():
        part = frame[frame.target == target]
        title = f"{target} (rho {part.rho_max.max():.2g})"
        rows.append(
            alt.layer(band, bars, points, data=part).properties(
                width=WIDTH - 120, height=28 * len(part), title=title
            )
        )
    spread = frame.groupby("target", sort=False).value.agg(["min", "max"])
    text = "; ".join(f"{t}: {r['min']:.0%} to {r['max']:.0%}" for t, r in spread.iterrows())
    return themed(alt.vconcat(*rows), f"Answers by law at each target: {text}.")
