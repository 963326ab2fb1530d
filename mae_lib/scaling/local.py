"""One law fitted many times over to the same runs under different weights, seen in ln of the loss.

Laws of a loss are fitted to relative errors, which are errors of the log to first order; laws of an
accuracy, and logarithmic laws, to the response as it stands.
"""

from dataclasses import dataclass, replace

import numpy as np

from mae_lib.errors import FitError
from mae_lib.scaling.law import Design, Law
from mae_lib.scaling.laws import law_named
from mae_lib.scaling.least_squares import refit
from mae_lib.scaling.table import Table

# Starts of every weighted fit; separable laws search their exponents only.
STARTS = 8
LEAST = 1e-12


@dataclass(frozen=True)
class LocalFits:
    """Parameters `[B, k]` and the weights `[B, n]` that they were fitted with."""

    params: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class LocalLaw:
    """A law bound to a table's runs: `z` centred logs, `y` on the law's scale, `log_loss` ln loss.

    `relative`: fitted to relative errors. `accuracy`: the law gives an accuracy, so loss = 1 - it.
    """

    law: Law
    design: Design
    columns: tuple[int, ...]
    centre: np.ndarray
    log_loss: np.ndarray
    relative: bool
    accuracy: bool

    @property
    def z(self) -> np.ndarray:
        """Centred logs of the law's factors, `[n, m]`."""
        return self.design.z

    @property
    def k(self) -> int:
        """Parameters."""
        return len(self.law.parameters(self.design.factors))

    def fit(self, weights: np.ndarray) -> LocalFits:
        """Fit the law under each row of weights `[B, n]`, from the same starts, keeping the best."""
        y = self.design.y
        scaled = weights / np.maximum(y, LEAST) ** 2 if self.relative else weights
        first = self._starts()
        count, tried = len(weights), len(first)
        bounds = self.law.bounds(self.design) if self.law.limits else None
        params, _ = refit(
            self.law,
            self.z,
            y,
            np.repeat(scaled, tried, axis=0),
            np.tile(first, (count, 1)),
            bounds=bounds,
        )
        with np.errstate(all="ignore"):
            miss = y - self.law.evaluate(params, self.z)[0]
            loss = (np.repeat(scaled, tried, axis=0) * miss**2).sum(-1)
        loss = np.where(np.isfinite(loss), loss, np.inf).reshape(count, tried)
        best = np.arange(count) * tried + loss.argmin(1)
        return LocalFits(params[best], weights)

    def log_value(self, params: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Return ln of the loss that the law gives, NaN where it is not above 0 (nor, as error, <= 1)."""
        return self._logs(params, z)[0]

    def answer(
        self, params: np.ndarray, weights: np.ndarray, x: np.ndarray, most_leverage: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return ln loss at raw points `[p]`, and s^2 (1 + h), h the leverage cut at a limit.

        s^2 is the weighted mean squared residual of ln loss, over 1 - k / n.
        """
        rows = weights > 0
        value, jacobian = self._logs(params, self.z[rows])
        miss, weight = self.log_loss[rows] - value, weights[rows]
        known = np.isfinite(miss)
        miss, weight, jacobian = miss[known], weight[known], jacobian[known]
        share = max(1 - self.k / max(len(miss), 1), 1 / max(len(miss), 1))
        variance = float((weight * miss**2).sum() / max(weight.sum() * share, LEAST))
        z = np.log(x)[:, list(self.columns)] - self.centre
        at, gradient = self._logs(params, z)
        gradient = np.where(np.isfinite(gradient), gradient, 0.0)
        information = np.linalg.pinv((jacobian * weight[:, None]).T @ jacobian, rcond=1e-10)
        leverage = np.einsum("pi,ij,pj->p", gradient, information, gradient)
        return at, variance * (1 + np.clip(leverage, 0, most_leverage))

    def _logs(self, params: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with np.errstate(all="ignore"):
            value, jacobian = self.law.evaluate(params, z)
        if self.accuracy:
            value, jacobian = 1 - value, -jacobian
        possible = np.isfinite(value) & (value > LEAST)
        if self.design.kind != "loss":
            possible &= value <= 1
        value = np.where(possible, value, np.nan)
        return np.log(value), jacobian / value[..., None]

    def _starts(self) -> np.ndarray:
        """Return Sobol points of the law's start box, `[STARTS, k]`."""
        low, high = (np.asarray(part, np.float64) for part in self.law.start_box(self.design))
        linear = self.law.linear(self.z.shape[1])
        count = 1 if linear == self.k else STARTS
        # Loaded here: scipy.stats takes longer to import than all else together.
        from scipy.stats import qmc

        unit = qmc.Sobol(len(low), seed=0).random_base2(int(np.log2(STARTS)))[:count]
        return low + (high - low) * unit


def local_law(table: Table, name: str) -> LocalLaw | None:
    """Bind a law to all runs of a table; None where its factors or scale do not fit the table."""
    law = law_named(name).with_roles(table.roles)
    try:
        factors = law.used(table.factors)
    except FitError:
        return None
    if law.response == "accuracy" and table.kind == "loss":
        return None
    flips = (law.response, table.kind) in (("loss", "accuracy"), ("accuracy", "error"))
    columns = tuple(table.factors.index(factor) for factor in factors)
    logs = table.logs[:, list(columns)]
    centre = logs.mean(0)
    centre[[law.roles.index(role) for role in law.uncentred]] = 0.0
    y = 1 - table.y if flips else table.y
    kind = {"accuracy": "error", "error": "accuracy"}[table.kind] if flips else table.kind
    design = Design(factors, logs - centre, y, kind)
    error = 1 - table.y if table.kind == "accuracy" else table.y
    return LocalLaw(
        law=law.bound(design),
        design=replace(design),
        columns=columns,
        centre=centre,
        log_loss=np.log(np.maximum(error, LEAST if table.kind == "loss" else 1e-4)),
        relative=law.response == "loss",
        accuracy=kind == "accuracy",
    )
