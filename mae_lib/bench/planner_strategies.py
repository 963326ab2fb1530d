"""Ways to spend a budget on candidate cells: the planner's, and those it is judged against."""

from collections.abc import Callable

import numpy as np

from mae_lib.bench.planner_world import World
from mae_lib.kernels.philox import Purpose, random_order
from mae_lib.scaling.knowledge import NEW_CLUSTER, Candidates, LawView
from mae_lib.scaling.next_cells import choose_cells
from mae_lib.scaling.plan import second_order

# Chooses rows of candidates from the world, the laws as fitted so far, a seed and a repeat.
Strategy = Callable[[World, list[LawView], int, int], list[int]]


def fill(world: World, order: np.ndarray) -> list[int]:
    """Take cells in an order, leaving out those that no longer fit the budget."""
    rows, left = [], world.budget
    for row in order.tolist():
        if world.costs[row] <= left:
            rows.append(row)
            left -= world.costs[row]
    return rows


def random_cells(world: World, views: list[LawView], seed: int, repeat: int) -> list[int]:
    """Take cells at random."""
    items = np.arange(len(world.costs))
    return fill(world, items[random_order(seed, Purpose.SIMULATE, items, step=2**20 + repeat)])


def largest_first(world: World, views: list[LawView], seed: int, repeat: int) -> list[int]:
    """Take the most expensive cell that still fits, again and again."""
    return fill(world, np.argsort(-world.costs, kind="stable"))


def one_factor(world: World, views: list[LawView], seed: int, repeat: int) -> list[int]:
    """Vary one factor at a time from the largest measured cell: upwards first, factors in turn."""
    cells, base = world.candidates, world.x[: world.measured].max(0)
    turns = []
    for factor in range(cells.shape[1]):
        others = np.delete(np.arange(cells.shape[1]), factor)
        axis = np.flatnonzero((cells[:, others] == base[others]).all(1))
        values = cells[axis, factor]
        up = axis[values > base[factor]][np.argsort(values[values > base[factor]])]
        down = axis[values < base[factor]][np.argsort(-values[values < base[factor]])]
        turns += [(turn, factor, row) for turn, row in enumerate([*up, *down])]
    base_row = np.flatnonzero((cells == base).all(1))
    order = [row for _, _, row in sorted(turns)]
    return fill(world, np.array([*order, *base_row]))


def planned(share: float, refute: str = "discrepancy", caution: float = 1.0) -> Strategy:
    """Return the planner with a share for refutation, cells scored one of two ways."""

    def strategy(world: World, views: list[LawView], seed: int, repeat: int) -> list[int]:
        cells = planner_cells(world)
        plan = choose_cells(views, cells, world.budget, share=share, refute=refute, caution=caution)
        return [chosen.row for chosen in plan.chosen]

    return strategy


def planner_cells(world: World) -> Candidates:
    """Return the world's candidates as the planner takes them."""
    logs = np.concatenate([world.logs, np.log(world.target)])
    measured = [*range(world.measured), len(logs) - 1]
    box = logs[measured]
    middle, half = (box.max(0) + box.min(0)) / 2, np.ptp(box, axis=0) / 2
    scaled = (logs - middle) / half
    rows, points = scaled[: world.measured], scaled[world.measured : -1]
    return Candidates(
        costs=world.costs,
        repeats=1,
        clusters=np.full(len(points), NEW_CLUSTER),
        row_clusters=np.arange(world.measured),
        terms=(second_order(rows), second_order(points), second_order(scaled[-1:])[0]),
        inside=(np.abs(points) <= 1 + 1e-9).all(1),
    )


STRATEGIES: dict[str, Strategy] = {
    "planner": planned(1 / 3),
    "planner_lack_of_fit": planned(1 / 3, "lack_of_fit"),
    "planner_no_refutation": planned(0.0),
    "planner_no_caution": planned(1 / 3, caution=0.0),
    "c_optimal": planned(0.0, caution=0.0),
    "random": random_cells,
    "one_factor": one_factor,
    "largest_first": largest_first,
}
