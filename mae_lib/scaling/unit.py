"""What a response is (accuracy, error or loss) and whether it is in percent; said, never silent."""

import re
from collections.abc import Callable

import numpy as np

from mae_lib.errors import FitError

KINDS = ("accuracy", "error", "loss")
UNITS = ("percent", "fraction")
# Words in a column's name, in the order in which they are looked for.
_WORDS = {
    "loss": ("loss", "perplexity", "ppl", "nats", "bits", "nll", "entropy", "bpb", "bpc"),
    "error": ("err",),
    "accuracy": ("acc", "top", "recall", "precision", "auc", "iou", "map", "score", "r1", "r5"),
}
# A maximum above this is no fraction.
_FRACTION_LIMIT = 1.5


def kind_of(response: str, kind: str | None) -> tuple[str, str | None]:
    """Return what a response is, and a note unless it was given."""
    if kind is not None:
        return kind, None
    for found, words in _WORDS.items():
        for word in words:
            if re.search(rf"(^|[^a-z]){word}", response.lower()) or (
                len(word) > 4 and word in response.lower()
            ):
                return found, f"{response}: taken as {_article(found)}, because of its name"
    return "accuracy", (
        f"{response}: taken as an accuracy, its name does not say; "
        "give kind (accuracy, error or loss) if it is not"
    )


def unit_of(
    y: np.ndarray,
    kind: str,
    unit: str | None,
    logs: np.ndarray,
    where: Callable[[int], str],
) -> tuple[float, str | None]:
    """Return what the response is divided by (100 for percent), and a note unless it was given.

    Raises: FitError naming the row of a value outside its range, or of one that is in the other
    unit than the rest.
    """
    column = where(0).rsplit(": row", 1)[0]
    if unit not in (None, *UNITS):
        raise FitError(f"{column}: unit: one of {', '.join(UNITS)}, got {unit!r}")
    if kind == "loss":
        if unit:
            raise FitError(f"{column}: unit: a loss has its own unit, got {unit!r}; leave it out")
        if y.min() <= 0:
            row = int(np.argmax(y <= 0))
            raise FitError(f"{where(row)}: a loss must be above 0, got {y[row]:g}")
        return 1.0, None
    percent = unit == "percent" or (unit is None and y.max() > _FRACTION_LIMIT)
    scale = 100.0 if percent else 1.0
    if y.min() < 0 or y.max() > scale:
        row = int(np.argmax((y < 0) | (y > scale)))
        hint = "; if it is a loss, give kind: loss" if y.max() > scale else ""
        said = f"as {UNITS[not percent]} {_article(kind)} lies in 0 to {scale:g}"
        raise FitError(f"{where(row)}: {said}, got {y[row]:g}{hint}")
    if percent and unit is None and (low := _other_unit(y, logs)).any():
        row = int(np.argmax(low))
        raise FitError(
            f"{where(row)}: {y[row]:g} looks like a fraction among percents (the largest is "
            f"{y.max():g}, {int(low.sum())} rows of {len(y)} are at most 1); write one unit, or "
            "give unit: percent if the values are right"
        )
    if unit is not None:
        return scale, None
    note = (
        f"{column.split(': ')[-1]}: read as {UNITS[not percent]}, its largest value is {y.max():g}"
    )
    if percent and (small := int((y <= 1).sum())):
        note += f"; {small} values at most 1 are read as percent too"
    return scale, note


def _other_unit(y: np.ndarray, logs: np.ndarray) -> np.ndarray:
    """Mark values at most 1 among percents that would fit in far better as fractions, `[n]`.

    Either they stand a factor 10 apart from the rest and fall among it when multiplied by 100, or
    straight lines in the factors leave four times less log scatter once they are multiplied.
    """
    low = y <= 1
    if not low.any() or low.all() or y.min() <= 0:
        return np.zeros(len(y), bool)
    high, raised = y[~low], np.where(low, 100 * y, y)
    near = (100 * y[low] >= high.min() / 2).all() and (100 * y[low] <= 2 * high.max()).all()
    if high.min() >= 10 * y[low].max() and near:
        return low
    design = np.column_stack([np.ones(len(y)), logs])
    if len(y) > design.shape[1] + 2 and _scatter(design, y) > 4 * _scatter(design, raised):
        return low
    return np.zeros(len(y), bool)


def _scatter(design: np.ndarray, y: np.ndarray) -> float:
    logs = np.log(y)
    return float(((logs - design @ np.linalg.lstsq(design, logs, rcond=None)[0]) ** 2).sum())


def _article(kind: str) -> str:
    return {"accuracy": "an accuracy", "error": "an error", "loss": "a loss"}[kind]
