"""Plan the next runs: from fits, a target, candidate cells with costs and a budget to a list.

The algebra is in `knowledge.py`. Under each law a cell's worth is how much of the prediction's
variance at the target one run there takes away, per cost; a third of the budget goes to cells that
can show a law to be wrong (`refuters.py`), because a design that is best under a law cannot test
it. Widths are of the law's mean, 2 t s sqrt(h), given that the law is true: between-law spread and
held-out error are not in them, and only the refuting cells can shrink those.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import stats

from mae_lib.errors import FitError
from mae_lib.scaling.fit import Fit
from mae_lib.scaling.knowledge import (
    NEW_CLUSTER,
    Candidates,
    LawView,
    estimable,
    spread_at_target,
)
from mae_lib.scaling.next_cells import Plan, choose_cells
from mae_lib.scaling.refuters import REFUTERS
from mae_lib.scaling.table import Table

SHARE = 1 / 3
# A cluster's correlation is kept below one: a second run in a cluster always tells something.
LARGEST_CORRELATION = 0.95


def plan_runs(
    fits: Sequence[Fit],
    at: Mapping[str, float | int],
    candidates: pd.DataFrame,
    budget: float | int,
    *,
    share: float = SHARE,
    refute: str = "discrepancy",
    caution: float = 1.0,
    weights: Mapping[str, float] | None = None,
    repeats: int = 1,
    level: float = 0.95,
    name: str = "candidates",
    first_row: int = 2,
) -> dict:
    """Choose the cells that most narrow the prediction at `at`, and cells that can refute a law.

    `candidates` has the table's factors, a column `cost` (any unit, the budget's) and, where the
    table names clusters, that column if runs will share data with others; each row may be run
    `repeats` times. `weights` are the laws' (equal where not given); `caution` is how far each law
    doubts its form, in units of the spread between laws at the target. With a single law there is
    no such spread: it trusts itself, and curvature inside the design is what can refute it.
    Laws that cannot plan here (no value at a candidate, an accuracy outside 0 to 1 at the target,
    no residual freedom) are left out and named. `name` and `first_row` are the candidates' file and
    the number a person sees beside its first row; the frame's own integer index counts from it.
    Units: widths and predictions as the table's response after scaling (fractions), gains in units
    of each law's residual variance, `share_of_variance` the laws' mean of gain over h before any.
    Raises: FitError naming column and row of a candidate, or the field, that cannot be used.
    """
    table = _one_table(fits)
    _check_target(table, at)
    numbers = row_numbers(candidates, first_row)
    x, costs, clusters = check_candidates(table, candidates, name=name, numbers=numbers)
    _check_options(budget, costs, numbers, refute, repeats)
    _check_range("share", share, 1.0)
    _check_range("caution", caution, np.inf)
    target = np.array([[float(at[f]) for f in table.factors]])
    views, left_out = _views(fits, x, target)
    refute = refute if len(views) > 1 else "lack_of_fit"
    views, weights = _weighted(views, weights)
    cells = _cells(table, x, costs, clusters, target, repeats)
    plan = choose_cells(views, cells, float(budget), share=share, refute=refute, caution=caution)
    return {
        "format": 1,
        "at": {f: float(at[f]) for f in table.factors},
        "budget": float(budget),
        "spent": plan.cost(),
        "spent_on_refutation": plan.cost("refute"),
        "refutation_share": share,
        "refute_by": refute,
        "caution": caution,
        "laws": [v.name for v in views],
        "left_out": left_out,
        "weights": weights,
        "chosen": _chosen_rows(plan, table, candidates, numbers),
        "expected_width": _widths(plan, views, level),
        "level": level,
        "predictions": {v.name: v.at_target for v in views},
        "between_law_sd": float(np.sqrt(spread_at_target(views))),
        "aliased": {
            fit.law.name: fit.identifiability["null_directions"]
            for fit in fits
            if fit.identifiability["null_directions"] and fit.law.name not in left_out
        },
        "correlation_in_clusters": {v.name: v.correlation for v in views},
        "notes": _notes(plan, views, budget, share),
    }


def law_view(fit: Fit, x: np.ndarray, target: np.ndarray) -> LawView:
    """Return a fit as the planner's arrays, for candidates `x` `[p, m]` and a target `[1, m]`.

    Raises: FitError when the law cannot plan here; least squares on the response is needed, whose
    residual variance is the unit.
    """
    name = fit.law.name
    if fit.objective != "ls":
        raise FitError(f"{name}: objective: a fit with ls is needed, got {fit.objective!r}")
    if fit.n <= fit.k:
        raise FitError(f"{name}: {fit.k} parameters leave no scatter of {fit.n} rows to plan by")
    said, gradient = fit.predict(x), fit.gradient(x)
    aim, towards = float(fit.predict(target)[0]), fit.gradient(target)[0]
    if not np.isfinite([*said, aim, *gradient.ravel(), *towards]).all():
        raise FitError(f"{name}: has no value at a candidate or at the target")
    if fit.table.kind != "loss" and not 0 <= aim <= 1:
        raise FitError(f"{name}: says {aim:.3g} at the target, outside 0 to 1")
    # Noise-free tables: the unit must not vanish.
    floor = (1e-9 * max(float(np.abs(fit.table.y).max()), 1e-300)) ** 2
    return LawView(
        name=name,
        design=fit.gradient(fit.table.x),
        target=towards,
        candidates=gradient,
        predictions=said,
        at_target=aim,
        variance=max(fit.sse / (fit.n - fit.k), floor),
        correlation=_correlation(fit),
    )


def row_numbers(frame: pd.DataFrame, first_row: int) -> np.ndarray:
    """Return the number that a person sees beside each row of the file."""
    plain = pd.api.types.is_integer_dtype(frame.index)
    return (frame.index.to_numpy() if plain else np.arange(len(frame))) + first_row


def check_candidates(
    table: Table,
    frame: pd.DataFrame,
    *,
    name: str = "candidates",
    numbers: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, list[str] | None]:
    """Return factors `[p, m]`, costs `[p]` and cluster names of candidates.

    Raises: FitError naming column and row of the first value that cannot be used.
    """
    numbers = row_numbers(frame, 2) if numbers is None else numbers
    for column in (*table.factors, "cost"):
        if column not in frame.columns:
            known = ", ".join(map(str, frame.columns))
            raise FitError(f"{name}: no column {column!r}; it has {known}")
    if not len(frame):
        raise FitError(f"{name}: at least 1 row is needed, got 0")
    columns = []
    for column in (*table.factors, "cost"):
        values = pd.to_numeric(frame[column], errors="coerce").to_numpy(np.float64)
        if (bad := ~(np.isfinite(values) & (values > 0))).any():
            row, got = numbers[bad][0], frame[column][bad].iloc[0]
            got = got.item() if hasattr(got, "item") else got
            raise FitError(f"{name}: {column}: row {row}: must be a number above 0, got {got!r}")
        columns.append(values)
    named = table.clusters and table.clusters in frame.columns
    clusters = [str(v) for v in frame[table.clusters]] if named else None
    return np.stack(columns[:-1], 1), columns[-1], clusters


def _views(
    fits: Sequence[Fit], x: np.ndarray, target: np.ndarray
) -> tuple[list[LawView], dict[str, str]]:
    views, left_out = [], {}
    for fit in fits:
        try:
            views.append(law_view(fit, x, target))
        except FitError as error:
            left_out[fit.law.name] = str(error)
    if not views:
        raise FitError(f"plan: no law can plan here: {next(iter(left_out.values()))}")
    return views, left_out


def _one_table(fits: Sequence[Fit]) -> Table:
    if not fits:
        raise FitError("plan: laws: at least one fitted law is needed, got none")
    return fits[0].table


def _check_target(table: Table, at: Mapping[str, float | int]) -> None:
    for factor in table.factors:
        if factor not in at:
            given = ", ".join(at) or "nothing"
            raise FitError(f"at: {factor}: the target lacks this factor, got {given}")
        value = at[factor]
        if not (np.isfinite(value) and value > 0):
            raise FitError(f"at: {factor}: must be a number above 0, got {value!r}")
    if unknown := [name for name in at if name not in table.factors]:
        known = ", ".join(table.factors)
        raise FitError(f"at: {unknown[0]}: no such factor; the table has {known}")


def _check_range(name: str, value: float, most: float) -> None:
    if not 0 <= value <= most or value == np.inf:
        raise FitError(
            f"{name}: must be a number from 0{f' to {most:g}' * (most < 9)}, got {value:g}"
        )


def _check_options(
    budget: float, costs: np.ndarray, numbers: np.ndarray, refute: str, repeats: int
) -> None:
    if not budget >= costs.min() or not np.isfinite(budget):
        row = int(costs.argmin())
        raise FitError(
            f"budget: must reach the cheapest candidate (row {numbers[row]}, cost {costs[row]:g}), "
            f"got {budget:g}"
        )
    if refute not in REFUTERS:
        raise FitError(f"refute: one of {', '.join(REFUTERS)}, got {refute!r}")
    if repeats < 1:
        raise FitError(f"repeats: must be 1 or more, got {repeats}")


def _weighted(
    views: list[LawView], weights: Mapping[str, float] | None
) -> tuple[list[LawView], dict[str, float]]:
    given = {v.name: 1.0 if weights is None else float(weights.get(v.name, 0.0)) for v in views}
    total = sum(given.values())
    if not (total > 0 and min(given.values()) >= 0):
        raise FitError(f"weights: must be 0 or more and not all 0, got {given}")
    shares = {name: value / total for name, value in given.items()}
    return [replace(v, weight=shares[v.name]) for v in views], shares


def _cells(
    table: Table,
    x: np.ndarray,
    costs: np.ndarray,
    clusters: list[str] | None,
    target: np.ndarray,
    repeats: int,
) -> Candidates:
    logs, points = table.logs, np.log(x)
    box = np.vstack([logs, np.log(target)])
    middle, half = (box.max(0) + box.min(0)) / 2, np.ptp(box, axis=0) / 2
    rows, scaled, aim = ((part - middle) / half for part in (logs, points, np.log(target[0])))
    row_names = (
        [str(v) for v in table.frame[table.clusters]]
        if table.clusters
        else [str(i) for i in range(len(logs))]
    )
    codes = pd.factorize(pd.Series(row_names + (clusters or [])))[0]
    return Candidates(
        costs=costs,
        repeats=repeats,
        clusters=codes[len(logs) :] if clusters else np.full(len(x), NEW_CLUSTER),
        row_clusters=codes[: len(logs)],
        terms=(second_order(rows), second_order(scaled), second_order(aim[None])[0]),
        inside=(np.abs(scaled) <= 1 + 1e-9).all(1),
    )


def second_order(scaled: np.ndarray) -> np.ndarray:
    """Return all squares and products of scaled logs, `[n, m (m + 1) / 2]`."""
    first, second = np.triu_indices(scaled.shape[1])
    return scaled[:, first] * scaled[:, second]


def _correlation(fit: Fit) -> float:
    """Return the residuals' intraclass correlation by one-way analysis of variance, 0 to 0.95."""
    if not fit.table.clusters:
        return 0.0
    left = fit.table.y - fit.fitted()
    codes, names = pd.factorize(fit.table.frame[fit.table.clusters])
    sizes = np.bincount(codes)
    n, groups = len(left), len(names)
    if groups < 2 or n == groups:
        return 0.0
    means = np.bincount(codes, left) / sizes
    within = ((left - means[codes]) ** 2).sum() / (n - groups)
    between = (sizes * (means - left.mean()) ** 2).sum() / (groups - 1)
    size = (n - (sizes**2).sum() / n) / (groups - 1)
    total = between + (size - 1) * within
    share = (between - within) / total if total > 0 else 0.0
    return float(np.clip(share, 0.0, LARGEST_CORRELATION))


