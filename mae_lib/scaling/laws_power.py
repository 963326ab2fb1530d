"""Power laws with a floor: sums, products, and a shift of the factor."""

from dataclasses import replace

import numpy as np

from mae_lib.scaling.law import Design, Law, separable

# An exponent of 0 is the floor over again; 2 is steeper than any published law.
EXPONENT = (1e-3, 2.0)
START_EXPONENT = (0.05, 1.2)
# Levels that a factor needs before a shift of it can be fitted.
SHIFT_LEVELS = 4
# How far a shift may lie from the data, in natural logs.
BEYOND = 5.0


def _sum_basis(theta: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give 1 and exp(-a_j z_j)."""
    m = z.shape[1]
    powers = np.exp(-theta[..., None, :] * z)
    phi = np.concatenate([np.ones((*powers.shape[:-1], 1)), powers], -1)
    slope = np.zeros((*phi.shape, m))
    for j in range(m):
        slope[..., j + 1, j] = -z[:, j] * powers[..., j]
    return phi, slope


def _power_sum(params: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Evaluate E + sum_j A_j exp(-a_j z_j); as `separable` would, without its empty slopes."""
    m = z.shape[1]
    parts = params[..., None, 1 : 1 + m]
    powers = np.exp(-params[..., None, 1 + m :] * z)
    jacobian = np.empty((*powers.shape[:-1], 1 + 2 * m))
    jacobian[..., 0] = 1.0
    jacobian[..., 1 : 1 + m] = powers
    jacobian[..., 1 + m :] = -z * (parts * powers)
    return params[..., :1] + (parts * powers).sum(-1), jacobian


def _product_basis(theta: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give 1 and exp(-sum_j a_j z_j)."""
    power = np.exp(-(theta @ z.T))
    phi = np.stack([np.ones_like(power), power], -1)
    slope = np.zeros((*phi.shape, z.shape[1]))
    slope[..., 1, :] = -z * power[..., None]
    return phi, slope


def _shifted_basis(shifted: tuple[int, ...]):
    """Give 1 and ((x_j + s_j) / (1 + s_j))^-a_j, x in units of the centre, s_j for some j only.

    The search runs over ln s: exponent and shift trade off along a valley that is straighter there.
    """

    def basis(theta: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        m = z.shape[1]
        shift = np.zeros((*theta.shape[:-1], 1, m))
        shift[..., 0, list(shifted)] = np.exp(theta[..., m:])
        exponent = theta[..., None, :m]
        x = np.exp(z)
        logs = np.log((x + shift) / (1 + shift))
        powers = np.exp(-exponent * logs)
        phi = np.concatenate([np.ones((*powers.shape[:-1], 1)), powers], -1)
        slope = np.zeros((*phi.shape, theta.shape[-1]))
        by_shift = -exponent * shift * (1 / (x + shift) - 1 / (1 + shift)) * powers
        for j in range(m):
            slope[..., j + 1, j] = -logs[..., j] * powers[..., j]
        for place, j in enumerate(shifted):
            slope[..., j + 1, m + place] = by_shift[..., j]
        return phi, slope

    return basis


def sum_names(factors: tuple[str, ...]) -> tuple[str, ...]:
    """Name a floor, amplitudes at the centre, exponents."""
    return ("floor", *(f"part_{f}" for f in factors), *(f"exponent_{f}" for f in factors))


def power_limits(amplitudes: int, exponents: int) -> tuple[np.ndarray, np.ndarray]:
    """Bound amplitudes at 0 and exponents within EXPONENT."""
    low = np.array([0.0] * amplitudes + [EXPONENT[0]] * exponents)
    return low, np.array([np.inf] * amplitudes + [EXPONENT[1]] * exponents)


def power_box(design: Design, amplitudes: int, exponents: int) -> tuple[np.ndarray, np.ndarray]:
    """Start exponents within START_EXPONENT, amplitudes within the response's size."""
    low = np.array([0.0] * amplitudes + [START_EXPONENT[0]] * exponents)
    high = np.array([design.y.max()] * amplitudes + [START_EXPONENT[1]] * exponents)
    return low, high


def _bind_shifted(law: Law, design: Design) -> Law:
    levels = [len(np.unique(column.round(9))) for column in design.z.T]
    shifted = tuple(j for j, count in enumerate(levels) if count >= SHIFT_LEVELS)
    m, extra = len(levels), len(shifted)
    basis = _shifted_basis(shifted)

    def limits(design: Design) -> tuple[np.ndarray, np.ndarray]:
        low, high = power_limits(1 + m, m)
        ends = design.z[:, list(shifted)]
        # A shift far below the least x is none; far above the largest it makes a line of the power.
        return np.append(low, ends.min(0) - BEYOND), np.append(high, ends.max(0) + BEYOND)

    def box(design: Design) -> tuple[np.ndarray, np.ndarray]:
        low, high = power_box(design, 1 + m, m)
        return np.append(low, np.full(extra, -3.0)), np.append(high, np.full(extra, 0.5))

    return replace(
        law,
        evaluate=separable(basis, law.linear),
        basis=basis,
        parameters=lambda factors: (
            *sum_names(factors),
            *(f"ln_shift_{factors[j]}" for j in shifted),
        ),
        limits=limits,
        box=box,
        dropped=tuple(
            f"shift of {name}: {count} levels, {SHIFT_LEVELS} are needed"
            for name, count in zip(design.factors, levels, strict=True)
            if count < SHIFT_LEVELS
        ),
    )


def _all_shifted(theta: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return _shifted_basis(tuple(range(z.shape[1])))(theta, z)


POWER_LAWS = (
    Law(
        "power_product",
        "E + A prod_j (x_j / centre_j)^-a_j",
        "arXiv 1712.00409, with more than one factor",
        separable(_product_basis, lambda m: 2),
        note="A is the part above the floor at the centre; falls without end towards E",
        response="loss",
        levels_needed=3,
        ceiling="1 - E on accuracies",
        parameters=lambda f: ("floor", "part", *(f"exponent_{name}" for name in f)),
        limits=lambda d: power_limits(2, d.z.shape[1]),
        box=lambda d: power_box(d, 2, d.z.shape[1]),
        basis=_product_basis,
        linear=lambda m: 2,
        signed=True,
        identifiable="2 + m",
    ),
    Law(
        "power_sum",
        "E + sum_j A_j (x_j / centre_j)^-a_j",
        "arXiv 2203.15556 (equation 2); 1909.12673",
        _power_sum,
        note="A_j is the part of factor j at the centre, so A and a are not correlated by units",
        response="loss",
        levels_needed=3,
        ceiling="1 - E on accuracies",
        parameters=sum_names,
        limits=lambda d: power_limits(1 + d.z.shape[1], d.z.shape[1]),
        box=lambda d: power_box(d, 1 + d.z.shape[1], d.z.shape[1]),
        basis=_sum_basis,
        linear=lambda m: 1 + m,
        signed=True,
        identifiable="1 + 2 m",
    ),
    Law(
        "shifted_power",
        "E + sum_j A_j ((x_j / centre_j + s_j) / (1 + s_j))^-a_j",
        "arXiv 2106.04560 (M3 of 2209.06640)",
        separable(_all_shifted, lambda m: 1 + m),
        note="s_j is in units of the centre, for the factors of 4 levels or more; A_j at the centre",
        response="loss",
        levels_needed=3,
        ceiling="1 - E on accuracies",
        parameters=lambda f: (*sum_names(f), *(f"ln_shift_{name}" for name in f)),
        basis=_all_shifted,
        linear=lambda m: 1 + m,
        signed=True,
        bind=_bind_shifted,
        identifiable="1 + 2 m and a shift for each factor of 4 levels or more",
    ),
)
