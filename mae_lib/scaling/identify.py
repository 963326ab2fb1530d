"""What a design can know of a law: rank, null directions in words, condition, bounds, levels."""

from collections.abc import Mapping
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from mae_lib.errors import FitError
from mae_lib.scaling.levels import level_codes
from mae_lib.scaling.table import Table

if TYPE_CHECKING:
    from mae_lib.scaling.fit import Fit
    from mae_lib.scaling.law import Law

RANK_TOLERANCE = 1e-8
# Below this share of the largest singular value a direction is known a thousand times worse.
WEAK = 1e-3
# Closer to a bound than this share of its size, a parameter lies on it.
ON_BOUND = 1e-6
COLLINEAR = 0.95
SHAPE_LEVELS = 3

Bounds = tuple[np.ndarray, np.ndarray]


def identifiability(
    law: "Law",
    table: Table,
    factors: tuple[str, ...],
    params: np.ndarray,
    z: np.ndarray,
    *,
    jacobian: np.ndarray | None = None,
    bounds: Bounds | None = None,
) -> dict:
    """Judge the Jacobian `[n, k]` of the centred law at its fit, its columns of unit length.

    `rank` counts singular values above 1e-8 of the largest, `effective_rank` those above 1e-3;
    `null_directions` puts the rest into words, and the terms that the law left out for that reason.
    """
    if jacobian is None:
        jacobian = law.evaluate(params, z)[1]
    norms = np.linalg.norm(jacobian, axis=0)
    _, singular, directions = np.linalg.svd(jacobian / np.where(norms == 0, 1, norms))
    singular = np.append(singular, np.zeros(len(params) - len(singular)))
    rank = int((singular > RANK_TOLERANCE * singular[0]).sum())
    effective = int((singular > WEAK * singular[0]).sum())
    names = law.names(table.factors)
    levels = {f: int(level_codes(z[:, j]).max()) + 1 for j, f in enumerate(factors)}
    words = [
        _in_words(directions[i], names, factors, z, exact=i >= rank)
        for i in range(effective, len(params))
    ]
    need = max(SHAPE_LEVELS, law.levels_needed if law.levels_of == "every" else 0)
    return {
        "rank": rank,
        "effective_rank": effective,
        "parameters": len(params),
        "condition": float(singular[0] / singular[-1]) if singular[-1] > 0 else None,
        "null_directions": [*law.dropped, *words],
        "on_bound": _on_bound(params, names, bounds),
        "levels": levels,
        "too_few_levels": [f for f, count in levels.items() if count < need],
        "note": law.note,
    }


def at_target(fit: "Fit", at: Mapping[str, float]) -> dict:
    """Say how far a point lies beyond the data: rho by factor, and the leverage g'(J'J)^+ g.

    rho is the distance beyond the data's range over that range, both in logs. The leverage takes
    the law as true: it does not see misspecification.
    Raises: FitError when a factor is missing or not above 0.
    """
    for factor in fit.table.factors:
        if not at.get(factor, 0) > 0:
            raise FitError(
                f"at: {factor}: must be a number above 0, got {at.get(factor, 'nothing')}"
            )
    rho = {}
    for j, factor in enumerate(fit.table.factors):
        logs, point = fit.table.logs[:, j], float(np.log(at[factor]))
        rho[factor] = float(max(point - logs.max(), logs.min() - point, 0) / np.ptp(logs))
    x = np.array([[float(at[factor]) for factor in fit.table.factors]])
    gradient = fit.gradient(x)[0]
    if fit.objective in ("log", "huber"):
        value = fit.predict(x)[0]
        errors = fit.law.response == "loss" and fit.table.kind == "accuracy"
        gradient = gradient / (1 - value if errors else value)
    # A parameter on its bound does not move, so it adds nothing.
    names = fit.law.names(fit.table.factors)
    free = np.array([name not in fit.at_bound for name in names])
    design, gradient = fit.design[:, free], gradient[free]
    leverage = None
    if np.isfinite(gradient).all():
        leverage = float(gradient @ np.linalg.pinv(design.T @ design) @ gradient)
    return {
        "at": {factor: float(at[factor]) for factor in fit.table.factors},
        "rho": rho,
        "rho_max": max(rho.values()),
        "leverage": leverage,
    }


def _in_words(
    direction: np.ndarray,
    names: tuple[str, ...],
    factors: tuple[str, ...],
    z: np.ndarray,
    *,
    exact: bool,
) -> str:
    """Name the parameters that the data cannot tell apart, and why where the design shows it."""
    involved = [name for name, part in zip(names, direction, strict=True) if abs(part) > 0.1]
    if len(involved) == 1:
        return f"{involved[0]} changes no row{'' if exact else ' by more than a trace'}"
    called = f"{' x '.join(involved)} is {'' if exact else 'nearly '}aliased"
    touched = [j for j, f in enumerate(factors) if any(name.endswith(f) for name in involved)]
    reason = next(filter(None, (_why(factors, z, *pair) for pair in combinations(touched, 2))), "")
    return called + (f": {reason}" if reason else " on this design")


def _why(factors: tuple[str, ...], z: np.ndarray, i: int, j: int) -> str | None:
    """Say how two factors of a design hang together."""
    if abs(np.corrcoef(z[:, i], z[:, j])[0, 1]) > COLLINEAR:
        return f"{factors[i]} and {factors[j]} vary together"
    for a, b in ((i, j), (j, i)):
        levels, others = level_codes(z[:, a]), level_codes(z[:, b])
        varying = [v for v in np.unique(levels) if len(np.unique(others[levels == v])) > 1]
        if len(varying) == 1 and levels.max() > 0:
            return f"{factors[b]} varies at one {factors[a]} only"
    return None


def _on_bound(params: np.ndarray, names: tuple[str, ...], bounds: Bounds | None) -> list[str]:
    """Name the parameters that lie on a limit: their standard errors mean nothing."""
    found = []
    for side, limits in zip(("lower", "upper"), bounds or (), strict=False):
        for name, value, limit in zip(names, params, limits, strict=True):
            if np.isfinite(limit) and abs(value - limit) <= ON_BOUND * (1 + abs(limit)):
                found.append(f"{name} on its {side} bound {limit:g}")
    return found
