"""Variable projection (Golub and Pereyra 1973) for many problems at once.

A separable law is Phi(theta) c. For each theta the amplitudes c solve a linear problem, so the search
runs over theta alone. Its Jacobian has two parts, J = -(P D + Phi+' H): D the derivative at fixed c,
P the projection off Phi, H = dPhi' W r. They are orthogonal, so the normal matrix is a sum of two
small ones, and everything follows from weighted inner products of the columns of Phi and D.
"""

import itertools

import numpy as np

from mae_lib.scaling.law import Law
from mae_lib.scaling.levenberg import (
    CHUNK,
    EASE,
    FIRST_DAMPING,
    LEAST_DAMPING,
    MOST_DAMPING,
    PRESS,
    Bounds,
    Solution,
    damped_step,
)

# Added to the unit diagonal, so that columns that are alike to rounding still have an inverse.
RIDGE = 1e-15
# An amplitude held at 0 is set free when its gradient is above this share of the response's.
SLACK = 1e-9


def project(
    law: Law,
    z: np.ndarray,
    y: np.ndarray,
    weights: np.ndarray,
    theta: np.ndarray,
    *,
    bounds: Bounds | None = None,
    iterations: int = 60,
    tolerance: float = 1e-13,
) -> Solution:
    """Minimise sum weights (y - Phi(theta) c)^2 from `theta` `[B, q]`; y and weights `[B, n]`.

    `bounds` are those of all parameters, amplitudes first. Amplitudes of a `signed` law are kept at
    or above 0 by non-negative least squares. Returns the parameters (c, theta).
    """
    parts = [
        _project_chunk(
            law, z, y[i : i + CHUNK], weights[i : i + CHUNK], theta[i : i + CHUNK],
            (bounds, iterations, tolerance),
        )
        for i in range(0, len(theta), CHUNK)
    ]  # fmt: skip
    return Solution(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _project_chunk(
    law: Law,
    z: np.ndarray,
    y: np.ndarray,
    weights: np.ndarray,
    theta: np.ndarray,
    options: tuple[Bounds | None, int, float],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    bounds, iterations, tolerance = options
    p = law.linear(z.shape[1])
    inner = None if bounds is None else (bounds[0][p:], bounds[1][p:])
    theta = np.array(theta, np.float64) if inner is None else np.clip(theta, *inner)
    count = len(theta)
    found, losses = np.full((count, p + theta.shape[1]), np.nan), np.full(count, np.inf)
    settled, rows, damping = np.zeros(count, bool), np.arange(count), np.full(count, FIRST_DAMPING)
    with np.errstate(all="ignore"):
        tiny = 1e-30 * (weights * y**2).sum(-1)
        active = np.ones((count, p), bool)
        state = _reduced(law, z, y, weights, theta, active)
        for _ in range(iterations):
            _, loss, normal, gradient, active = state
            step, promised = damped_step(theta, normal, gradient, damping, inner)
            trial = _reduced(law, z, y, weights, theta + step, active)
            better = trial[1] <= loss
            done = (np.abs(promised) <= tolerance * loss + tiny) & (damping <= 1.0)
            stuck = ~better & (damping >= MOST_DAMPING / PRESS)
            theta = np.where(better[:, None], theta + step, theta)
            state = [
                np.where(better.reshape(-1, *[1] * (old.ndim - 1)), new, old)
                for new, old in zip(trial, state, strict=True)
            ]
            damping = np.clip(
                np.where(better, damping / EASE, damping * PRESS), LEAST_DAMPING, MOST_DAMPING
            )
            leave = done | stuck
            if leave.any():
                out = rows[leave]
                found[out] = np.concatenate([state[0], theta], 1)[leave]
                losses[out], settled[out] = state[1][leave], done[leave]
                keep = ~leave
                if not keep.any():
                    return found, losses, settled
                theta, damping, tiny, rows = theta[keep], damping[keep], tiny[keep], rows[keep]
                state = [part[keep] for part in state]
                y, weights = y[keep], weights[keep]
        found[rows] = np.concatenate([state[0], theta], 1)
        losses[rows] = state[1]
    return found, losses, settled


def _reduced(law: Law, z, y, weights, theta, active):
    """Return amplitudes, loss, normal matrix and gradient of the reduced problem, active amplitudes."""
    phi, slope = law.basis(theta, z)
    weighted = np.swapaxes(phi, -1, -2) * weights[:, None, :]
    gram, right = weighted @ phi, (weighted @ y[..., None])[..., 0]
    c, active = amplitudes(gram, right, active, signed=law.signed)
    # One refinement on the residual itself: the Gram matrix squares the condition number.
    residual = y - (phi @ c[..., None])[..., 0]
    inverse = _inverse(gram, active)
    c = c + (inverse @ (weighted @ residual[..., None]))[..., 0]
    if law.signed:
        c = np.maximum(c, 0.0)
    residual = y - (phi @ c[..., None])[..., 0]
    loss = (weights * residual**2).sum(-1)
    loss = np.where(np.isfinite(loss), loss, np.inf)
    curved = (slope * c[:, None, :, None]).sum(-2)
    weighted_curved = np.swapaxes(curved, -1, -2) * weights[:, None, :]
    gradient = (weighted_curved @ residual[..., None])[..., 0]
    cross = weighted @ curved
    count, n, p, q = slope.shape
    pull = (weights * residual)[:, None, :] @ slope.reshape(count, n, p * q)
    pull = pull.reshape(count, p, q) * active[..., None]
    normal = (
        weighted_curved @ curved
        - np.swapaxes(cross, -1, -2) @ inverse @ cross
        + np.swapaxes(pull, -1, -2) @ inverse @ pull
    )
    return c, loss, normal, gradient, active


def _inverse(gram: np.ndarray, active: np.ndarray) -> np.ndarray:
    """Invert the active block of each Gram matrix; rows and columns that are not active are 0."""
    p = gram.shape[-1]
    diagonal = np.einsum("bii->bi", gram)
    scale = np.where(active & (diagonal > 0), 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1)), 0.0)
    unit = gram * scale[:, :, None] * scale[:, None, :]
    unit[:, np.arange(p), np.arange(p)] = 1.0 + RIDGE
    unit = np.where(np.isfinite(unit), unit, np.eye(p))
    return np.linalg.inv(unit) * scale[:, :, None] * scale[:, None, :]


