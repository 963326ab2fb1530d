"""Fit a law to a table: scipy from many starts, intervals from a bootstrap over cells or clusters."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from mae_lib.errors import FitError
from mae_lib.scaling.identify import identifiability
from mae_lib.scaling.laws import Law, law_named
from mae_lib.scaling.least_squares import refit
from mae_lib.scaling.table import Table
from mae_lib.scaling.uncertainty import lack_of_fit, resample_weights

STARTS = 20
# Starts agree when their sums of squares do, relatively.
AGREEMENT = 1e-8


@dataclass(frozen=True)
class Fit:
    """A fitted law. `params` hold at `centre` (logs); `draws` are the bootstrap's parameters."""

    law: Law
    table: Table
    factors: tuple[str, ...]
    centre: np.ndarray
    params: np.ndarray
    draws: np.ndarray
    intervals: np.ndarray
    sse: float
    starts: dict
    bootstrap: dict
    lack_of_fit: dict | None
    identifiability: dict
    objective: str = "ls"
    status: str = "complete"

    @property
    def n(self) -> int:
        """Rows."""
        return len(self.table.frame)

    @property
    def k(self) -> int:
        """Parameters."""
        return len(self.params)

    @property
    def rmse(self) -> float:
        """Root mean squared residual, as a fraction."""
        return float(np.sqrt(self.sse / self.n))

    @property
    def aicc(self) -> float | None:
        """AIC with its small-sample term, the error variance counted; None with too few rows."""
        count = self.k + 1
        if self.n - count - 1 <= 0:
            return None
        penalty = 2 * count + 2 * count * (count + 1) / (self.n - count - 1)
        return float(self.n * np.log(max(self.sse, 1e-300) / self.n) + penalty)

    @property
    def bic(self) -> float:
        """BIC, the error variance counted."""
        return float(
            self.n * np.log(max(self.sse, 1e-300) / self.n) + (self.k + 1) * np.log(self.n)
        )

    def fitted(self) -> np.ndarray:
        """Return the law's value at every row."""
        return self.law.evaluate(self.params, _centred(self.table, self.factors, self.centre))[0]

    @property
    def design(self) -> np.ndarray:
        """Return the law's Jacobian at the rows, on the objective's scale, `[n, k]`."""
        return self.law.evaluate(self.params, _centred(self.table, self.factors, self.centre))[1]

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return the law's value at raw factor values `[p, m]`, in the table's own kind."""
        return self.law.evaluate(self.params, self._at(x))[0]

    def gradient(self, x: np.ndarray) -> np.ndarray:
        """Return the derivative of `predict` by the parameters, `[p, k]`."""
        return self.law.evaluate(self.params, self._at(x))[1]

    def draws_at(self, x: np.ndarray) -> np.ndarray:
        """Return `predict` for every bootstrap draw, `[B, p]`."""
        return self.law.evaluate(self.draws, self._at(x))[0]

    def _at(self, x: np.ndarray) -> np.ndarray:
        columns = [self.table.factors.index(factor) for factor in self.factors]
        return np.log(np.atleast_2d(np.asarray(x, np.float64))[:, columns]) - self.centre

    def to_json(self) -> dict:
        """Return the fit as the `fit` commands and fit.json give it."""
        names = self.law.names(self.table.factors)
        return {
            "format": 1,
            "law": self.law.name,
            "formula": self.law.formula,
            "source": self.law.source,
            "n": self.n,
            "k": self.k,
            "sse": self.sse,
            "rmse": self.rmse,
            "aicc": self.aicc,
            "bic": self.bic,
            "centre": {f: float(np.exp(c)) for f, c in zip(self.factors, self.centre, strict=True)},
            "params": dict(zip(names, self.params.tolist(), strict=True)),
            "intervals": dict(zip(names, self.intervals.tolist(), strict=True)),
            "status": "complete",
            "starts": self.starts,
            "bootstrap": self.bootstrap,
            "lack_of_fit": self.lack_of_fit,
            "identifiability": self.identifiability,
        }


def fit_laws(table: Table, laws: Sequence[str], **options) -> tuple[Fit, ...]:
    """Fit several laws to one table."""
    return tuple(fit_law(table, name, **options) for name in laws)


def fit_law(
    table: Table,
    name: str,
    *,
    bootstrap: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    centre: np.ndarray | None = None,
) -> Fit:
    """Fit one law by least squares on the response, with factors centred on the table's mean logs.

    The bootstrap draws whole clusters where the table names them, else rows; refits that fail are
    left out and counted.
    Raises: FitError when there are fewer rows than parameters, or no start converges.
    """
    law = law_named(name)
    factors = law.used(table.factors)
    columns = [table.factors.index(factor) for factor in factors]
    centre = table.logs[:, columns].mean(0) if centre is None else np.asarray(centre)
    z, y = _centred(table, factors, centre), table.y
    k = len(factors) + 1
    if len(y) < k:
        raise FitError(f"{name}: {k} parameters need at least {k} rows, got {len(y)}")
    params, sse, starts = _search(law, z, y, seed)
    weights, unit = resample_weights(table, bootstrap, seed)
    draws, converged = refit(law, z, y, weights, params)
    kept = draws[converged]
    if len(kept) < bootstrap / 2:
        intervals = np.full((k, 2), np.nan)
    else:
        intervals = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2], axis=0).T
    return Fit(
        law=law,
        table=table,
        factors=factors,
        centre=centre,
        params=params,
        draws=kept,
        intervals=np.where(np.isfinite(intervals), intervals, None),
        sse=sse,
        starts=starts,
        bootstrap={
            "unit": unit,
            "refits": bootstrap,
            "failed": int((~converged).sum()),
            "level": level,
        },
        lack_of_fit=lack_of_fit(table, sse, k),
        identifiability=identifiability(law, table, factors, params, z),
    )


def _centred(table: Table, factors: tuple[str, ...], centre: np.ndarray) -> np.ndarray:
    columns = [table.factors.index(factor) for factor in factors]
    return table.logs[:, columns] - centre


def _search(law: Law, z: np.ndarray, y: np.ndarray, seed: int) -> tuple[np.ndarray, float, dict]:
    """Run scipy from Sobol starts about the linear solution; return the best and how many agree."""
    k, spread = z.shape[1] + 1, np.maximum(np.ptp(z, axis=0), 1e-12)
    sobol = stats.qmc.Sobol(k, seed=seed).random(32)[:STARTS]
    level = np.quantile(y, 0.05 + 0.9 * sobol[:, 0])
    level = np.log(level / (1 - level)) if law.name.startswith("logit") else level
    slopes = (2 * sobol[:, 1:] - 1) / spread
    results = []
    for start in np.column_stack([level, slopes]):
        found = optimize.least_squares(
            lambda p: law.evaluate(p, z)[0] - y,
            start,
            jac=lambda p: law.evaluate(p, z)[1],
            method="trf",
            x_scale="jac",
            ftol=1e-14,
            xtol=1e-14,
            gtol=1e-14,
            max_nfev=500,
        )
        if found.status > 0 and np.isfinite(found.cost):
            results.append((2 * float(found.cost), found.x))
    if not results:
        raise FitError(f"{law.name}: none of {STARTS} starts converged")
    sse, params = min(results, key=lambda result: result[0])
    agreeing = sum(other <= sse * (1 + AGREEMENT) + 1e-18 for other, _ in results)
    return params, sse, {"tried": STARTS, "converged": len(results), "agreeing": agreeing}
