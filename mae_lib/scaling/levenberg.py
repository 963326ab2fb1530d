"""Levenberg-Marquardt with bounds, for many problems at once.

The leading axis `B` holds refits of a bootstrap, or the starts of a search.
"""

from dataclasses import dataclass

import numpy as np

from mae_lib.scaling.law import Evaluate
from mae_lib.scaling.objectives import Objective

Bounds = tuple[np.ndarray, np.ndarray]

# Problems solved together: enough to spread numpy's overhead, few enough to stay in cache.
CHUNK = 500
# After a step that helped the damping falls tenfold; after one that did not it rises fourfold.
EASE, PRESS = 10.0, 4.0
FIRST_DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-3, 1e-12, 1e12
# Systems above which elimination over the batch is faster; the least pivot it divides by.
MANY_SYSTEMS, LEAST_PIVOT = 100, 1e-15


@dataclass(frozen=True)
class Solution:
    """Parameters `[B, k]`, the objective's value `[B]`, and whether the search settled `[B]`."""

    params: np.ndarray
    loss: np.ndarray
    settled: np.ndarray

    def best(self) -> int:
        """Return the index of the least loss."""
        return int(np.nanargmin(np.where(np.isfinite(self.loss), self.loss, np.inf)))


def minimise(
    evaluate: Evaluate,
    z: np.ndarray,
    y: np.ndarray,
    weights: np.ndarray,
    start: np.ndarray,
    *,
    objective: Objective,
    bounds: Bounds | None = None,
    iterations: int = 100,
    tolerance: float = 1e-13,
) -> Solution:
    """Minimise sum_n weights * loss(y, law) from `start` `[B, k]`, within bounds.

    `y` and `weights` are `[B, n]` or broadcast to it. A step that would leave the bounds is cut off
    at them, and a parameter that is pushed against its bound is held there for the step. A problem
    has settled when its next step promises less than `tolerance` of the loss.
    """
    count, n = len(start), len(z)
    y, weights = np.broadcast_to(y, (count, n)), np.broadcast_to(weights, (count, n))
    parts = [
        _minimise_chunk(
            evaluate, z, y[i : i + CHUNK], weights[i : i + CHUNK], start[i : i + CHUNK],
            (objective, bounds, iterations, tolerance),
        )
        for i in range(0, count, CHUNK)
    ]  # fmt: skip
    return Solution(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _minimise_chunk(
    evaluate: Evaluate,
    z: np.ndarray,
    y: np.ndarray,
    weights: np.ndarray,
    start: np.ndarray,
    options: tuple[Objective, Bounds | None, int, float],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    objective, bounds, iterations, tolerance = options
    count = len(start)
    params = np.array(start, np.float64)
    if bounds is not None:
        params = np.clip(params, *bounds)
    found, losses = params.copy(), np.full(count, np.inf)
    settled = np.zeros(count, bool)
    with np.errstate(all="ignore"):
        jacobian, loss, slope, curvature = _terms(evaluate, params, z, y, weights, objective)
        tiny = 1e-30 * (weights * y**2).sum(-1) if objective.name != "binomial" else 0 * loss
        rows = np.arange(count)
        damping = np.full(count, FIRST_DAMPING)
        for _ in range(iterations):
            step, promised = _step(params, jacobian, slope, curvature, damping, bounds)
            trial = params + step
            new = _terms(evaluate, trial, z, y, weights, objective)
            better = new[1] <= loss
            done = (np.abs(promised) <= tolerance * loss + tiny) & (damping <= 1.0)
            stuck = ~better & (damping >= MOST_DAMPING / PRESS)
            params = np.where(better[:, None], trial, params)
            slope, loss = np.where(better[:, None], new[2], slope), np.where(better, new[1], loss)
            jacobian = np.where(better[:, None, None], new[0], jacobian)
            if curvature is not None:
                curvature = np.where(better[:, None], new[3], curvature)
            damping = np.clip(
                np.where(better, damping / EASE, damping * PRESS), LEAST_DAMPING, MOST_DAMPING
            )
            leave = done | stuck
            if leave.any():
                out = rows[leave]
                found[out], losses[out], settled[out] = params[leave], loss[leave], done[leave]
                keep = ~leave
                if not keep.any():
                    return found, losses, settled
                params, loss, damping, tiny = params[keep], loss[keep], damping[keep], tiny[keep]
                jacobian, slope, rows = jacobian[keep], slope[keep], rows[keep]
                curvature = None if curvature is None else curvature[keep]
                y, weights = y[keep], weights[keep]
        found[rows], losses[rows] = params, loss
    return found, losses, settled


def _terms(evaluate, params, z, y, weights, objective: Objective):
    """Return Jacobian, summed loss, and slope and curvature with the weights in them."""
    value, jacobian = objective.scaled(*evaluate(params, z))
    loss, slope, curvature = objective.terms(y, value)
    total = (weights * loss).sum(-1)
    curvature = weights if curvature is None else weights * curvature
    return jacobian, np.where(np.isfinite(total), total, np.inf), weights * slope, curvature


def _step(
    params: np.ndarray,
    jacobian: np.ndarray,
    slope: np.ndarray,
    curvature: np.ndarray,
    damping: np.ndarray,
    bounds: Bounds | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the damped step `[B, k]`, cut at the bounds, and the decrease that it promises."""
    transposed = np.swapaxes(jacobian, -1, -2)
    normal = (transposed * curvature[:, None, :]) @ jacobian
    gradient = (transposed @ slope[..., None])[..., 0]
    return damped_step(params, normal, gradient, damping, bounds)


def damped_step(
    params: np.ndarray,
    normal: np.ndarray,
    gradient: np.ndarray,
    damping: np.ndarray,
    bounds: Bounds | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Solve (normal + damping diag(normal)) step = gradient in unit columns, cut at the bounds."""
    diagonal = np.einsum("bii->bi", normal)
    scale = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    free = diagonal > 0
    if bounds is not None:
        low, high = bounds
        held = ((params <= low) & (gradient < 0)) | ((params >= high) & (gradient > 0))
        free &= ~held
    step = _solve_unit(normal, gradient, scale * free, damping)
    if bounds is not None:
        cut = np.clip(params + step, low, high) - params
        hit = cut != step
        rows = hit.any(-1)
        if rows.any():
            # A step cut at one bound is no descent in the others: solve those again, the cut fixed.
            fixed = np.where(hit, cut, 0.0)[rows]
            left = gradient[rows] - (normal[rows] @ fixed[..., None])[..., 0]
            still = (scale * (free & ~hit))[rows]
            again = fixed + _solve_unit(normal[rows], left, still, damping[rows])
            step[rows] = np.clip(params[rows] + again, low, high) - params[rows]
    curved = (normal @ step[..., None])[..., 0]
    return step, 2 * (gradient * step).sum(-1) - (step * curved).sum(-1)


def _solve_unit(
    normal: np.ndarray, gradient: np.ndarray, scaled: np.ndarray, damping: np.ndarray
) -> np.ndarray:
    """Solve the damped normal equations in unit columns; a scale of 0 holds a parameter still."""
    k = gradient.shape[-1]
    unit = normal * scaled[:, :, None] * scaled[:, None, :]
    unit[:, np.arange(k), np.arange(k)] = 1.0 + damping[:, None]
    unit = np.where(np.isfinite(unit), unit, np.eye(k))
    right = scaled * np.where(np.isfinite(gradient), gradient, 0.0)
    return scaled * solve_positive(unit, right)


def solve_positive(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solve positive definite systems of unit diagonal, `[B, k, k]` and `[B, k]`.

    For many small systems elimination runs over the batch, which is several times faster than one
    call of LAPACK each; a positive definite matrix needs no pivots.
    """
    count, k = right.shape
    if count < MANY_SYSTEMS:
        return np.linalg.solve(matrix, right[..., None])[..., 0]
    a = np.ascontiguousarray(np.moveaxis(matrix, 0, -1))
    x = np.ascontiguousarray(right.T)
    for j in range(k):
        a[j, j] = np.maximum(a[j, j], LEAST_PIVOT)
        if j + 1 < k:
            share = a[j + 1 :, j] / a[j, j]
            a[j + 1 :, j + 1 :] -= share[:, None] * a[j, j + 1 :]
            x[j + 1 :] -= share * x[j]
    for j in range(k - 1, -1, -1):
        if j + 1 < k:
            x[j] -= (a[j, j + 1 :] * x[j + 1 :]).sum(0)
        x[j] /= a[j, j]
    return x.T
