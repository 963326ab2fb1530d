"""What the page on kernels draws and says, from measurements alone."""

from collections.abc import Callable

import altair as alt
import pandas as pd

from mae_lib.charts.frames import Shown, table
from mae_lib.charts.renderer import Figure, show
from mae_lib.report.gpu_frames import NOT_MEASURED, ablation_frame, goals_frame
from mae_lib.report.gpu_record import (
    COMMAND,
    Measured,
    cell_sentence,
    errors_sentence,
    tests_sentence,
)


def drawn(
    found: Measured | None,
    chart: Callable[[pd.DataFrame], alt.TopLevelMixin],
    frame: pd.DataFrame,
    *,
    name: str,
) -> Figure | Shown:
    """Return a chart of a frame; where nothing was measured, a line that says so."""
    if found is None or frame is NOT_MEASURED:
        return table(pd.DataFrame({"chart": [name], "state": ["drawn once it is measured"]}))
    return show(chart(frame), data=frame, name=name)


def learned(found: Measured | None) -> str:
    """Say in bullets what the run showed, or what waits to be measured."""
    if found is None:
        return "\n".join(
            (
                "- Not measured: every number of this page.",
                "- Built and tested without a GPU: the captured step equals the ordinary one on a "
                "CPU bit for bit when run uncaptured, and kernels equal their references in "
                "Triton's interpreter.",
                f"- To measure: `{COMMAND}` on a CUDA machine, under nine minutes; it needs torch, "
                "triton, timm, torchvision, numpy and pandas, no network.",
            )
        )
    return "\n".join(
        (
            _goals_sentence(found),
            _kernels_sentence(found),
            tests_sentence(found),
            cell_sentence(found),
            errors_sentence(found),
        )
    )


def _goals_sentence(found: Measured) -> str:
    frame = goals_frame(found).dropna(subset=["ours"])
    if frame.empty:
        return "- Not measured: our rates."
    met = frame[frame.ours >= frame.goal]
    asked = frame.dropna(subset=["times_asked", "times_peer"])
    beaten = int((asked.times_peer >= asked.times_asked).sum())
    nearest = (frame.ours / frame.ideal).max()
    return (
        f"- {len(met)} of {len(frame)} goals are reached on {found.provenance['device']}; the "
        f"factor over the peer in {beaten} of {len(asked)}. The best cell runs at {nearest:.0%} of "
        "its ideal."
    )


def _kernels_sentence(found: Measured) -> str:
    frame = ablation_frame(found)
    if frame is NOT_MEASURED:
        return "- Not measured: what each kernel takes off a step."
    stays = sorted(set(frame[frame.may_stay].kernel) - {"all"})
    goes = sorted(set(frame.kernel) - set(stays) - {"all"})
    return (
        f"- Kernels that take enough off some real step: {', '.join(stays) or 'none'}; those that do "
        f"not: {', '.join(goes) or 'none'}."
    )
