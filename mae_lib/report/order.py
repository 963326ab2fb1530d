"""In which order a study's cells are measured, so that any prefix is a useful design."""

import numpy as np

from mae_lib.cost import cost_of
from mae_lib.devices import cell_seconds
from mae_lib.records.plan_file import MeasuringPlan, PlannedCell
from mae_lib.study.definition import Cell, Study

ORDER_RULE = (
    "greedy D-optimality per planned second: the next cell is the one that adds most to the "
    "log-determinant of the information on a second-order surface in ln images, ln parameters and "
    "ln resolution, divided by its planned seconds; a repeat by seed gains what is left; the "
    "largest cells come last, by the same rule"
)
LARGEST_RULE = (
    "the most images of the study, and an encoder of at least half the parameters of its largest"
)
# What is believed of a coefficient before any run, in units of a run's noise: enough to begin with.
_PRIOR_VARIANCE = 100.0


def measuring_plan(study: Study) -> MeasuringPlan:
    """Return the order of a study's cells, each with its digest and planned seconds."""
    largest = {cell.id for cell in largest_of(study.cells)}
    small = [cell for cell in study.cells if cell.id not in largest]
    big = [cell for cell in study.cells if cell.id in largest]
    terms = dict(zip((c.id for c in study.cells), _terms(study.cells), strict=True))
    information = np.eye(next(iter(terms.values())).size) / _PRIOR_VARIANCE
    ordered = []
    for group in (small, big):
        taken, information = _greedy(group, terms, information)
        ordered += taken
    return MeasuringPlan(
        study=study.name,
        order_rule=ORDER_RULE,
        largest_rule=LARGEST_RULE,
        cells=tuple(
            PlannedCell(c.id, c.digest, round(cell_seconds(c), 2), c.id in largest) for c in ordered
        ),
    )


def largest_of(cells: tuple[Cell, ...]) -> tuple[Cell, ...]:
    """Return the cells that are predicted before they are measured (LARGEST_RULE)."""
    params = {cell.id: cost_of(cell).params_encoder for cell in cells}
    most_images, most_params = max(cell.images for cell in cells), max(params.values())
    return tuple(c for c in cells if c.images == most_images and 2 * params[c.id] >= most_params)


def _greedy(
    cells: list[Cell], terms: dict[str, np.ndarray], information: np.ndarray
) -> tuple[list[Cell], np.ndarray]:
    """Order cells by gain per second; ties go to the earlier in the study."""
    left, taken = list(cells), []
    seconds = {cell.id: cell_seconds(cell) for cell in cells}
    while left:
        covariance = np.linalg.inv(information)
        gains = [np.log1p(terms[c.id] @ covariance @ terms[c.id]) / seconds[c.id] for c in left]
        # Rounded, so that another machine's last bits do not turn a tie.
        chosen = left.pop(int(np.argmax(np.round(gains, 9))))
        information = information + np.outer(terms[chosen.id], terms[chosen.id])
        taken.append(chosen)
    return taken, information


def _terms(cells: tuple[Cell, ...]) -> np.ndarray:
    """Return 1, the factors, their squares and products, scaled to -1 to 1 in logs: `[n, 10]`."""
    raw = [(c.images, cost_of(c).params_encoder, c.resolution) for c in cells]
    logs = np.log(np.array(raw, np.float64))
    low, high = logs.min(0), logs.max(0)
    x = 2 * (logs - low) / np.maximum(high - low, 1e-12) - 1
    first, second = np.triu_indices(x.shape[1])
    return np.column_stack([np.ones(len(x)), x, x[:, first] * x[:, second]])
