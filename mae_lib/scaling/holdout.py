"""Leave out the top cells and predict them: how far each law, the best by AICc and the stack err.

A split is a weight vector with zeros: every law is refitted to all splits in one batch. Intervals of a
single law are those it gives when it is taken for true, y +- t s sqrt(1 + h) with t of n - k degrees of
freedom; those of the stack are its own (stack.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from mae_lib.errors import FitError
from mae_lib.scaling.fit import Fit
from mae_lib.scaling.frontier import SAME, beyond, ranges, top_rows
from mae_lib.scaling.least_squares import refit
from mae_lib.scaling.objectives import objective_named
from mae_lib.scaling.predict import response_of
from mae_lib.scaling.stack import SCHEME, Scheme, quantile_at, stack_at
from mae_lib.scaling.table import Table

SHARES = (0.25,)
LEVELS = (0.5, 0.8, 0.95)
# The interval score is taken at this level: full width + 2 / (1 - level) x what lies outside.
SCORED = 0.95
# Edges of the bins of rho that errors are summed in.
RHO_EDGES = (0.0, 0.1, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Split:
    """Runs left out: `test` `[n]` bool, the top `share` along `along` `[n]`."""

    by: str
    share: float
    test: np.ndarray
    along: np.ndarray


@dataclass(frozen=True)
class Answers:
    """What a method says of a split's p left-out runs: values, and half-widths or ends by level.

    All in the table's own unit; `low` and `high` are `[levels, p]`.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def splits_of(
    table: Table,
    *,
    shares: Sequence[float] = SHARES,
    compute: np.ndarray | None = None,
    corner: bool = True,
) -> tuple[list[Split], list[str]]:
    """Return splits by each factor, by compute and by the corner, and a line for each not possible.

    `compute` `[n]` defaults to the column that plays that role, else to the product of the factors.
    The corner is where all factors are large: a run's place is that of its least advanced factor.
    Splits that leave out the same runs are one, named after both.
    Raises: FitError for a share that is not between 0 and 1.
    """
    for share in shares:
        if not 0 < share < 1:
            raise FitError(f"share: must lie between 0 and 1, got {share!r}")
    found: dict[bytes, Split] = {}
    skipped = []
    for by, along in _directions(table, compute, corner).items():
        for share in shares:
            test = top_rows(along, np.ones(len(along), bool), share)
            if reason := _refused(table, test):
                skipped.append(f"top {share:.0%} by {by}: {reason}")
                continue
            key = test.tobytes()
            if key in found:
                found[key] = replace(found[key], by=f"{found[key].by}, {by}")
            else:
                found[key] = Split(by, share, test, along)
    return list(found.values()), skipped


def hold_out(
    table: Table,
    fits: Sequence[Fit],
    *,
    shares: Sequence[float] = SHARES,
    compute: np.ndarray | None = None,
    scheme: Scheme = SCHEME,
) -> dict:
    """Return `splits` and `summary`, an object by method: each law, `best_aicc` and `stacked`.

    Of a fit only law, objective and parameters (as the place to start from) are used. Bias is
    observed - predicted. Averages: runs, then splits, equally. `rho` bins hold mean absolute errors.
    Raises: FitError when no split is possible.
    """
    splits, skipped = splits_of(table, shares=shares, compute=compute)
    if not splits:
        more = f": {skipped[0]}" if skipped else ""
        raise FitError(f"{table.name}: holdout: no split leaves enough runs to fit{more}")
    answers: dict[str, list[Answers | None]] = {}
    criteria: dict[str, np.ndarray] = {}
    for fit in fits:
        answers[fit.law.name], criteria[fit.law.name] = law_answers(fit, splits)
    answers["best_aicc"] = _best(answers, criteria, len(splits))
    answers["stacked"] = [stacked_answers(table, split, scheme) for split in splits]
    observed = table.y * table.scale
    rho = [_rho(table, split) for split in splits]
    return {
        "format": 1,
        "response": table.response,
        "unit": "as in the table" if table.kind == "loss" else _unit(table),
        "splits": [
            _split_json(split, far, {name: found[i] for name, found in answers.items()}, observed)
            for i, (split, far) in enumerate(zip(splits, rho, strict=True))
        ],
        "summary": {
            name: _summary(found, splits, rho, observed) for name, found in answers.items()
        },
        "skipped": skipped,
    }