def amplitudes(
    gram: np.ndarray, right: np.ndarray, active: np.ndarray, *, signed: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Minimise c' gram c - 2 c' right, c >= 0 where signed; return c and which are above 0.

    Tries the active set of the last step first; where its signs or its gradient are wrong, tries all
    sets, of which there are few. Exact: the least value over sets with non-negative c is the answer.
    """
    if not signed:
        active = np.ones_like(active)
        return (_inverse(gram, active) @ right[..., None])[..., 0], active
    c = (_inverse(gram, active) @ right[..., None])[..., 0]
    diagonal = np.maximum(np.einsum("bii->bi", gram), 1e-300)
    pull = right - (gram @ c[..., None])[..., 0]
    slack = SLACK * np.sqrt(diagonal) * np.linalg.norm(right / np.sqrt(diagonal), axis=-1)[:, None]
    wrong = (active & (c <= 0)).any(-1) | (~active & (pull > slack)).any(-1)
    if wrong.any():
        c, active = c.copy(), active.copy()
        c[wrong], active[wrong] = _all_sets(gram[wrong], right[wrong])
    return c, active


def _all_sets(gram: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Solve on every set of amplitudes, all at once, and keep the least with none below 0."""
    count, p = right.shape
    sets = np.array(list(itertools.product((False, True), repeat=p)))
    many = len(sets)
    active = np.broadcast_to(sets, (count, many, p)).reshape(-1, p)
    grams = np.repeat(gram, many, axis=0)
    rights = np.repeat(right, many, axis=0)
    c = (_inverse(grams, active) @ rights[..., None])[..., 0]
    value = -(c * rights).sum(-1).reshape(count, many)
    good = (~active | (c > 0)).all(-1).reshape(count, many)
    chosen = np.where(good, value, np.inf).argmin(-1)
    return c.reshape(count, many, p)[np.arange(count), chosen], sets[chosen]
