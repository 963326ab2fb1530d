"""Weighted fits of one law for many weights or responses at once: what every bootstrap goes through."""

import numpy as np

from mae_lib.scaling.law import Law
from mae_lib.scaling.levenberg import CHUNK, Bounds, Solution, minimise
from mae_lib.scaling.objectives import Objective
from mae_lib.scaling.variable_projection import project

# A refit has settled when the next step promises less than this share of its loss: far less than a
# thousandth of a standard error.
REFIT_TOLERANCE = 1e-9
# Smallest over largest eigenvalue of the normal matrix of unit columns, below which rank is lost.
RANK = 1e-14


def refit(
    law: Law,
    z: np.ndarray,
    y: np.ndarray,
    weights: np.ndarray,
    start: np.ndarray,
    *,
    objective: Objective | None = None,
    bounds: Bounds | None = None,
    iterations: int = 150,
) -> tuple[np.ndarray, np.ndarray]:
    """Fit one bound law to `weights` `[B, n]` of the same rows; return parameters `[B, k]`, converged.

    `y` is `[n]`, or `[B, n]` for bootstraps of residuals, on the law's own scale; `start` `[k]` or
    `[B, k]`. Linear laws are solved in closed form, separable ones by variable projection, the rest
    by Levenberg-Marquardt. A refit whose weighted design has lost rank, or that has not settled,
    counts as not converged.
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
    if objective.name == "ls" and law.basis is not None:
        solved = project(
            law, z, target, weights, start[:, linear:],
            bounds=bounds, iterations=iterations, tolerance=REFIT_TOLERANCE,
        )  # fmt: skip
    else:
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


def collapse(z: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, ...]:
    """Replace rows of one cell by their weighted mean: z `[c, m]`, y and weights `[B, c]`, rest `[B]`.

    `rest` is the weighted sum of squares within cells, which no parameter changes.
    """
    cells, first, codes = np.unique(z.round(12), axis=0, return_index=True, return_inverse=True)
    codes = codes.ravel()
    if len(cells) == len(z):
        return z, y, weights, np.zeros(len(weights))
    member = np.zeros((len(z), len(cells)))
    member[np.arange(len(z)), codes] = 1.0
    total, summed = weights @ member, (weights * y) @ member
    mean = summed / np.where(total > 0, total, 1.0)
    rest = (weights * (y - mean[:, codes]) ** 2).sum(-1)
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
