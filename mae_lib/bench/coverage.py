"""Does a 95 % interval hold 95 % of what was left out? Measured on real grids, one study left out.

Every grid is split by the top 40, 25 and 10 % of each factor and of compute. A method sees the runs
that were kept and no others. Errors, widths and scores are in ln of the loss or error; interval score
= full width + 40 x what lies outside. Averages: points, splits, grids, studies, each equally.

`raw` borrows nothing from other tables. `calibrated` multiplies a method's half-widths by the one
number that gives the nominal coverage on the other studies: the study scored never enters it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from mae_lib.bench.grids import Grid
from mae_lib.errors import FitError
from mae_lib.scaling.frontier import beyond
from mae_lib.scaling.holdout import Split, splits_of, table_of
from mae_lib.scaling.stack import (
    SCHEME,
    Member,
    Scheme,
    combine,
    log_loss,
    members_at,
    quantile_at,
)
from mae_lib.scaling.table import Table

SHARES = (0.4, 0.25, 0.1)
LEVELS = (0.5, 0.8, 0.95)
NOMINAL = 0.95
RHO_EDGES = (0.0, 0.1, 0.25, 0.5, 1.0)
MULTIPLIERS = np.exp(np.linspace(np.log(0.2), np.log(8), 120))
SINGLE = ("log_product", "log_additive", "power_product", "power_sum", "logit_additive", "m4")
# The scheme that this one is compared with: full-data fits, weights 1 / held-out error squared.
PLAIN = Scheme(
    laws=("log_product", "log_additive", "power_product", "power_sum"),
    steepnesses=(0.0,),
    power=2.0,
    within=1.0,
    most_leverage=np.inf,
    shares=(0.25,),
)


@dataclass(frozen=True)
class Scored:
    """One method on one split: errors `[p]` in logs, one deviation `[p]`, rho `[p]`.

    `reach` is how many deviations a method takes at each of LEVELS.
    """

    study: str
    grid: str
    split: str
    error: np.ndarray
    deviation: np.ndarray
    reach: tuple[float, ...]
    rho: np.ndarray


def bench_coverage(grids: Sequence[Grid], *, scheme: Scheme = SCHEME) -> dict:
    """Score naive intervals of single laws, the plain stack and ours over grids.

    Raises: FitError when no grid can be split.
    """
    found: dict[str, list[Scored]] = {}
    splits = points = 0
    for grid in grids:
        for split in splits_of(grid.table, shares=SHARES, compute=grid.compute, corner=False)[0]:
            splits, points = splits + 1, points + int(split.test.sum())
            for name, scored in _methods(grid, split, scheme).items():
                found.setdefault(name, []).append(scored)
    if not found:
        raise FitError("coverage: no grid has a split that leaves enough runs")
    return {
        "format": 1,
        "grids": len(grids),
        "studies": sorted({grid.study for grid in grids}),
        "splits": splits,
        "points": points,
        "nominal": NOMINAL,
        "methods": {name: summarise(scored) for name, scored in found.items()},
    }


def summarise(scored: Sequence[Scored]) -> dict:
    """Return raw and calibrated figures of one method, by study and by rho."""
    multipliers = _leave_one_out(scored)
    raw = _figures(scored, lambda one: 1.0)
    calibrated = _figures(scored, lambda one: multipliers[one.study])
    return {
        "splits": len(scored),
        "mae": _average(scored, lambda one: float(np.abs(one.error).mean()))[0],
        "raw": raw,
        "calibrated": calibrated | {"multipliers": multipliers},
        "by_rho": _by_rho(scored),
    }


def _methods(grid: Grid, split: Split, scheme: Scheme) -> dict[str, Scored]:
    kept = table_of(grid.table, ~split.test)
    x, along = grid.table.x[split.test], split.along[~split.test]
    truth = log_loss(grid.table)[split.test]
    rho = beyond(kept, x).max(1)
    label = f"top {split.share:.0%} by {split.by}"

    def score(centre: np.ndarray, deviation: np.ndarray, reach: Sequence[float]) -> Scored:
        return Scored(grid.study, grid.name, label, truth - centre, deviation, tuple(reach), rho)

    found = {}
    single = replace(scheme, laws=SINGLE, steepnesses=(0.0,), most_leverage=np.inf, shares=(0.25,))
    alone = [m for m in members_at(kept, x, along, single)[0] if np.isfinite(m.values).all()]
    for member in alone:
        free = _free(kept, member)
        if free < 1:
            continue
        reach = [stats.t.ppf(0.5 + level / 2, free) for level in LEVELS]
        found[f"{member.law}, naive"] = score(member.values, np.sqrt(member.spread), reach)
        held = np.sqrt(member.spread + member.error**2)
        found[f"{member.law}, + held-out error"] = score(member.values, held, reach)
    plain = [m for m in alone if m.law in PLAIN.laws]
    if plain:
        stacked = combine(plain, PLAIN)
        free = max(min(_free(kept, member) for member in plain), 1)
        reach = [stats.t.ppf(0.5 + level / 2, free) for level in LEVELS]
        narrow = np.sqrt(stacked.within + stacked.between)
        found["plain stack, no held-out error"] = score(stacked.centre, narrow, reach)
        found["plain stack"] = score(stacked.centre, stacked.deviation, reach)
    members, left_out = members_at(kept, x, along, scheme)
    if members:
        stacked = combine(members, scheme, left_out)
        if np.isfinite(stacked.centre).all():
            reach = [quantile_at(kept, level)[0] for level in LEVELS]
            found["stacked"] = score(stacked.centre, stacked.deviation, reach)
    return found


def _free(table: Table, member: Member) -> int:
    from mae_lib.scaling.local import local_law

    return len(table.frame) - local_law(table, member.law).k


def _average(
    scored: Sequence[Scored], of: Callable[[Scored], float]
) -> tuple[float, dict[str, float]]:
    """Average over splits, then grids, then studies; return it and the studies' own."""
    grids: dict[str, dict[str, list[float]]] = {}
    for one in scored:
        grids.setdefault(one.study, {}).setdefault(one.grid, []).append(of(one))
    studies = {
        study: float(np.mean([np.mean(values) for values in by_grid.values()]))
        for study, by_grid in grids.items()
    }
    return float(np.mean(list(studies.values()))), studies


