"""The predictions that the planner's benchmark scores: fits of many designs at once, stacked.

`batched` weighs laws by 1 / (own held-out error)^2, leaves out those outside 0 to 1, and has the
half-width

    t sqrt(sum_k w_k (s_k^2 (1 + h_k) + (p_k - p)^2 + e_k^2)),

with e_k the error of law k, refitted without the quarter of the runs that lies furthest towards the
target, on that quarter: ten thousand designs a minute. `engine` is the stack that `mae predict`
answers with (scaling/stack.py), one design after the other.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from mae_lib.bench.planner_world import FACTORS, World
from mae_lib.scaling.fit import fit_law
from mae_lib.scaling.law import Design, Law
from mae_lib.scaling.least_squares import refit
from mae_lib.scaling.table import Table, check_table

LEVEL = 0.95
HELD_OUT = 0.25


@dataclass(frozen=True)
class Batch:
    """One law fitted to many designs: accuracies and gradients of all rows and the target last.

    `params` `[B, k]`, `said` `[B, n + 1]`, `gradient` `[B, n + 1, k]`, `converged` `[B]`.
    """

    law: Law
    params: np.ndarray
    said: np.ndarray
    gradient: np.ndarray
    converged: np.ndarray


@dataclass(frozen=True)
class Answers:
    """What is predicted at the target from each design: accuracies and interval ends, each `[B]`."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def fit_designs(
    law: Law, world: World, y: np.ndarray, design: np.ndarray, start: np.ndarray | None
) -> Batch:
    """Fit a law to each design `[B, n]` (1: the run is there) with its own responses `[B, n]`."""
    points = np.concatenate([world.logs, np.log(world.target)])
    z = points - world.logs[: world.measured].mean(0)
    # A loss law describes the error; its accuracy is one minus that.
    sign, offset = (-1.0, 1.0) if law.response == "loss" else (1.0, 0.0)
    if start is None:
        start = _first_start(law, world, y[0])
    limits = None
    if law.limits:
        limits = law.bounds(Design(FACTORS, z[:-1], sign * (y[0] - offset), "error"))
    params, converged = refit(law, z[:-1], sign * (y - offset), design, start, bounds=limits)
    said, gradient = law.evaluate(params, z)
    return Batch(law, params, offset + sign * said, sign * gradient, converged)


def batched(
    world: World, laws: list[Law], y: np.ndarray, design: np.ndarray, starts: list[Batch]
) -> Answers:
    """Answer from every design at once; `starts` are the fits to the measured cells, `[B]` too."""
    kept, out = _held_out(world, design)
    said, variance, error = [], [], []
    for law, start in zip(laws, starts, strict=True):
        fit = fit_designs(law, world, y, design, start.params)
        inner = fit_designs(law, world, y, kept, start.params)
        k = fit.params.shape[1]
        left = (design * (y - fit.said[:, :-1]) ** 2).sum(1) / (design.sum(1) - k)
        missed = (out * (y - inner.said[:, :-1]) ** 2).sum(1) / out.sum(1)
        h = _leverage(fit.gradient[:, :-1], design, fit.gradient[:, -1])
        usable = fit.converged & inner.converged & (fit.said[:, -1] >= 0) & (fit.said[:, -1] <= 1)
        said.append(np.where(usable, fit.said[:, -1], np.nan))
        variance.append(left * (1 + h))
        error.append(np.maximum(missed, left))
    said, variance, error = map(np.array, (said, variance, error))
    usable = np.isfinite(said)
    weights = np.where(usable, 1 / error, 0)
    weights /= weights.sum(0)
    value = (weights * np.where(usable, said, 0)).sum(0)
    parts = variance + (np.where(usable, said, 0) - value) ** 2 + error
    total = (weights * np.where(usable, parts, 0)).sum(0)
    freedom = design.sum(1) - max(start.params.shape[1] for start in starts)
    half = stats.t.ppf(0.5 + LEVEL / 2, freedom) * np.sqrt(total)
    return Answers(value, value - half, value + half)


def engine(
    world: World, laws: list[Law], y: np.ndarray, design: np.ndarray, starts: list[Batch]
) -> Answers:
    """Answer from each design as `mae predict` does, with its own laws."""
    from mae_lib.scaling.frontier import direction, position
    from mae_lib.scaling.stack import quantile_at, stack_at

    ends = []
    for responses, there in zip(y, design > 0, strict=True):
        table = _table(world.x[there], responses[there])
        along = position(table, direction(table, world.target[0]))
        found = stack_at(table, world.target, along)
        reach = quantile_at(table, LEVEL)[0] * found.deviation[0]
        ends.append(1 - np.exp(found.centre[0] + np.array([0.0, reach, -reach])))
    return Answers(*np.array(ends).T)


ANSWERS: dict[str, Callable[..., Answers]] = {"batched": batched, "engine": engine}


def _held_out(world: World, design: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split each design: what stays, and the quarter of its runs furthest towards the target."""
    logs = world.logs
    spread = np.ptp(logs[: world.measured], axis=0)
    towards = (np.log(world.target[0]) - logs[: world.measured].mean(0)) / spread
    along = (logs / spread) @ towards
    order = np.argsort(np.where(design > 0, -along, np.inf), axis=1, kind="stable")
    rank = np.argsort(order, axis=1, kind="stable")
    out = design * (rank < np.ceil(HELD_OUT * design.sum(1))[:, None])
    return design - out, out


def _leverage(gradient: np.ndarray, design: np.ndarray, target: np.ndarray) -> np.ndarray:
    normal = np.einsum("bni,bn,bnj->bij", gradient, design, gradient, optimize=True)
    solved = np.linalg.pinv(normal, hermitian=True) @ target[..., None]
    return (target * solved[..., 0]).sum(1)


def _first_start(law: Law, world: World, y: np.ndarray) -> np.ndarray:
    """Search from many starts on one repeat, as `mae fit` does; the others start from there."""
    table = _table(world.x[: world.measured], y[: world.measured])
    centre = world.logs[: world.measured].mean(0)
    return fit_law(table, law.name, bootstrap=0, centre=centre).params


def _table(x: np.ndarray, y: np.ndarray) -> Table:
    # Two runs of one cell may both score 0, which a table of real runs would not let through.
    frame = pd.DataFrame(x, columns=list(FACTORS)).assign(accuracy=np.clip(y, 0, 1))
    return check_table(
        frame, response="accuracy", factors=FACTORS, kind="accuracy", allow_repeats=True
    )
