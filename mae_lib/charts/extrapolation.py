"""Laws beyond their data: fans along a factor, held-out error by distance, lines of equal accuracy."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from mae_lib.charts.theme import GREY, WIDTH, themed

PANEL = WIDTH // 3 - 30


def law_fan(
    curves: pd.DataFrame,
    measured: pd.DataFrame,
    *,
    factor: str,
    response: str = "Top-1",
    percent: bool = True,
) -> alt.TopLevelMixin:
    """Draw each law along one factor: line inside the data, dashed on a shaded region beyond them.

    `curves`: law, x, value, low, high, part; `measured`: x, value. Intervals are the law's own
    bootstrap, cut at -20 % and 120 %.
    """
    curves = curves.copy()
    if percent:
        curves[["value", "low", "high"]] = curves[["value", "low", "high"]].clip(-0.2, 1.2)
    laws = curves.law.unique().tolist()
    edge, end = curves[curves.part == "inside"].x.max(), curves.x.max()
    region = pd.DataFrame({"law": laws, "x": edge, "x2": end, "part": "region"})
    runs = pd.concat([measured.assign(law=law, part="run") for law in laws])
    data = pd.concat([curves, region, runs], ignore_index=True)
    axis = alt.Axis(format="%", tickCount=4) if percent else alt.Axis(tickCount=4)
    base = alt.Chart().encode(
        x=alt.X(
            "x:Q",
            title=factor,
            scale=alt.Scale(type="log"),
            axis=alt.Axis(format="~s", tickCount=3),
        ),
        y=alt.Y("value:Q", title=response, axis=axis, scale=alt.Scale(zero=False)),
    )
    part = {name: base.transform_filter(alt.datum.part == name) for name in data.part.unique()}
    tips = ["law", "x", alt.Tooltip("value", format=".3f")]
    layers = [
        alt.Chart().transform_filter(alt.datum.part == "region").mark_rect(opacity=0.12, color=GREY)
        .encode(x="x:Q", x2="x2:Q"),
        base.transform_filter("isValid(datum.low)").mark_area(opacity=0.25)
        .encode(y=alt.Y("low:Q", title=response), y2="high:Q"),
        part["inside"].mark_line().encode(tooltip=tips),
        part["beyond"].mark_line(strokeDash=[5, 4]).encode(tooltip=tips),
    ]  # fmt: skip
    if len(measured):
        layers.append(part["run"].mark_point(filled=True, size=24, color=GREY, opacity=0.9))
    chart = alt.layer(*layers, data=data).properties(width=PANEL, height=130)
    chart = chart.facet(facet=alt.Facet("law:N", title=None, sort=laws), columns=3)
    last = curves.groupby("law", sort=False).tail(1).set_index("law").value
    text = ", ".join(f"{law} {value:{'.0%' if percent else '.3g'}}" for law, value in last.items())
    return themed(chart, f"Laws along {factor}; at its largest value they answer: {text}.")


def heldout_by_rho(errors: pd.DataFrame, *, unit: str = "points") -> alt.TopLevelMixin:
    """Draw the error at held-out cells by distance beyond the training cells, a colour a law.

    `errors`: law, split, rho, rmse in `unit`. Lines join the
    splits of one law; the region beyond 1 is where nothing is calibrated.
    """
    if errors.empty:
        text = "No split leaves enough runs to fit"
        empty = (
            alt.Chart(pd.DataFrame({"text": [text]})).mark_text(fontSize=13).encode(text="text:N")
        )
        return themed(empty.properties(width=WIDTH, height=60), f"{text}.")
    edge = max(1.2, float(errors.rho.max()) * 1.05)
    region = pd.DataFrame({"low": [1.0], "high": [edge]})
    band = alt.Chart(region).mark_rect(opacity=0.12, color=GREY).encode(x="low:Q", x2="high:Q")
    # One domain for colour and shape, or the legend shows each of them alone.
    laws = alt.Scale(domain=errors.law.unique().tolist())
    base = alt.Chart(errors).encode(
        x=alt.X("rho:Q", title="Distance beyond the training cells (rho)"),
        y=alt.Y("rmse:Q", title=f"Held-out error (RMSE, {unit})"),
        color=alt.Color("law:N", title="Law", scale=laws),
    )
    points = base.mark_point(filled=True, size=60, opacity=1).encode(
        shape=alt.Shape("law:N", title="Law", scale=laws),
        tooltip=[
            "law",
            "split",
            alt.Tooltip("rho", format=".2f"),
            alt.Tooltip("rmse", format=".2f"),
        ],
    )
    lines = base.mark_line(strokeWidth=1, opacity=0.6)
    worst = errors.loc[errors.rmse.idxmax()]
    chart = alt.layer(band, lines, points).properties(width=WIDTH, height=280)
    return themed(
        chart,
        f"Held-out error by distance; the largest is {worst.rmse:.2g} of {worst.law} at rho "
        f"{worst.rho:.2g}.",
    )


def isoquants(
    lines: pd.DataFrame,
    design: pd.DataFrame,
    target: Sequence[float],
    *,
    names: tuple[str, str],
) -> alt.TopLevelMixin:
    """Draw where each law reaches a level, by two factors: a panel a law, a shade a level.

    `lines`: law, level, x, y; `design`: x, y of the runs; the cross is the target.
    """
    percent, laws = lines.level.max() < 1, lines.law.unique().tolist()
    lines = lines.assign(label=[f"{100 * v:.0f} %" if percent else f"{v:.4g}" for v in lines.level])
    order = lines.sort_values("level").label.drop_duplicates().tolist()
    cross = pd.DataFrame({"x": [target[0]], "y": [target[1]], "label": "target"})
    marks = pd.concat([design.drop_duplicates().assign(label="run"), cross])
    each = pd.concat([marks.assign(law=law) for law in laws])
    data = pd.concat([lines, each], ignore_index=True)
    base = alt.Chart().encode(
        x=alt.X(
            "x:Q",
            title=names[0],
            scale=alt.Scale(type="log"),
            axis=alt.Axis(format="~s", tickCount=3),
        ),
        y=alt.Y("y:Q", title=names[1], scale=alt.Scale(type="log"), axis=alt.Axis(tickCount=4)),
    )
    shade = alt.Color(
        "label:O",
        sort=order,
        title="Level",
        scale=alt.Scale(scheme="viridis", reverse=True, domain=order),
    )
    layers = [
        base.transform_filter("isValid(datum.level)").mark_line(strokeWidth=2)
        .encode(detail="label:N", color=shade),
        base.transform_filter(alt.datum.label == "run")
        .mark_point(filled=True, size=22, color=GREY, opacity=0.9),
        base.transform_filter(alt.datum.label == "target")
        .mark_point(shape="cross", size=110, color="#D55E00", filled=True, opacity=1),
    ]  # fmt: skip
    chart = alt.layer(*layers, data=data).properties(width=PANEL, height=130)
    chart = chart.facet(facet=alt.Facet("law:N", title=None, sort=laws), columns=3)
    reach = lines[lines.label == order[-1]].groupby("law", sort=False).x.min()
    text = ", ".join(f"{law} from {value:.2g}" for law, value in reach.items()) or "no law"
    return themed(chart, f"Where laws reach {order[-1]}, by {names[0]}: {text}.")


def factor_map(cells: pd.DataFrame, *, across: str, factors: Sequence[str]) -> alt.TopLevelMixin:
    """Draw every combination of levels: a disc for its runs, a hollow ring where there is none.

    `cells`: the factors' levels as text and `runs`; `across` is the factor along the x axis.
    """
    down = [f for f in factors if f != across]
    cells = cells.copy()
    cells["row"] = cells[down].agg(" x ".join, axis=1) if down else ""
    cells["state"] = (cells.runs > 0).map({True: "run", False: "no run"})
    cells["count"] = cells.runs.astype(str)
    by = alt.EncodingSortField("order", order="ascending")
    cells["order"] = range(len(cells))
    # a picture made without a browser measures text too short: leave the labels their room
    room = min(220, 7.5 * cells.row.str.len().max())
    y = alt.Y("row:N", sort=by, title=None, axis=alt.Axis(labelLimit=220, minExtent=room))
    angle = 0 if cells[across].str.len().max() <= 6 else -35
    x = alt.X("level:O", sort=by, title=across, axis=alt.Axis(labelAngle=angle))
    cells["level"] = cells[across]
    base = alt.Chart(cells).encode(x=x, y=y)
    marks = base.mark_point(size=220, strokeWidth=1.5).encode(
        fill=alt.condition("datum.runs > 0", alt.value("#0072B2"), alt.value("transparent")),
        stroke=alt.value("#0072B2"),
        strokeDash=alt.condition("datum.runs > 0", alt.value([1, 0]), alt.value([2, 2])),
        tooltip=[*factors, "runs"],
    )
    counts = base.transform_filter("datum.runs > 0").mark_text(color="#ffffff", fontSize=10).encode(
        text="count:N"
    )  # fmt: skip
    holes = int((cells.runs == 0).sum())
    height = 26 * cells.row.nunique() + 20
    chart = alt.layer(marks, counts).properties(width=WIDTH - 200, height=height)
    return themed(
        chart,
        f"Rows are {' x '.join(down) or 'one'}: {len(cells) - holes} of {len(cells)} combinations of "
        f"levels have runs; {holes} are holes.",
    )