def law_answers(fit: Fit, splits: Sequence[Split]) -> tuple[list[Answers | None], np.ndarray]:
    """Refit one law without each split's runs, all at once; return its answers and AICc by split.

    The fit to all runs is only where the search starts. A refit that fails, or has no degree of
    freedom left, gives None and an infinite AICc.
    """
    table, law, z = fit.table, fit.law, fit.z
    objective = objective_named(fit.objective, float(fit.options.get("delta", 1e-3)))
    y = 1 - table.y if fit.flips else table.y
    weights = np.array([~split.test for split in splits], np.float64)
    bounds = law.limits and (law.limits(_design(fit, y)))
    params, settled = refit(
        law, z, y, weights, fit.params, objective=objective, bounds=bounds or None
    )
    found: list[Answers | None] = []
    scores = np.full(len(splits), np.inf)
    for i, split in enumerate(splits):
        train, k = ~split.test, fit.k
        free = int(train.sum()) - k
        with np.errstate(all="ignore"):
            value, jacobian = objective.scaled(*law.evaluate(params[i], z))
        miss = (objective.target(y) - value)[train]
        if not (settled[i] and free >= 1 and np.isfinite(value).all()):
            found.append(None)
            continue
        variance = float((miss**2).sum()) / free
        inner = jacobian[train]
        information = np.linalg.pinv(inner.T @ inner, rcond=1e-12)
        there = jacobian[split.test]
        leverage = np.einsum("pi,ij,pj->p", there, information, there)
        deviation = np.sqrt(variance * (1 + leverage))
        reach = stats.t.ppf(0.5 + np.array(LEVELS) / 2, free)[:, None]
        at = value[split.test]
        found.append(_answers(fit, objective.in_logs, at, reach * deviation))
        scores[i] = _aicc(variance * free, int(train.sum()), k)
    return found, scores


def stacked_answers(table: Table, split: Split, scheme: Scheme = SCHEME) -> Answers | None:
    """Return the stack's answers on a split; it sees the runs that were kept and no others."""
    kept = table_of(table, ~split.test)
    try:
        found = stack_at(kept, table.x[split.test], split.along[~split.test], scheme=scheme)
    except FitError:
        return None
    reach = np.array([quantile_at(kept, level)[0] for level in LEVELS])[:, None]
    ends = [response_of(table, found.centre + sign * reach * found.deviation) for sign in (-1, 1)]
    value = response_of(table, found.centre)
    return (
        Answers(value, np.minimum(*ends), np.maximum(*ends)) if np.isfinite(value).all() else None
    )


def table_of(table: Table, rows: np.ndarray) -> Table:
    """Return a table of some of its rows `[n]` bool."""
    return replace(table, frame=table.frame[rows].reset_index(drop=True))


def _directions(table: Table, compute: np.ndarray | None, corner: bool) -> dict[str, np.ndarray]:
    logs = table.logs
    found = {name: logs[:, j] for j, name in enumerate(table.factors)}
    role = table.roles.get("compute")
    if compute is not None:
        found["compute"] = np.log(compute)
    elif role and role in table.frame:
        found["compute"] = np.log(table.frame[role].to_numpy(np.float64))
    elif len(table.factors) > 1:
        found["compute (product of the factors)"] = logs.sum(1)
    if corner and len(table.factors) > 1:
        found["corner"] = ((logs - logs.min(0)) / ranges(logs)).min(1)
    return found


def _refused(table: Table, test: np.ndarray) -> str | None:
    train = ~test
    need = len(table.factors) + 3
    if train.sum() < need:
        return f"{int(train.sum())} runs are left, {need} are needed"
    fixed = np.ptp(table.logs[train], axis=0) <= SAME
    if fixed.any():
        return f"{table.factors[int(np.argmax(fixed))]} would not vary any more"
    return None


def _design(fit: Fit, y: np.ndarray):
    from mae_lib.scaling.law import Design

    kind = (
        {"accuracy": "error", "error": "accuracy"}[fit.table.kind] if fit.flips else fit.table.kind
    )
    return Design(fit.factors, fit.z, y, kind, float(fit.options.get("chance", 0.0)))


def _answers(fit: Fit, in_logs: bool, at: np.ndarray, half: np.ndarray) -> Answers:
    """Turn values and half-widths on the objective's scale into the table's unit."""
    ends = np.stack([at - half, at + half])
    if in_logs:
        at, ends = np.exp(at), np.exp(ends)
    if fit.flips:
        at, ends = 1 - at, 1 - ends
    ends = np.sort(ends, axis=0) * fit.table.scale
    return Answers(at * fit.table.scale, ends[0], ends[1])


