"""Weighted fits of one law for many weights or responses at once: Levenberg-Marquardt in a batch.

The leading axis `B` holds refits of a bootstrap, or the starts of a search.
"""

from dataclasses import dataclass

import numpy as np

from mae_lib.scaling.law import Evaluate, Law
from mae_lib.scaling.objectives import Objective

Bounds = tuple[np.ndarray, np.ndarray]

# Problems solved together: enough to spread numpy's overhead, few enough to stay in cache.
CHUNK = 500
# After a step that helped the damping falls tenfold; after one that did not it rises fourfold.
EASE, PRESS = 10.0, 4.0
# A refit has settled when the next step promises less than this share of its loss: far less than a
# thousandth of a standard error.
REFIT_TOLERANCE = 1e-9
FIRST_DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-3, 1e-12, 1e12
# Smallest over largest eigenvalue of the normal matrix of unit columns, below which rank is lost.
RANK = 1e-14
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
    count, k = start.shape
    params = np.array(start, np.float64)
    if bounds is not None:
        params = np.clip(params, *bounds)
    found, losses = params.copy(), np.full(count, np.inf)
    settled = np.zeros(count, bool)
    with np.errstate(all="ignore"):
        value, jacobian, loss, slope, curvature = _terms(evaluate, params, z, y, weights, objective)
        tiny = 1e-30 * (weights * y**2).sum(-1) if objective.name != "binomial" else 0 * loss
        rows = np.arange(count)
        damping = np.full(count, FIRST_DAMPING)
        for _ in range(iterations):
            step, promised = _step(params, jacobian, slope, curvature, damping, bounds)
            trial = params + step
            new = _terms(evaluate, trial, z, y, weights, objective)
            better = new[2] <= loss
            done = (np.abs(promised) <= tolerance * loss + tiny) & (damping <= 1.0)
            stuck = ~better & (damping >= MOST_DAMPING / PRESS)
            params = np.where(better[:, None], trial, params)
            slope, loss = np.where(better[:, None], new[3], slope), np.where(better, new[2], loss)
            jacobian = np.where(better[:, None, None], new[1], jacobian)
            if curvature is not None:
                curvature = np.where(better[:, None], new[4], curvature)
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
    """Return value, Jacobian, summed loss, and slope and curvature with the weights in them."""
    value, jacobian = objective.scaled(*evaluate(params, z))
    loss, slope, curvature = objective.terms(y, value)
    total = (weights * loss).sum(-1)
    curvature = weights if curvature is None else weights * curvature
    return value, jacobian, np.where(np.isfinite(total), total, np.inf), weights * slope, curvature


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


def collapse(z: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, ...]:
    """Replace rows of one cell by their weighted mean: z `[c, m]`, y and weights `[B, c]`, rest `[B]`.

    `rest` is the weighted sum of squares within cells, which no parameter changes.
    """
    cells, codes = np.unique(z.round(12), axis=0, return_inverse=True)
    codes = codes.ravel()
    if len(cells) == len(z):
        return z, y, weights, np.zeros(len(weights))
    member = np.zeros((len(z), len(cells)))
    member[np.arange(len(z)), codes] = 1.0
    total, summed = weights @ member, (weights * y) @ member
    mean = summed / np.where(total > 0, total, 1.0)
    rest = (weights * (y - mean[:, codes]) ** 2).sum(-1)
    first = np.array([np.flatnonzero(codes == c)[0] for c in range(len(cells))])
    return z[first], mean, total, rest


