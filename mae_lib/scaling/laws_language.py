"""Laws of model size and data as language modelling writes them."""

import numpy as np

from mae_lib.scaling.law import Design, Law, separable
from mae_lib.scaling.laws_power import EXPONENT, START_EXPONENT, power_box, power_limits


def _kaplan(params: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Evaluate (P_N^(1/aD) (N/centre)^(-aN/aD) + P_D^(1/aD) (D/centre)^-1)^aD in logs."""
    part_n, part_d, a_n, a_d = (params[..., j : j + 1] for j in range(4))
    one = (np.log(part_n) - a_n * z[:, 0]) / a_d
    two = np.log(part_d) / a_d - z[:, 1]
    joined = np.logaddexp(one, two)
    value = np.exp(a_d * joined)
    share = np.exp(one - joined)
    by_a_d = joined - share * one - (1 - share) * np.log(part_d) / a_d
    return value, np.stack(
        [
            value * share / part_n,
            value * (1 - share) / part_d,
            -value * share * z[:, 0],
            value * by_a_d,
        ],
        -1,
    )


def _kaplan_limits(design: Design) -> tuple[np.ndarray, np.ndarray]:
    # The printed form has no upper end; 20 times the largest value leaves the fit free.
    return (
        np.array([1e-6, 1e-6, EXPONENT[0], 1e-2]),
        np.array([20 * design.y.max()] * 2 + [EXPONENT[1]] * 2),
    )


def _kaplan_box(design: Design) -> tuple[np.ndarray, np.ndarray]:
    middle = float(np.median(design.y))
    return (
        np.array([0.2 * middle] * 2 + [START_EXPONENT[0]] * 2),
        np.array([middle] * 2 + [0.6, 0.6]),
    )


def _overtrain_basis(theta: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give 1, M^eta C^-eta and M^-eta C^-eta: (N/centre)^(-2 eta) and (D/centre)^(-2 eta)."""
    powers = np.exp(-2 * theta[..., None, :] * z)
    phi = np.concatenate([np.ones((*powers.shape[:-1], 1)), powers], -1)
    slope = np.zeros((*phi.shape, 1))
    slope[..., 1:, 0] = -2 * z * powers
    return phi, slope


def _constrained_basis(theta: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give 1, effective data^-b, other factors^-a_j; z holds ln data, ln epochs, then the others."""
    exponents, worth = theta[..., None, :-1], theta[..., None, -1]
    repeats = np.exp(z[:, 1]) - 1
    fade = np.exp(-repeats / worth)
    gain = 1 + worth * (1 - fade)
    logs = np.empty((*gain.shape, z.shape[1] - 1))
    logs[..., 0] = z[:, 0] + np.log(gain)
    logs[..., 1:] = z[:, 2:]
    powers = np.exp(-exponents * logs)
    phi = np.concatenate([np.ones((*powers.shape[:-1], 1)), powers], -1)
    slope = np.zeros((*phi.shape, theta.shape[-1]))
    for j in range(logs.shape[-1]):
        slope[..., j + 1, j] = -logs[..., j] * powers[..., j]
    by_worth = (1 - fade - repeats / worth * fade) / gain
    slope[..., 1, -1] = -exponents[..., 0] * by_worth * powers[..., 0]
    return phi, slope


def _constrained_names(factors: tuple[str, ...]) -> tuple[str, ...]:
    named = (factors[0], *factors[2:])
    return (
        "floor",
        *(f"part_{f}" for f in named),
        *(f"exponent_{f}" for f in named),
        "worth_of_repeats",
    )


def _constrained_limits(design: Design) -> tuple[np.ndarray, np.ndarray]:
    m = design.z.shape[1]
    low, high = power_limits(m, m - 1)
    return np.append(low, 0.05), np.append(high, 1e3)


def _constrained_box(design: Design) -> tuple[np.ndarray, np.ndarray]:
    m = design.z.shape[1]
    low, high = power_box(design, m, m - 1)
    return np.append(low, 0.5), np.append(high, 2 * np.exp(design.z[:, 1].max()))


LANGUAGE_LAWS = (
    Law(
        "kaplan",
        "((Nc / N)^(aN / aD) + Dc / D)^aD",
        "arXiv 2001.08361 (equation 1.5)",
        _kaplan,
        note="no floor: falls to 0; the parts are (Nc/N)^aN and (Dc/D)^aD at the centre",
        response="loss",
        levels_needed=3,
        ceiling="1 on accuracies",
        roles=("parameters", "data"),
        parameters=lambda f: (
            f"part_{f[0]}",
            f"part_{f[1]}",
            f"exponent_{f[0]}",
            f"exponent_{f[1]}",
        ),
        limits=_kaplan_limits,
        box=_kaplan_box,
        identifiable="4",
    ),
    Law(
        "data_constrained",
        "E + A_D (D' / centre)^-b + sum_j A_j (x_j / centre_j)^-a_j, "
        "D' = U (1 + r (1 - exp(-(epochs - 1) / r)))",
        "arXiv 2305.16264 (equation 5), U distinct data",
        separable(_constrained_basis, lambda m: m),
        note="epochs must vary apart from distinct data; large r: repeats are as good as new data",
        response="loss",
        levels_needed=3,
        ceiling="1 - E on accuracies",
        roles=("data", "epochs"),
        others=True,
        uncentred=("epochs",),
        parameters=_constrained_names,
        limits=_constrained_limits,
        box=_constrained_box,
        basis=_constrained_basis,
        linear=lambda m: m,
        signed=True,
        identifiable="2 m; r only where epochs reach the bend",
    ),
    Law(
        "overtrain",
        "E + (a M^eta + b M^-eta) C^-eta, M = D / N, C = N D, each over its centre",
        "arXiv 2403.08540 (equation 4)",
        separable(_overtrain_basis, lambda m: 3),
        note="power_sum with one exponent, 2 eta, for parameters and data",
        response="loss",
        levels_needed=3,
        ceiling="1 - E on accuracies",
        roles=("parameters", "data"),
        parameters=lambda f: ("floor", "a", "b", "eta"),
        limits=lambda d: power_limits(3, 1),
        box=lambda d: (
            np.array([0.0, 0.0, 0.0, START_EXPONENT[0] / 2]),
            np.array([d.y.max()] * 3 + [START_EXPONENT[1] / 2]),
        ),
        basis=_overtrain_basis,
        linear=lambda m: 3,
        signed=True,
        identifiable="4",
    ),
)
