"""Weighted least squares for many problems at once: Levenberg-Marquardt over a leading axis."""

import numpy as np

from mae_lib.scaling.laws import Law


def refit(
    law: Law,
    z: np.ndarray,
    y: np.ndarray,
    weights: np.ndarray,
    start: np.ndarray,
    *,
    iterations: int = 40,
) -> tuple[np.ndarray, np.ndarray]:
    """Fit one law to `weights` `[B, n]` of the same rows; return parameters `[B, k]` and converged.

    A refit whose weighted design has lost rank, or that has not settled, counts as not converged.
    """
    count, k = len(weights), start.shape[-1]
    params = np.broadcast_to(start, (count, k)).copy()
    damping = np.full(count, 1e-3)
    value, jacobian = law.evaluate(params, z)
    sse = (weights * (y - value) ** 2).sum(-1)
    step = np.full((count, k), np.inf)
    for _ in range(iterations):
        weighted = weights[..., None] * jacobian
        normal = np.einsum("bni,bnj->bij", weighted, jacobian)
        gradient = np.einsum("bni,bn->bi", weighted, y - value)
        diagonal = np.einsum("bii->bi", normal)
        damped = normal + (damping[:, None] * diagonal + 1e-300)[:, :, None] * np.eye(k)
        step = np.linalg.solve(damped + 1e-14 * np.eye(k), gradient[..., None])[..., 0]
        trial_value, trial_jacobian = law.evaluate(params + step, z)
        trial = (weights * (y - trial_value) ** 2).sum(-1)
        better = trial <= sse
        params = np.where(better[:, None], params + step, params)
        value = np.where(better[:, None], trial_value, value)
        jacobian = np.where(better[:, None, None], trial_jacobian, jacobian)
        sse = np.where(better, trial, sse)
        damping = np.clip(np.where(better, damping / 10, damping * 10), 1e-15, 1e15)
    settled = np.abs(step).max(-1) <= 1e-6 * (1 + np.abs(params).max(-1))
    return params, settled & (_condition(weights, jacobian) < 1e8) & np.isfinite(params).all(-1)


def _condition(weights: np.ndarray, jacobian: np.ndarray) -> np.ndarray:
    """Return the condition number of each weighted Jacobian with columns of unit length."""
    scaled = np.sqrt(weights)[..., None] * jacobian
    norms = np.linalg.norm(scaled, axis=1, keepdims=True)
    singular = np.linalg.svd(scaled / np.where(norms == 0, 1, norms), compute_uv=False)
    return singular[:, 0] / np.maximum(singular[:, -1], 1e-300)
