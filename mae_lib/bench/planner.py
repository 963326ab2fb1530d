"""Does the planner help? Strategies at equal cost on simulated truths, some outside the fitted laws.

Every repeat measures the same small cells with fresh noise, fits the laws, spends the budget by each
strategy, fits again and answers at a target beyond every candidate (`planner_answers.py`). The error
is against the truth, the coverage that of one new run at the target.
"""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from mae_lib.bench.planner_answers import ANSWERS, LEVEL, Batch, fit_designs
from mae_lib.bench.planner_strategies import STRATEGIES
from mae_lib.bench.planner_world import FACTORS, TRUTHS, UNSEEN, World, build_world, simulate
from mae_lib.errors import FitError
from mae_lib.kernels.philox import Purpose, random_words, uniform
from mae_lib.records.provenance import commit, processor, versions
from mae_lib.scaling.knowledge import LawView
from mae_lib.scaling.laws import Law, law_named

FITTED = ("log_product", "log_additive", "logit_additive", "power_product")
REPEATS = 100
RESAMPLES = 2000
REFERENCE = "random"


def bench_planner(
    *,
    truths: Sequence[str] = tuple(TRUTHS),
    strategies: Sequence[str] = tuple(STRATEGIES),
    laws: Sequence[str] = FITTED,
    repeats: int = REPEATS,
    seed: int = 0,
    budget: float | None = None,
    answer: str = "batched",
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
    if answer not in ANSWERS:
        raise FitError(f"bench planner: answer: one of {', '.join(ANSWERS)}, got {answer!r}")
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
        rows += _one_truth(world, truth, list(strategies), fitted, repeats, seed, answer)
    return {
        "format": 1,
        "repeats": repeats,
        "seed": seed,
        "budget": world.budget,
        "answer": answer,
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
    world: World,
    truth: str,
    strategies: list[str],
    laws: list[Law],
    repeats: int,
    seed: int,
    answer: str,
) -> list[dict]:
    y, new = simulate(world, truth, repeats, seed)
    exact = float(TRUTHS[truth](np.log(world.target))[0])
    first = np.zeros((repeats, len(world.x)))
    first[:, : world.measured] = 1
    starts = [fit_designs(law, world, y, first, None) for law in laws]
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
    found = ANSWERS[answer](
        world, laws, np.tile(y, (count, 1)), np.concatenate(designs), _repeated(starts, count)
    )
    parts = (found.value, found.low, found.high)
    value, low, high = (part.reshape(count, repeats) for part in parts)
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
        | _summary(value[i] - exact, high[i] - low[i], (low[i] <= new) & (new <= high[i]), seed)
        | _against(value - exact, i, strategies, seed)
        for i, name in enumerate(strategies)
    ]


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


def _summary(error: np.ndarray, width: np.ndarray, covered: np.ndarray, seed: int) -> dict:
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
        "width_median": float(np.median(width)),
        "width_median_interval": _quantiles(np.median(width[picks], axis=1)),
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