def _best(
    answers: dict[str, list[Answers | None]], criteria: dict[str, np.ndarray], count: int
) -> list[Answers | None]:
    names = list(criteria)
    if not names:
        return [None] * count
    table = np.array([criteria[name] for name in names])
    return [answers[names[int(table[:, i].argmin())]][i] for i in range(count)]


def _aicc(sse: float, n: int, k: int) -> float:
    count = k + 1
    if n - count - 1 <= 0:
        return float("inf")
    return n * np.log(max(sse, 1e-300) / n) + 2 * count + 2 * count * (count + 1) / (n - count - 1)


def _rho(table: Table, split: Split) -> np.ndarray:
    """Return how far each left-out run lies beyond the kept ones, `[p]`."""
    return beyond(table_of(table, ~split.test), table.x[split.test]).max(1)


def _scores(answer: Answers, truth: np.ndarray) -> dict[str, np.ndarray]:
    place = LEVELS.index(SCORED)
    low, high = answer.low, answer.high
    outside = np.maximum(low[place] - truth, 0) + np.maximum(truth - high[place], 0)
    return {
        "miss": truth - answer.value,
        "covered": (low <= truth) & (truth <= high),
        "score": high[place] - low[place] + 2 / (1 - SCORED) * outside,
    }


def _split_json(
    split: Split, rho: np.ndarray, answers: dict[str, Answers | None], observed: np.ndarray
) -> dict:
    methods = {}
    for name, answer in answers.items():
        if answer is None:
            methods[name] = None
            continue
        found = _scores(answer, observed[split.test])
        covered = found["covered"].mean(1).tolist()
        methods[name] = {
            "rmse": float(np.sqrt((found["miss"] ** 2).mean())),
            "bias": float(found["miss"].mean()),
            "coverage": dict(zip(map(str, LEVELS), covered, strict=True)),
            "interval_score": float(found["score"].mean()),
        }
    return {
        "by": split.by, "share": split.share, "rows": len(split.test),
        "test": int(split.test.sum()), "rho_max": float(rho.max()), "methods": methods,
    }  # fmt: skip


def _summary(
    answers: list[Answers | None], splits: list[Split], rho: list[np.ndarray], observed: np.ndarray
) -> dict:
    """Average over the splits that the method could answer."""
    scored = [
        (_scores(answer, observed[split.test]), far)
        for answer, split, far in zip(answers, splits, rho, strict=True)
        if answer is not None
    ]
    if not scored:
        nothing = dict.fromkeys(("rmse", "bias", "mae", "interval_score"))
        return {"splits": 0, "coverage": dict.fromkeys(map(str, LEVELS)), **nothing, "by_rho": []}

    def mean(of: Callable[[dict], float]) -> float:
        return float(np.mean([of(found) for found, _ in scored]))

    covered = np.mean([found["covered"].mean(1) for found, _ in scored], axis=0)
    return {
        "splits": len(scored),
        "coverage": dict(zip(map(str, LEVELS), covered.tolist(), strict=True)),
        "interval_score": mean(lambda f: f["score"].mean()),
        "rmse": float(np.sqrt(mean(lambda f: (f["miss"] ** 2).mean()))),
        "bias": mean(lambda f: f["miss"].mean()),
        "mae": mean(lambda f: np.abs(f["miss"]).mean()),
        "by_rho": _by_rho(scored),
    }


def _by_rho(scored: list[tuple[dict, np.ndarray]]) -> list[dict]:
    """Return mean absolute error, bias and coverage in bins of rho."""
    far = np.concatenate([rho for _, rho in scored])
    miss = np.concatenate([found["miss"] for found, _ in scored])
    covered = np.concatenate([found["covered"][LEVELS.index(SCORED)] for found, _ in scored])
    bins = []
    for low, high in zip(RHO_EDGES, (*RHO_EDGES[1:], np.inf), strict=True):
        inside = (far > low if low > 0 else far >= 0) & (far <= high)
        if inside.any():
            bins.append({
                "rho": [low, high if np.isfinite(high) else None], "runs": int(inside.sum()),
                "mae": float(np.abs(miss[inside]).mean()), "bias": float(miss[inside].mean()),
                "coverage": float(covered[inside].mean()),
            })  # fmt: skip
    return bins


def _unit(table: Table) -> str:
    return "percent" if table.scale == 100 else "fraction"
