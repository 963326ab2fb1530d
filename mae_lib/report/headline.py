"""The README's answer, written from results: `mae study publish` puts it there, a test compares."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mae_lib.errors import RecordError
from mae_lib.records.atomic import write_text
from mae_lib.report.verdicts import effects_in_short

BEGIN, END = "<!-- the answer, by `mae study publish` -->", "<!-- end of the answer -->"


def headline(
    procedural: pd.DataFrame,
    photographs: pd.DataFrame,
    fits: Sequence[dict],
    predictions: pd.DataFrame,
) -> str:
    """Return the answer in three sentences from both studies' effects, the fits and predictions."""
    errors = [100 * fit["rmse"] for fit in fits]
    far = predictions[predictions.target == "paper"]
    low, high = far.loc[far.value.idxmin()], far.loc[far.value.idxmax()]
    return (
        f"On images drawn by code, {effects_in_short(procedural)}; on photographs, "
        f"{effects_in_short(photographs)}. All {len(errors)} laws fit the first grid to "
        f"{min(errors):.2g} to {max(errors):.2g} points. At the paper's target, "
        f"{far.rho_max.max():.2g} of the grid's own ranges beyond it, they answer from "
        f"{100 * low.value:.0f} % ({low.law}) to {100 * high.value:.0f} % ({high.law}): the claim "
        "is a choice of law and not a measurement."
    )


def write_headline(readme: Path, text: str) -> None:
    """Put the answer between its marks in a README.

    Raises: RecordError when the marks are not there.
    """
    before, begin, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise RecordError(f"{readme}: the marks {BEGIN} and {END} are missing", exit_code=2)
    write_text(readme, f"{before}{BEGIN}\n**The answer so far.** {text}\n{END}{after}")
