"""Find a law's best parameters from many starts, and say how many of them agree."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import optimize

from mae_lib.errors import FitError
from mae_lib.scaling.distributions import f_quantile
from mae_lib.scaling.law import Design, Law
from mae_lib.scaling.least_squares import collapse, solve_linear
from mae_lib.scaling.levenberg import Bounds, Solution, damped_step, minimise
from mae_lib.scaling.objectives import Objective
from mae_lib.scaling.variable_projection import amplitudes, project

# Starts for laws of at most MANY parameters, and for larger ones.
FEW_STARTS, MORE_STARTS, MANY = 20, 60, 5
# A linear law of more parameters than this has one solution, and needs no starts to find it.
LINEAR_STARTS = 12
# Starts agree when their losses do, relatively; optima are told apart more coarsely.
AGREEMENT, DISTINCT = 1e-8, 1e-6
ITERATIONS, POLISH_STEPS = 200, 12
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Found:
    """The best parameters `[k]`, the objective's value there, and what the starts did."""

    params: np.ndarray
    loss: float
    starts: dict
    settled: bool


def search(
    law: Law,
    design: Design,
    weights: np.ndarray,
    *,
    objective: Objective,
    starts: int | None = None,
    seed: int = 0,
) -> Found:
    """Fit a bound law from Sobol starts in its box; `weights` `[n]` are 1 or the rows' trials.

    `starts` of the result counts those tried, converged, and within 1e-8 of the best, and lists
    the distinct optima that the data do not rule out (loss within the F cut of the best).
    Raises: FitError when no start converges.
    """
    k = len(law.parameters(design.factors))
    tried = starts or (FEW_STARTS if k <= MANY else MORE_STARTS)
    bounds = law.bounds(design) if law.limits else None
    target, rest, z = objective.target(design.y)[None], 0.0, design.z
    weights = np.asarray(weights, np.float64)[None]
    if objective.takes_means:
        z, target, weights, within = collapse(z, target, weights)
        rest = float(within[0]) if objective.name != "binomial" else 0.0
    linear = law.linear(z.shape[1])
    if objective.name == "ls" and linear == k > LINEAR_STARTS:
        solved = solve_linear(law.evaluate(np.zeros(k), z)[1], target, weights)
    elif objective.name == "ls" and law.basis is not None and linear < k:
        theta = _sobol(law, design, tried, seed)[:, linear:]
        solved = project(law, z, _tile(target, tried), _tile(weights, tried), theta, bounds=bounds)
        # The few that crawl along a valley are finished with all parameters free.
        solved = minimise(
            law.evaluate, z, target, weights, solved.params,
            objective=objective, bounds=bounds, iterations=ITERATIONS,
        )  # fmt: skip
    else:
        first = _sobol(law, design, tried, seed)
        if law.basis is not None and linear == k:
            first = _about_squares(law, design, first)
        elif law.basis is not None:
            first[:, :linear] = _amplitudes(law, design, first[:, linear:], objective)
        solved = minimise(
            law.evaluate, z, target, weights, first,
            objective=objective, bounds=bounds, iterations=ITERATIONS,
        )  # fmt: skip
    converged = solved.settled & np.isfinite(solved.loss)
    if not converged.any():
        raise FitError(
            f"{law.name}: none of {len(solved.loss)} starts converged; "
            "the rows may be too few or too alike for this law"
        )
    best = Solution(
        solved.params[converged], solved.loss[converged], solved.settled[converged]
    ).best()
    params, loss = _polish(
        law, z, target[0], weights[0], solved.params[converged][best], objective, bounds
    )
    losses = solved.loss[converged] + rest
    total = loss + rest
    agreeing = int((losses <= total * (1 + AGREEMENT) + 1e-18).sum())
    about = {"tried": len(solved.loss), "converged": int(converged.sum()), "agreeing": agreeing}
    unit = objective.unit
    about["optima"] = _optima(unit * np.append(losses, total), len(design.y), k)
    return Found(params, unit * total, about, True)


def _tile(part: np.ndarray, count: int) -> np.ndarray:
    return np.broadcast_to(part, (count, part.shape[-1]))


def _sobol(law: Law, design: Design, count: int, seed: int) -> np.ndarray:
    low, high = law.start_box(design)
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    power = int(np.ceil(np.log2(max(count, 32))))
    return low + (high - low) * _unit_starts(len(low), power, seed)[:count]


