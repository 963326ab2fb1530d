"""Does the planner help? Strategies at equal cost on simulated truths, some outside the fitted laws.

Every repeat measures the same small cells with fresh noise, fits the laws, spends the budget by each
strategy, fits again and answers at a target beyond every candidate. The answer is the stack: laws
weighted by 1 / (own held-out error)^2, those outside 0 to 1 left out, and half-width

    t sqrt(sum_k w_k (s_k^2 (1 + h_k) + (p_k - p)^2 + e_k^2)),

with e_k the error of law k, refitted without the quarter of the runs that lies furthest towards the
target, on that quarter. The error is against the truth, the coverage that of one new run there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from mae_lib.bench.planner_strategies import STRATEGIES
from mae_lib.bench.planner_world import FACTORS, TRUTHS, UNSEEN, World, build_world, simulate
from mae_lib.errors import FitError
from mae_lib.kernels.philox import Purpose, random_words, uniform
from mae_lib.records.provenance import commit, processor, versions
from mae_lib.scaling.knowledge import LawView
from mae_lib.scaling.laws import Law, law_named
from mae_lib.scaling.least_squares import refit

FITTED = ("log_product", "log_additive", "logit_additive", "power_product")
REPEATS = 100
LEVEL = 0.95
HELD_OUT = 0.25
RESAMPLES = 2000
REFERENCE = "random"


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


def bench_planner(
    *,
    truths: Sequence[str] = tuple(TRUTHS),
    strategies: Sequence[str] = tuple(STRATEGIES),
    laws: Sequence[str] = FITTED,
    repeats: int = REPEATS,
    seed: int = 0,
    budget: float | None = None,
) -> dict:
    """Return, for each truth and strategy, error, width and coverage at the target, with intervals.

    `rmse_over_random` compares with random cells of the same repeats; its verdict needs the
    bootstrap interval over repeats to exclude 1.
    Units: accuracy as a fraction; costs in the smallest cell's training.
    Raises: FitError for a truth or strategy that does not exist, or fewer than 2 repeats.
    """
    for name in truths:
        if name not in TRUTHS:
            raise FitError(f"bench planner: truth: one of {', '.join(TRUTHS)}, got {name!r}")
    for name in strategies:
        if name not in STRATEGIES:
            raise FitError(f"bench planner: strategy: one of {', '.join(STRATEGIES)}, got {name!r}")
    if repeats < 2:
        raise FitError(f"bench planner: repeats: must be 2 or more, got {repeats}")
    world = build_world() if budget is None else build_world(budget)
    if world.budget < world.costs.min():
        raise FitError(
            f"bench planner: budget: must reach the cheapest cell ({world.costs.min():g}), "
            f"got {budget:g}"
        )
    fitted = [law_named(name) for name in laws]
    rows = []
    for truth in truths:
        rows += _one_truth(world, truth, list(strategies), fitted, repeats, seed)
    return {
        "format": 1,
        "repeats": repeats,
        "seed": seed,
        "budget": world.budget,
        "laws": list(laws),
        "target": dict(zip(FACTORS, world.target[0].tolist(), strict=True)),
        "level": LEVEL,
        "rows": rows,
        "strategies": _over_truths(rows),
        "processor": processor(),
        "versions": versions(),
        "commit": commit(),
    }


def _one_truth(
    world: World, truth: str, strategies: list[str], laws: list[Law], repeats: int, seed: int
) -> list[dict]:
    y, new = simulate(world, truth, repeats, seed)
    exact = float(TRUTHS[truth](np.log(world.target))[0])
    first = np.zeros((repeats, len(world.x)))
    first[:, : world.measured] = 1
    starts = [_fit(law, world, y, first, None) for law in laws]
    views = [_views(world, starts, y, repeat) for repeat in range(repeats)]
    designs, spent, runs = [], [], []
    for name in strategies:
        chosen = [STRATEGIES[name](world, views[i], seed, i) for i in range(repeats)]
        design = first.copy()
        for i, rows in enumerate(chosen):
            design[i, world.measured + np.array(rows, int)] = 1
        designs.append(design)
        spent.append(np.mean([world.costs[rows].sum() for rows in chosen]))
        runs.append(np.mean([len(rows) for rows in chosen]))
    count = len(strategies)
    answers = _stack(
        world, laws, np.tile(y, (count, 1)), np.concatenate(designs), _repeated(starts, count)
    )
    value, half = (part.reshape(count, repeats) for part in answers)
    return [
        {
            "truth": truth,
            "among_the_laws": truth in [law.name for law in laws],
            "seen_in_design": truth not in UNSEEN,
            "strategy": name,
            "truth_at_target": exact,
            "runs": float(runs[i]),
            "spent": float(spent[i]),
        }
        | _summary(value[i] - exact, half[i], np.abs(new - value[i]) <= half[i], seed)
        | _against(value - exact, i, strategies, seed)
        for i, name in enumerate(strategies)
    ]


def _fit(
    law: Law, world: World, y: np.ndarray, design: np.ndarray, start: np.ndarray | None
) -> Batch:
    """Fit a law to each design `[B, n]` (1: the run is there) with its own responses `[B, n]`."""
    points = np.concatenate([world.logs, np.log(world.target)])
    z = points - world.logs[: world.measured].mean(0)
    # A loss law describes the error; its accuracy is one minus that.
    sign, offset = (-1.0, 1.0) if law.response == "loss" else (1.0, 0.0)
    if start is None:
        start = _first_start(law, world, y[0])
    params, converged = refit(law, z[:-1], sign * (y - offset), design, start)
    said, gradient = law.evaluate(params, z)
    return Batch(law, params, offset + sign * said, sign * gradient, converged)


def _stack(
    world: World, laws: list[Law], y: np.ndarray, design: np.ndarray, starts: list[Batch]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the stacked accuracy at the target and its half-width, each `[B]`."""
    kept, out = _held_out(world, design)
    said, variance, error = [], [], []
    for law, start in zip(laws, starts, strict=True):
        fit = _fit(law, world, y, design, start.params)
        inner = _fit(law, world, y, kept, start.params)
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
    freedom = design.sum(1) - max(law_start.params.shape[1] for law_start in starts)
    return value, stats.t.ppf(0.5 + LEVEL / 2, freedom) * np.sqrt(total)


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


