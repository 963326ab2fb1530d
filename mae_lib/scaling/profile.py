"""Profile likelihood of a parameter or of a prediction: how far it may move before the fit is worse.

For each value c of the quantity q, all parameters are fitted again with q held at c; the interval
holds the c whose loss stays below the cut. It follows the law's bends, which quantiles of a
bootstrap and standard errors do not, and shows an end that the data do not bound. Rows count as
independent: with clusters, read it beside the bootstrap.

The constraint is a heavy penalty: the least of loss + w^2 (q - c)^2 is exactly the constrained least
at the q that it reaches, so every point lies on the profile whatever w is.
Source: Venzon and Moolgavkar 1988, Applied Statistics 37, 87-94; Bates and Watts 1988, chapter 6.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from mae_lib.errors import FitError
from mae_lib.scaling.distributions import f_quantile
from mae_lib.scaling.fit import Fit
from mae_lib.scaling.law import Design
from mae_lib.scaling.objectives import Objective

# The penalty's share of the profile's own curvature, and how often a step doubles before an end
# counts as open.
_HEAVY, _DOUBLINGS = 1e4, 24
# A quantity that follows less than this share of a step has reached its own limit.
_STALLS = 0.05
_REFINEMENTS = 12
_OPEN = "not bounded by the data"

Quantity = Callable[[np.ndarray], tuple[float, np.ndarray]]


@dataclass(frozen=True)
class Profile:
    """A profile interval. An end that is not bounded holds the farthest value that was reached.

    `points` `[p, 2]` are the values and losses that were visited, in order of value; `better` is
    true where the profile found a lower loss than the fit, which then is no minimum.
    """

    name: str
    estimate: float
    low: float
    high: float
    low_bounded: bool
    high_bounded: bool
    level: float
    points: np.ndarray
    better: bool
    limits: tuple[float, float] = (-np.inf, np.inf)

    @property
    def words(self) -> str:
        """The interval for a sentence; an open end says that the data do not bound it."""
        low = self._end(self.low, self.low_bounded, self.limits[0], "or less")
        high = self._end(self.high, self.high_bounded, self.limits[1], "or more")
        return f"{self.name}: {low} to {high}"

    @staticmethod
    def _end(value: float, bounded: bool, limit: float, beyond: str) -> str:
        if bounded:
            return f"{value:.4g}"
        return f"{value:.4g} {'its bound' if value == limit else beyond} ({_OPEN})"

    def to_json(self) -> dict:
        """Return the interval as the commands give it; an open end is null, and said."""
        return {
            "estimate": self.estimate,
            "low": self.low if self.low_bounded else None,
            "high": self.high if self.high_bounded else None,
            "reached": [self.low, self.high],
            "level": self.level,
            "words": self.words,
        }


def profile_parameter(fit: Fit, name: str, *, level: float = 0.95) -> Profile:
    """Profile one parameter by its name.

    Raises: FitError for a name that the law does not have.
    """
    names = fit.law.names(fit.table.factors)
    if name not in names:
        raise FitError(f"profile: {name}: {fit.law.name} has {', '.join(names)}")
    place = names.index(name)
    unit = np.eye(fit.k)[place]
    limits = tuple(float(side[place]) for side in _Problem.of(fit).bounds)
    return _profile(fit, name, lambda params: (float(params[place]), unit), level, limits)


def profile_prediction(
    fit: Fit, at: Mapping[str, float], *, level: float = 0.95, name: str = "prediction"
) -> Profile:
    """Profile the law's value at a point, in the table's own kind (fraction or loss).

    Raises: FitError when a factor is missing or not above 0.
    """
    for factor in fit.factors:
        if not at.get(factor, 0) > 0:
            raise FitError(
                f"at: {factor}: must be a number above 0, got {at.get(factor, 'nothing')}"
            )
    z = np.log([[float(at[factor]) for factor in fit.factors]]) - fit.centre
    sign, offset = (-1.0, 1.0) if fit.flips else (1.0, 0.0)

    def value(params: np.ndarray) -> tuple[float, np.ndarray]:
        found, gradient = fit.law.evaluate(params, z)
        return offset + sign * float(found[0]), sign * gradient[0]

    return _profile(fit, name, value, level)


def _profile(
    fit: Fit,
    name: str,
    quantity: Quantity,
    level: float,
    limits: tuple[float, float] = (-np.inf, np.inf),
) -> Profile:
    problem = _Problem.of(fit)
    left = fit.n - fit.k
    if left < 1:
        raise FitError(f"profile: {fit.law.name}: {fit.n} rows leave no freedom for {fit.k}")
    best = problem.loss(fit.params)
    estimate, gradient = quantity(fit.params)
    scale = problem.scale(best, left)
    if not scale > 0:
        raise FitError(f"profile: {fit.law.name}: fits every row exactly, nothing to profile")
    _, jacobian = problem.residuals(fit.params)
    variance = scale * float(gradient @ np.linalg.pinv(jacobian.T @ jacobian) @ gradient)
    width = np.sqrt(variance) if variance > 0 else 1e-3 * (1 + abs(estimate))
    # F(1, n - k): the exact cut where the law is linear and the errors are normal.
    cut = best + scale * f_quantile(level, 1, left)
    weight = np.sqrt(_HEAVY * max(scale, 1e-300)) / width
    visited = [(estimate, best)]
    # Where the profile is a parabola, the first step lands on the cut.
    first = width * np.sqrt((cut - best) / scale)
    ends = [
        _end(problem, quantity, fit.params, weight, side * first, cut, visited) for side in (-1, 1)
    ]
    points = np.array(sorted(visited))
    low, high = (
        limit if not bounded and abs(value - limit) <= 1e-6 * (1 + abs(limit)) else value
        for (value, bounded), limit in zip(ends, limits, strict=True)
    )
    return Profile(
        name, estimate, low, high, ends[0][1], ends[1][1], level, points,
        better=bool(points[:, 1].min() < best * (1 - 1e-6)), limits=limits,
    )  # fmt: skip


def _end(
    problem: "_Problem",
    quantity: Quantity,
    params: np.ndarray,
    weight: float,
    step: float,
    cut: float,
    visited: list[tuple[float, float]],
) -> tuple[float, bool]:
    """Walk one way, doubling the step, until the loss passes the cut; then close in on the cut."""
    inside, loss, at = *visited[0], params
    start = inside
    for doubling in range(_DOUBLINGS):
        aim = start + step * 2**doubling
        moved = problem.held(quantity, aim, weight, at)
        value = quantity(moved)[0]
        here = problem.loss(moved)
        visited.append((value, here))
        if here > cut:
            return _close_in(
                problem, quantity, (inside, loss, at), (value, here), weight, cut, visited
            )
        if abs(value - inside) < _STALLS * abs(aim - inside):
            return value, False
        inside, loss, at = value, here, moved
    return inside, False


def _close_in(
    problem: "_Problem",
    quantity: Quantity,
    inner: tuple[float, float, np.ndarray],
    outer: tuple[float, float],
    weight: float,
    cut: float,
    visited: list[tuple[float, float]],
) -> tuple[float, bool]:
    """Find where the loss crosses the cut between two visited values, by the Illinois rule."""
    best = visited[0][1]

    def gap(loss: float) -> float:
        # Roots make a parabola two straight lines, on which the rule needs few steps.
        return float(np.sqrt(max(loss - best, 0.0)) - np.sqrt(cut - best))

    low, low_gap, at = inner[0], gap(inner[1]), inner[2]
    high, high_gap = outer[0], gap(outer[1])
    last = 0
    for _ in range(_REFINEMENTS):
        if abs(high_gap) < 1e-4 * np.sqrt(cut - best):
            return high, True
        aim = low - low_gap * (high - low) / (high_gap - low_gap)
        moved = problem.held(quantity, aim, weight, at)
        value, loss = quantity(moved)[0], problem.loss(moved)
        visited.append((value, loss))
        here = gap(loss)
        if abs(here) < 1e-4 * np.sqrt(cut - best):
            return value, True
        if here < 0:
            low, low_gap, at = value, here, moved
            high_gap = high_gap / 2 if last < 0 else high_gap
        else:
            high, high_gap = value, here
            low_gap = low_gap / 2 if last > 0 else low_gap
        last = -1 if here < 0 else 1
    return low - low_gap * (high - low) / (high_gap - low_gap), True


@dataclass(frozen=True)
class _Problem:
    """What a fit minimised, as residuals whose squares are the loss of each row."""

    fit: Fit
    objective: Objective
    target: np.ndarray
    weights: np.ndarray
    bounds: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(cls, fit: Fit) -> "_Problem":
        """Rebuild the problem of a fit, on the law's own scale."""
        table, options = fit.table, fit.options
        y = 1 - table.y if fit.flips else table.y
        kind = {"accuracy": "error", "error": "accuracy"}[table.kind] if fit.flips else table.kind
        design = Design(fit.factors, fit.z, y, kind, float(options.get("chance", 0.0)))
        objective = Objective(fit.objective, float(options.get("delta", 1e-3)))
        weights = np.ones(fit.n)
        if fit.objective == "binomial":
            weights = table.frame[table.trials].to_numpy(np.float64)
        return cls(fit, objective, objective.target(y), weights, fit.law.bounds(design))

    def residuals(self, params: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return signed roots of the rows' losses `[n]` and their Jacobian `[n, k]`."""
        with np.errstate(all="ignore"):
            value, jacobian = self.fit.law.evaluate(params, self.fit.z)
            value, jacobian = self.objective.scaled(value, jacobian)
            loss, slope, curvature = self.objective.terms(self.target, value)
            root = np.sqrt(np.maximum(loss, 0) * self.weights)
            # At a loss of 0 the root's slope is the root of the curvature.
            flat = np.sqrt((1.0 if curvature is None else curvature) * self.weights)
            steep = np.where(
                root > 1e-9, np.abs(slope) * self.weights / np.maximum(root, 1e-9), flat
            )
            return np.sign(slope) * root, -steep[:, None] * jacobian

    def loss(self, params: np.ndarray) -> float:
        """Return the sum of the rows' losses."""
        return float((self.residuals(params)[0] ** 2).sum())

    def scale(self, best: float, left: int) -> float:
        """Return the variance of a residual; for counts at least 1, more when they scatter more."""
        return max(1.0, best / left) if self.objective.name == "binomial" else best / left

    def held(self, quantity: Quantity, aim: float, weight: float, start: np.ndarray) -> np.ndarray:
        """Return the parameters of least loss with the quantity pulled to `aim`."""
        low, high = self.bounds
        # scipy wants a start strictly inside; a bound is left by a billionth of its size.
        room = 1e-9 * (1 + np.abs(start))
        inside = np.clip(start, low + room, np.maximum(high - room, low + room))

        known: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}

        def both(params: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            # scipy asks for residuals and Jacobian of one point apart; they are computed together.
            if (key := params.tobytes()) not in known:
                rows, slopes = self.residuals(params)
                value, gradient = quantity(params)
                pulled = np.append(np.nan_to_num(rows, nan=1e6), weight * (value - aim))
                known.clear()
                known[key] = pulled, np.vstack([np.nan_to_num(slopes), weight * gradient])
            return known[key]

        free = not np.isfinite([low, high]).any()
        found = optimize.least_squares(
            lambda params: both(params)[0],
            inside,
            jac=lambda params: both(params)[1],
            bounds=(low, high),
            method="lm" if free and len(self.target) >= len(inside) else "trf",
            x_scale="jac",
            ftol=1e-11,
            xtol=1e-11,
            gtol=1e-11,
            max_nfev=200,
        )
        return found.x