@cache
def _unit_starts(dimensions: int, power: int, seed: int) -> np.ndarray:
    """Return 2^power scrambled Sobol points; making them takes longer than a fit does."""
    # Loaded here: scipy.stats takes longer to import than all else together.
    from scipy.stats import qmc

    return qmc.Sobol(dimensions, seed=seed).random_base2(power)


def _about_squares(law: Law, design: Design, first: np.ndarray) -> np.ndarray:
    """Draw a linear law's starts in towards its least squares: far out its values have no log."""
    slopes = law.evaluate(np.zeros(first.shape[1]), design.z)[1]
    squares = np.linalg.lstsq(slopes, design.y, rcond=None)[0]
    reach = np.ptp(design.y) / np.maximum(np.ptp(slopes, axis=0), 1)
    spread = (first - first.mean(0)) / np.maximum(np.ptp(first, axis=0), 1e-12)
    return squares + 0.25 * reach * spread * (np.arange(len(first)) > 0)[:, None]


def _amplitudes(law: Law, design: Design, theta: np.ndarray, objective: Objective) -> np.ndarray:
    """Give each start the amplitudes that fit best, in relative errors where logs are fitted."""
    weights = 1 / design.y**2 if objective.in_logs else np.ones(len(design.y))
    phi, _ = law.basis(theta, design.z)
    weighted = np.swapaxes(phi, -1, -2) * weights
    active = np.ones((len(theta), phi.shape[-1]), bool)
    right = (weighted @ np.broadcast_to(design.y, (len(theta), len(design.y)))[..., None])[..., 0]
    return amplitudes(weighted @ phi, right, active, signed=law.signed)[0]


def _polish(
    law: Law,
    z: np.ndarray,
    y: np.ndarray,
    weights: np.ndarray,
    params: np.ndarray,
    objective: Objective,
    bounds: Bounds | None,
) -> tuple[np.ndarray, float]:
    """Take the last steps to rounding: undamped, or with scipy where the loss has no curvature."""

    def at(p: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        value, jacobian = objective.scaled(*law.evaluate(p, z))
        loss, slope, curvature = objective.terms(y, value)
        curvature = weights if curvature is None else weights * curvature
        normal = (jacobian * curvature[:, None]).T @ jacobian
        return float((weights * loss).sum()), jacobian.T @ (weights * slope), normal

    with np.errstate(all="ignore"):
        if objective.name == "huber":
            params = _polish_huber(at, params, bounds)
        loss, gradient, normal = at(params)
        for _ in range(POLISH_STEPS):
            step, promised = damped_step(
                params[None], normal[None], gradient[None], np.array([1e-12]), bounds
            )
            moved = params + step[0]
            new_loss, new_gradient, new_normal = at(moved)
            if not new_loss <= loss * (1 + 1e-14):
                break
            params, loss, gradient, normal = moved, min(new_loss, loss), new_gradient, new_normal
            if promised[0] <= 1e-24 * loss:
                break
    return params, loss


def _polish_huber(at, params: np.ndarray, bounds: Bounds | None) -> np.ndarray:
    """Finish a robust fit, whose rows beyond delta have a slope and no curvature."""
    scale = np.maximum(np.abs(params), 1e-6)
    unit = max(at(params)[0], 1e-300)
    box = None if bounds is None else optimize.Bounds(bounds[0] / scale, bounds[1] / scale)

    def fun(p: np.ndarray) -> tuple[float, np.ndarray]:
        loss, gradient, _ = at(p * scale)
        return loss / unit, -2 * gradient * scale / unit

    found = optimize.minimize(
        fun, params / scale, jac=True, bounds=box, method="L-BFGS-B",
        options={"maxiter": 5000, "maxfun": 10000, "ftol": 1e-16, "gtol": 1e-12, "maxcor": 20},
    )  # fmt: skip
    return found.x * scale


def _optima(losses: np.ndarray, n: int, k: int) -> list[dict]:
    """List the distinct losses that are within the F cut of the least, and how many starts led there."""
    if n <= k:
        return []
    ordered = np.sort(losses[:-1])
    cut = losses.min() * (1 + k / (n - k) * f_quantile(CONFIDENCE, k, n - k)) + 1e-18
    ordered = ordered[ordered <= cut]
    groups = np.concatenate([[0], np.cumsum(np.diff(ordered) > DISTINCT * ordered[:-1] + 1e-18)])
    return [
        {"loss": float(ordered[groups == g][0]), "starts": int((groups == g).sum())}
        for g in np.unique(groups[: len(ordered)])
    ]