def solve_linear(design: np.ndarray, y: np.ndarray, weights: np.ndarray) -> Solution:
    """Solve weighted linear least squares in closed form, `design` `[n, k]`, y, weights `[B, n]`.

    Columns are scaled to unit length and the solution is refined once, so that it is as exact as
    an orthogonal solution for condition numbers below 1e7. A design that has lost rank under its
    weights is not settled, its parameters are NaN.
    """
    k = design.shape[1]
    normal = (design.T * weights[:, None, :]) @ design
    diagonal = np.einsum("bii->bi", normal)
    scale = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    unit = normal * scale[:, :, None] * scale[:, None, :]
    full = has_rank(unit)
    unit = np.where(full[:, None, None], unit, np.eye(k))
    params = np.zeros((len(weights), k))
    for _ in range(2):
        left = (weights * (y - params @ design.T)) @ design
        params += scale * np.linalg.solve(unit, (scale * left)[..., None])[..., 0]
    params[~full] = np.nan
    loss = (weights * (y - params @ design.T) ** 2).sum(-1)
    return Solution(params, loss, full)


def has_rank(unit: np.ndarray) -> np.ndarray:
    """Say which normal matrices of unit columns `[B, k, k]` have full rank."""
    finite = np.isfinite(unit).all((-1, -2))
    values = np.linalg.eigvalsh(np.where(finite[:, None, None], unit, 0.0))
    return finite & (values[:, 0] > RANK * values[:, -1])


def refit(
    law: Law,
    z: np.ndarray,
    y: np.ndarray,
    weights: np.ndarray,
    start: np.ndarray,
    *,
    objective: Objective | None = None,
    bounds: Bounds | None = None,
    iterations: int = 60,
) -> tuple[np.ndarray, np.ndarray]:
    """Fit one bound law to `weights` `[B, n]` of the same rows; return parameters `[B, k]`, converged.

    `y` is `[n]`, or `[B, n]` for bootstraps of residuals, on the law's own scale; `start` `[k]` or
    `[B, k]`. Linear laws are solved in closed form, the rest by Levenberg-Marquardt: from a start
    this near it takes less time than variable projection, which serves the search. A refit whose weighted design has lost rank, or that has not
    settled, counts as not converged.
    """
    objective = objective or Objective()
    count = max(len(weights) if weights.ndim > 1 else 1, len(y) if y.ndim > 1 else 1)
    target = np.broadcast_to(objective.target(y), (count, len(z)))
    weights = np.broadcast_to(weights, (count, len(z)))
    if objective.takes_means:
        z, target, weights, _ = collapse(z, target, weights)
    k, m = start.shape[-1], z.shape[1]
    linear = law.linear(m)
    if objective.name == "ls" and linear == k and not law.signed:
        solved = solve_linear(law.evaluate(start.reshape(-1, k)[0], z)[1], target, weights)
        return solved.params, solved.settled
    start = np.broadcast_to(start, (count, k))
    solved = minimise(
        law.evaluate, z, target, weights, start,
        objective=objective, bounds=bounds, iterations=iterations, tolerance=REFIT_TOLERANCE,
    )  # fmt: skip
    full = _full_rank(law, z, weights, solved.params, objective, bounds)
    return solved.params, solved.settled & full & np.isfinite(solved.params).all(-1)


def _full_rank(
    law: Law,
    z: np.ndarray,
    weights: np.ndarray,
    params: np.ndarray,
    objective: Objective,
    bounds: Bounds | None,
) -> np.ndarray:
    """Say which refits kept their rank, parameters at a bound (and what they silence) left out."""
    kept = []
    with np.errstate(all="ignore"):
        for i in range(0, len(params), CHUNK):
            part = params[i : i + CHUNK]
            _, jacobian = objective.scaled(*law.evaluate(part, z))
            normal = (np.swapaxes(jacobian, -1, -2) * weights[i : i + CHUNK, None, :]) @ jacobian
            diagonal = np.einsum("bii->bi", normal)
            out = diagonal <= 0 if bounds is not None else np.zeros(part.shape, bool)
            if bounds is not None:
                out |= (part <= bounds[0]) | (part >= bounds[1])
            scale = np.where(out, 0.0, 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0)))
            unit = normal * scale[:, :, None] * scale[:, None, :]
            unit += out[:, :, None] * np.eye(part.shape[1])
            kept.append(has_rank(unit))
    return np.concatenate(kept)