def _figures(scored: Sequence[Scored], multiplier: Callable[[Scored], float]) -> dict:
    place = LEVELS.index(NOMINAL)

    def half(one: Scored, level: int = place) -> np.ndarray:
        return multiplier(one) * one.reach[level] * one.deviation

    def covered(level: int) -> Callable[[Scored], float]:
        return lambda one: float((np.abs(one.error) <= half(one, level)).mean())

    def score(one: Scored) -> float:
        outside = np.maximum(np.abs(one.error) - half(one), 0)
        return float((2 * half(one) + 2 / (1 - NOMINAL) * outside).mean())

    _, studies = _average(scored, covered(place))
    points, point_studies = _average(scored, score)
    return {
        "coverage": {str(v): _average(scored, covered(i))[0] for i, v in enumerate(LEVELS)},
        "worst_study": min(studies.values()),
        "width": _average(scored, lambda one: float(2 * half(one).mean()))[0],
        "interval_score": points,
        "by_study": {
            study: {"coverage": studies[study], "interval_score": point_studies[study]}
            for study in studies
        },
    }


def _leave_one_out(scored: Sequence[Scored]) -> dict[str, float]:
    """Return for each study the least multiplier with nominal coverage on all the others."""
    place = LEVELS.index(NOMINAL)
    grids: dict[str, dict[str, list[np.ndarray]]] = {}
    for one in scored:
        half = one.reach[place] * one.deviation
        hits = np.abs(one.error) <= MULTIPLIERS[:, None] * half
        grids.setdefault(one.study, {}).setdefault(one.grid, []).append(hits.mean(1))
    curves = {
        study: np.mean([np.mean(values, axis=0) for values in by_grid.values()], axis=0)
        for study, by_grid in grids.items()
    }
    found = {}
    for study in curves:
        others = [curve for name, curve in curves.items() if name != study]
        if not others:
            found[study] = 1.0
            continue
        enough = np.mean(others, axis=0) >= NOMINAL
        found[study] = float(MULTIPLIERS[int(enough.argmax()) if enough.any() else -1])
    return found


def _by_rho(scored: Sequence[Scored]) -> list[dict]:
    """Return pooled raw coverage at the nominal level and mean error, in bins of rho."""
    place = LEVELS.index(NOMINAL)
    rho = np.concatenate([one.rho for one in scored])
    error = np.concatenate([np.abs(one.error) for one in scored])
    half = np.concatenate([one.reach[place] * one.deviation for one in scored])
    bins = []
    for low, high in zip(RHO_EDGES, (*RHO_EDGES[1:], np.inf), strict=True):
        inside = (rho > low if low else rho >= 0) & (rho <= high)
        if inside.any():
            bins.append({
                "rho": [low, high if np.isfinite(high) else None],
                "points": int(inside.sum()),
                "coverage": float((error <= half)[inside].mean()),
                "mae": float(error[inside].mean()),
                "width": float(2 * half[inside].mean()),
            })  # fmt: skip
    return bins