def _chosen_rows(
    plan: Plan, table: Table, candidates: pd.DataFrame, numbers: np.ndarray
) -> list[dict]:
    shared = table.clusters if table.clusters in candidates.columns else None
    views, rows = [k.view for k in plan.known], []
    for cell in plan.chosen:
        found = candidates.iloc[cell.row]
        rows.append(
            {"row": int(numbers[cell.row])}
            | {name: float(found[name]) for name in table.factors}
            | ({shared: str(found[shared])} if shared else {})
            | {
                "cost": float(plan.candidates.costs[cell.row]),
                "role": cell.role,
                "score_per_cost": cell.score,
                "share_of_variance": sum(
                    k.view.weight * gain / k.before
                    for k, gain in zip(plan.known, cell.gains, strict=True)
                ),
                "gain": {v.name: g for v, g in zip(views, cell.gains, strict=True)},
                "predictions": {v.name: float(v.predictions[cell.row]) for v in views},
            }
        )
    return rows


def _widths(plan: Plan, views: list[LawView], level: float) -> dict[str, dict]:
    """Width of the interval of each law's mean at the target; None: the runs do not bound it."""
    cells = [c.row for c in plan.chosen]
    rows, widths = plan.candidates.row_clusters, {}
    for view, after in zip(views, plan.known, strict=True):
        before = after.before
        freedom = len(rows) - view.design.shape[1]
        both = [(before, freedom, ()), (after.h, freedom + len(cells), cells)]
        widths[view.name] = {
            key: 2 * float(stats.t.ppf(0.5 + level / 2, df) * np.sqrt(view.variance * h))
            if estimable(view, extra)
            else None
            for key, (h, df, extra) in zip(("before", "after"), both, strict=True)
        }
    return widths


def _notes(plan: Plan, views: list[LawView], budget: float, share: float) -> list[str]:
    notes = []
    if share > 0 and not plan.cost("refute"):
        notes.append("no candidate that can refute a law fits its share of the budget")
    if len(views) == 1:
        notes.append("one law: cells that can refute it are those that show curvature it lacks")
    for view in views:
        if not estimable(view):
            notes.append(f"{view.name}: the runs so far do not bound it at the target")
    if budget - plan.cost() >= plan.candidates.costs.min():
        notes.append(
            f"{budget - plan.cost():g} of the budget is left: no further candidate fits it"
        )
    return notes
