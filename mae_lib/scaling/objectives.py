"""What a fit minimises: squares of the response or its log, Huber's loss of the log, or deviance.

Every objective gives twice a negative log-likelihood, so its gradient by the value f is -2 slope and
its expected curvature 2 curvature.
"""

from dataclasses import dataclass

import numpy as np

from mae_lib.errors import FitError

OBJECTIVES = ("ls", "log", "huber", "binomial")
# A law that leaves the positive numbers has no log: it is held here, with a gradient to come back.
LEAST = 1e-12


@dataclass(frozen=True)
class Objective:
    """One of OBJECTIVES; `delta` is Huber's bend, in natural logs.

    ls: sum (y - f)^2. log: sum (ln y - ln f)^2. huber: 2 sum h(ln y - ln f), h(r) = r^2 / 2 within
    delta and delta (|r| - delta / 2) beyond (arXiv 2203.15556). binomial: deviance of y successes
    a trial, rows weighted by their trials.
    """

    name: str = "ls"
    delta: float = 1e-3

    @property
    def in_logs(self) -> bool:
        """Whether response and law are compared in logs."""
        return self.name in ("log", "huber")

    def target(self, y: np.ndarray) -> np.ndarray:
        """Return the response on the objective's scale.

        Raises: FitError for values that have no log, or that are no share of trials.
        """
        if self.in_logs and (y <= 0).any():
            row = int(np.argmax(y <= 0))
            raise FitError(
                f"objective {self.name}: row {row}: needs a value above 0, got {y[row]:g}"
            )
        if self.name == "binomial" and ((y < 0) | (y > 1)).any():
            row = int(np.argmax((y < 0) | (y > 1)))
            raise FitError(
                f"objective binomial: row {row}: needs a share of trials, got {y[row]:g}"
            )
        return np.log(y) if self.in_logs else y

    def scaled(self, value: np.ndarray, jacobian: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return a law's value and Jacobian on the objective's scale."""
        if not self.in_logs:
            return value, jacobian
        safe = np.maximum(value, LEAST)
        return np.log(safe), jacobian / safe[..., None]

    def terms(
        self, y: np.ndarray, value: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Return loss, slope and curvature by row; no curvature stands for 1."""
        if self.name == "huber":
            residual = y - value
            size = np.abs(residual)
            inside = size <= self.delta
            loss = np.where(inside, residual**2, 2 * self.delta * size - self.delta**2)
            slope = np.clip(residual, -self.delta, self.delta)
            # The curvature of the quadratic that touches from above (iteratively reweighted least
            # squares) where the loss is straight: its own is 0 there, and rank would be lost.
            return loss, slope, np.where(inside, 1.0, self.delta / np.maximum(size, self.delta))
        if self.name == "binomial":
            share = np.clip(value, LEAST, 1 - LEAST)
            variance = share * (1 - share)
            return _deviance(y, share), (y - share) / variance, 1 / variance
        residual = y - value
        return residual**2, residual, None

    @property
    def unit(self) -> float:
        """What the summed loss is multiplied by to be reported: Huber's is printed by its halves."""
        return 0.5 if self.name == "huber" else 1.0

    @property
    def takes_means(self) -> bool:
        """Whether rows of one cell may be replaced by their mean and summed weight."""
        return self.name != "huber"


def _deviance(y: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Return 2 (y ln(y / p) + (1 - y) ln((1 - y) / (1 - p))), with 0 ln 0 = 0."""
    one = y * np.log(np.maximum(y, LEAST) / share)
    two = (1 - y) * np.log(np.maximum(1 - y, LEAST) / (1 - share))
    return 2 * (one + two)


def objective_named(name: str, delta: float) -> Objective:
    """Return an objective; raises FitError for an unknown name or a delta that is not above 0."""
    if name not in OBJECTIVES:
        raise FitError(f"objective: one of {', '.join(OBJECTIVES)}, got {name!r}")
    if not delta > 0:
        raise FitError(f"delta: must be a number above 0, got {delta!r}")
    return Objective(name, delta)