def _views(world: World, fits: list[Batch], y: np.ndarray, repeat: int) -> list[LawView]:
    """Return what the planner may know: the laws as fitted to the measured cells of one repeat."""
    n, views = world.measured, []
    for fit in fits:
        left = y[repeat, :n] - fit.said[repeat, :n]
        k = fit.params.shape[1]
        views.append(
            LawView(
                name=fit.law.name,
                design=fit.gradient[repeat, :n],
                target=fit.gradient[repeat, -1],
                candidates=fit.gradient[repeat, n:-1],
                predictions=fit.said[repeat, n:-1],
                at_target=float(fit.said[repeat, -1]),
                variance=float(left @ left / (n - k)),
            )
        )
    return views


def _summary(error: np.ndarray, half: np.ndarray, covered: np.ndarray, seed: int) -> dict:
    picks = _resamples(len(error), seed)
    rmse = np.sqrt((error[picks] ** 2).mean(1))
    n, hits = len(covered), int(covered.sum())
    interval = stats.binomtest(hits, n).proportion_ci(LEVEL, method="wilson")
    return {
        "rmse": float(np.sqrt((error**2).mean())),
        "rmse_interval": _quantiles(rmse),
        "bias": float(error.mean()),
        "abs_error_median": float(np.median(np.abs(error))),
        "abs_error_median_interval": _quantiles(np.median(np.abs(error)[picks], axis=1)),
        "width_median": float(np.median(2 * half)),
        "width_median_interval": _quantiles(np.median(2 * half[picks], axis=1)),
        "coverage": hits / n,
        "coverage_interval": [float(interval.low), float(interval.high)],
    }


def _against(error: np.ndarray, i: int, strategies: list[str], seed: int) -> dict:
    """Compare with random cells in pairs of repeats: ratio of RMSE, interval, verdict."""
    if REFERENCE not in strategies or strategies[i] == REFERENCE:
        return {}
    squared = error**2
    other = squared[strategies.index(REFERENCE)]
    picks = _resamples(error.shape[1], seed)
    ratio = np.sqrt(squared[i][picks].mean(1) / other[picks].mean(1))
    low, high = _quantiles(ratio)
    verdict = "wins" if high < 1 else "loses" if low > 1 else "not settled"
    return {
        "rmse_over_random": float(np.sqrt(squared[i].mean() / other.mean())),
        "rmse_over_random_interval": [low, high],
        "verdict": verdict,
    }


def _over_truths(rows: list[dict]) -> dict[str, dict]:
    """Return for each strategy the geometric mean ratio of RMSE to random's, and its verdicts."""
    found = {}
    for name in dict.fromkeys(row["strategy"] for row in rows if "verdict" in row):
        mine = [row for row in rows if row["strategy"] == name]
        verdicts = [row["verdict"] for row in mine]
        found[name] = {
            "mean_ratio": float(np.exp(np.mean(np.log([r["rmse_over_random"] for r in mine])))),
            "worst_ratio": max(row["rmse_over_random"] for row in mine),
        } | {v: verdicts.count(v) for v in ("wins", "loses", "not settled")}
    return found


def _quantiles(values: np.ndarray) -> list[float]:
    return np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()


def _resamples(count: int, seed: int) -> np.ndarray:
    words = random_words(seed, Purpose.BOOTSTRAP, np.arange(RESAMPLES), draws=count)
    return np.floor(uniform(words) * count).astype(np.int64)


def _repeated(starts: list[Batch], count: int) -> list[Batch]:
    def tile(part: np.ndarray) -> np.ndarray:
        return np.tile(part, (count,) + (1,) * (part.ndim - 1))

    return [Batch(s.law, tile(s.params), s.said, s.gradient, tile(s.converged)) for s in starts]


def _first_start(law: Law, world: World, y: np.ndarray) -> np.ndarray:
    """Search from many starts on one repeat, as `mae fit` does; the others start from there."""
    import pandas as pd

    from mae_lib.scaling.fit import fit_law
    from mae_lib.scaling.table import check_table

    frame = pd.DataFrame(world.x[: world.measured], columns=list(FACTORS))
    frame["accuracy"] = np.clip(y[: world.measured], 0, 1)
    table = check_table(frame, response="accuracy", factors=FACTORS)
    centre = world.logs[: world.measured].mean(0)
    return fit_law(table, law.name, bootstrap=10, centre=centre).params
