"""Laws that bend: saturation at both ends (M4), and a smooth break of the exponent (BNSL)."""

import numpy as np

from mae_lib.scaling.law import Design, Law, separable
from mae_lib.scaling.laws_power import EXPONENT, START_EXPONENT

NEWTON_STEPS = 50


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(0.0, x)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(-_softplus(-x))


def _solve_m4(right: np.ndarray, power: np.ndarray) -> np.ndarray:
    """Solve -softplus(-t) + a softplus(t) = right for t by Newton.

    The left side rises with a slope between min(1, a) and max(1, a), so the step is always defined;
    the start is the exact solution far from the bend.
    """
    t = np.where(right < 0, right, right / power)
    for _ in range(NEWTON_STEPS):
        small = np.exp(-np.abs(t))
        both, share = np.log1p(small), np.where(t > 0, 1.0, small) / (1 + small)
        left = power * (np.maximum(t, 0) + both) - (np.maximum(-t, 0) + both)
        step = (right - left) / (1 + (power - 1) * share)
        t = t + step
        # Newton doubles the digits, so the step after one of 1e-7 is lost in rounding.
        if np.abs(step).max(initial=0.0) < 1e-8:
            break
    return t


def _m4(params: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Evaluate e with (e - E) / (e0 - e)^a = beta prod_j x_j^-c_j, as e = E + (e0 - E) sigmoid(t)."""
    floor, top, power, level = (params[..., j : j + 1] for j in range(4))
    right = level - params[..., 4:] @ z.T
    t = _solve_m4(right, power)
    share = _sigmoid(t)
    by_right = (top - floor) * share * (1 - share) / ((1 - share) + power * share)
    jacobian = np.empty((*share.shape, params.shape[-1]))
    jacobian[..., 0] = 1 - share
    jacobian[..., 1] = share
    jacobian[..., 2] = -by_right * _softplus(t)
    jacobian[..., 3] = by_right
    jacobian[..., 4:] = -by_right[..., None] * z
    return floor + (top - floor) * share, jacobian


def _m4_top(design: Design) -> tuple[float, float]:
    """Return the least and the largest start value: above all data, at most the error of chance."""
    least = design.y.max() * (1 + 1e-6)
    most = 10 * design.y.max() if design.kind == "loss" else 1 - design.chance
    return least, max(most, least)


def _m4_limits(design: Design) -> tuple[np.ndarray, np.ndarray]:
    m, (least, most) = design.z.shape[1], _m4_top(design)
    below = max(design.y.min() * (1 - 1e-6), 0.0)
    return (
        np.array([0.0, least, 0.05, -50.0] + [EXPONENT[0]] * m),
        np.array([below, most, 5.0, 50.0] + [EXPONENT[1]] * m),
    )


def _m4_box(design: Design) -> tuple[np.ndarray, np.ndarray]:
    m, (least, most) = design.z.shape[1], _m4_top(design)
    return (
        np.array([0.0, least + 0.02 * (most - least), 0.3, -2.0] + [START_EXPONENT[0]] * m),
        np.array([0.9 * design.y.min(), 0.5 * (least + most), 2.0, 2.0] + [0.6] * m),
    )


def _break_basis(theta: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give 1 and prod_j x_j^-c0_j (1 + (x_0/d)^(1/f))^(-c1 f), divided by its value at the centre."""
    m = z.shape[1]
    turn, place, width = (theta[..., None, m + j] for j in range(3))
    at, zero = (z[:, 0] - place) / width, -place / width
    bend = _softplus(at) - _softplus(zero)
    power = np.exp(-(theta[..., :m] @ z.T) - turn * width * bend)
    moved = bend - at * _sigmoid(at) + zero * _sigmoid(zero)
    phi = np.stack([np.ones_like(power), power], -1)
    slope = np.zeros((*phi.shape, m + 3))
    slope[..., 1, :m] = -z * power[..., None]
    slope[..., 1, m] = -width * bend * power
    slope[..., 1, m + 1] = turn * (_sigmoid(at) - _sigmoid(zero)) * power
    slope[..., 1, m + 2] = -turn * moved * power
    return phi, slope


def _break_limits(design: Design) -> tuple[np.ndarray, np.ndarray]:
    m, ends = design.z.shape[1], design.z[:, 0]
    # The break lies within the data, and is neither a kink nor wider than the data.
    return (
        np.array([0.0, 0.0, -2.0] + [EXPONENT[0]] * (m - 1) + [-4.0, ends.min(), 0.05]),
        np.array([np.inf, np.inf, 2.0] + [EXPONENT[1]] * (m - 1) + [4.0, ends.max(), 5.0]),
    )


def _break_box(design: Design) -> tuple[np.ndarray, np.ndarray]:
    m, (low, high) = design.z.shape[1], np.quantile(design.z[:, 0], [0.2, 0.8])
    top = design.y.max()
    return (
        np.array([0.0, 0.0] + [START_EXPONENT[0]] * m + [-1.0, low, 0.1]),
        np.array([top, top] + [0.8] * m + [1.0, high, 2.0]),
    )


BEND_LAWS = (
    Law(
        "m4",
        "(e - E) / (e0 - e)^a = beta prod_j x_j^-c_j",
        "arXiv 2209.06640 (equation 5, M4)",
        _m4,
        note="saturates at e0 with little and at E with much; level = ln beta + (a - 1) ln(e0 - E)",
        response="loss",
        levels_needed=4,
        levels_of="one",
        ceiling="1 - E on accuracies",
        parameters=lambda f: ("floor", "top", "power", "level", *(f"exponent_{n}" for n in f)),
        limits=_m4_limits,
        box=_m4_box,
        identifiable="4 + m where the data reach both ends; else the curve, not its parameters",
    ),
    Law(
        "bnsl",
        "E + A prod_j x_j^-c0_j (1 + (x_1 / d)^(1 / f))^(-c1 f), one break, in the first factor",
        "arXiv 2210.14891 (equation 1, n = 1)",
        separable(_break_basis, lambda m: 2),
        note="needs six levels of the first factor, three on each side of the break",
        response="loss",
        levels_needed=6,
        levels_of="first",
        ceiling="1 - E on accuracies",
        parameters=lambda f: (
            *("floor", "part"),
            *(f"exponent_{name}" for name in f),
            *("turn", f"break_ln_{f[0]}", "width"),
        ),
        limits=_break_limits,
        box=_break_box,
        basis=_break_basis,
        linear=lambda m: 2,
        signed=True,
        identifiable="5 + m; turn, place and width only where a break is seen",
    ),
)
