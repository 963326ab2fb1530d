"""One look for all charts: Okabe-Ito colours, a sequential scheme for ordered things."""

import altair as alt

WIDTH, HEIGHT = 560, 300
CATEGORIES = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
GREY = "#6b7280"


def themed(chart: alt.TopLevelMixin, description: str) -> alt.TopLevelMixin:
    """Give a chart the common look and its text alternative (which states the finding)."""
    return (
        chart.properties(description=description)
        .configure(font="system-ui, sans-serif", background="transparent")
        .configure_axis(
            labelFontSize=12,
            titleFontSize=12,
            titleFontWeight="normal",
            grid=True,
            gridOpacity=0.25,
        )
        .configure_legend(
            labelFontSize=12, titleFontSize=12, orient="bottom", columns=3, labelLimit=320
        )
        .configure_header(labelFontSize=12, titleFontSize=12, titleFontWeight="normal")
        .configure_view(strokeOpacity=0.3)
        .configure_range(category=CATEGORIES)
    )
