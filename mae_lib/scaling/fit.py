"""Fit a law to a table: many starts, then intervals from a bootstrap over clusters or cells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from mae_lib.errors import FitError
from mae_lib.scaling.identify import identifiability
from mae_lib.scaling.laws import Design, Law, law_named
from mae_lib.scaling.least_squares import refit
from mae_lib.scaling.objectives import Objective, objective_named
from mae_lib.scaling.search import search
from mae_lib.scaling.table import Table, require_logs
from mae_lib.scaling.uncertainty import (
    bootstrap_intervals,
    cluster_count,
    lack_of_fit,
    resample_responses,
    resample_weights,
)

FEWEST_REFITS, MOST_REFITS = 20, 100_000


@dataclass(frozen=True)
class Fit:
    """A fitted law. `params` hold at `centre` (logs); `draws` are the bootstrap's parameters.

    `law` is bound to the table's design. `sse` is on the objective's scale (fractions, native loss,
    or logs); `criterion` is what the objective minimised: the sum of squares, of Huber's loss, or
    the deviance. `flips`: the law lives on 1 - y (an error law on accuracies), and every answer is
    given back on the table's scale. `at_bound` names parameters at their bound: no interval there.
    """

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
    criterion: float = float("nan")
    flips: bool = False
    at_bound: tuple[str, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)

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
        """Root mean squared residual on the objective's scale; a fraction for ls on accuracies."""
        return float(np.sqrt(self.sse / self.n))

    @property
    def aicc(self) -> float | None:
        """AIC with its small-sample term, the error variance counted; None with too few rows.

        n ln(SSE / n) + 2 K + 2 K (K + 1) / (n - K - 1), K = k + 1.
        """
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

    @property
    def z(self) -> np.ndarray:
        """The centred logs of the law's factors at the rows, `[n, m]`."""
        return centred(self.table.logs, self.table.factors, self.factors, self.centre)

    @property
    def design(self) -> np.ndarray:
        """Return the law's Jacobian at the rows, on the objective's scale, `[n, k]`."""
        with np.errstate(all="ignore"):
            value, jacobian = self.law.evaluate(self.params, self.z)
            return self._objective.scaled(value, jacobian)[1]

    @property
    def _objective(self) -> Objective:
        return Objective(self.objective, float(self.options.get("delta", 1e-3)))

    def fitted(self) -> np.ndarray:
        """Return the law's value at every row, on the table's scale."""
        return self._answer(self.law.evaluate(self.params, self.z)[0])

    def predict(self, x: ArrayLike) -> np.ndarray:
        """Return the law's value at raw factor values `[p, m]`, on the table's scale, `[p]`."""
        with np.errstate(all="ignore"):
            return self._answer(self.law.evaluate(self.params, self._at(x))[0])

    def gradient(self, x: ArrayLike) -> np.ndarray:
        """Return the derivative of `predict` by the parameters, `[p, k]`."""
        with np.errstate(all="ignore"):
            jacobian = self.law.evaluate(self.params, self._at(x))[1]
        return -jacobian if self.flips else jacobian

    def draws_at(self, x: ArrayLike) -> np.ndarray:
        """Return `predict` for every bootstrap draw, `[B, p]`."""
        if not len(self.draws):
            return np.empty((0, len(np.atleast_2d(x))))
        with np.errstate(all="ignore"):
            return self._answer(self.law.evaluate(self.draws, self._at(x))[0])

    def _answer(self, value: np.ndarray) -> np.ndarray:
        return 1 - value if self.flips else value

    def _at(self, x: ArrayLike) -> np.ndarray:
        logs = np.log(np.atleast_2d(np.asarray(x, np.float64)))
        return centred(logs, self.table.factors, self.factors, self.centre)

    def to_json(self) -> dict:
        """Return the fit as the `fit` commands and fit.json give it."""
        names = self.law.names(self.table.factors)
        return {
            "format": 1,
            "law": self.law.name,
            "formula": self.law.formula,
            "source": self.law.source,
            "objective": self.objective,
            "criterion": self.criterion,
            "n": self.n,
            "k": self.k,
            "sse": self.sse,
            "rmse": self.rmse,
            "aicc": self.aicc,
            "bic": self.bic,
            "centre": {f: float(np.exp(c)) for f, c in zip(self.factors, self.centre, strict=True)},
            "params": dict(zip(names, self.params.tolist(), strict=True)),
            "intervals": dict(zip(names, self.intervals.tolist(), strict=True)),
            "status": self.status,
            "at_bound": list(self.at_bound),
            "dropped": list(self.law.dropped),
            "ceiling": self.law.ceiling,
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
    objective: str = "ls",
    delta: float = 1e-3,
    bootstrap: int = 2000,
    resample: str | None = None,
    chance: float = 0.0,
    starts: int | None = None,
    seed: int = 0,
    level: float = 0.95,
    centre: np.ndarray | None = None,
) -> Fit:
    """Fit one law, with factors centred on the table's mean logs unless `centre` says otherwise.

    `objective` is ls, log, huber (of the log, bend `delta`) or binomial (needs the table's trials).
    An error law on accuracies is fitted to 1 - y. The bootstrap draws whole clusters where the
    table names them, else rows; `resample` chooses. Refits that fail are left out and counted.
    Raises: FitError when the law does not apply, has more parameters than rows, or no start
    converges.
    """
    _check_options(table, bootstrap, chance)
    law = law_named(name).with_roles(table.roles)
    goal = objective_named(objective, delta)
    factors = law.used(table.factors)
    centre = _centre(law, table, factors, centre)
    flips = _flips(law, table)
    kind = {"accuracy": "error", "error": "accuracy"}[table.kind] if flips else table.kind
    y = 1 - table.y if flips else table.y
    design = Design(factors, centred(table.logs, table.factors, factors, centre), y, kind, chance)
    law = law.bound(design)
    names = law.parameters(factors)
    k = len(names)
    if len(y) < k:
        raise FitError(f"{name}: {k} parameters need at least {k} rows, got {len(y)}")
    if goal.in_logs:
        require_logs(table, flips=flips, objective=objective)
    found = _searched(law, design, table, goal, starts=starts, seed=seed)
    bounds = law.bounds(design) if law.limits else None
    at_bound = _at_bound(names, found.params, bounds)
    how = _Resampling(table, goal, bounds, bootstrap, resample, seed)
    draws, about = _bootstrap(law, design, found.params, how)
    intervals = _intervals(found.params, draws, how, level, [n in at_bound for n in names])
    target = goal.target(y)
    value, jacobian = goal.scaled(*law.evaluate(found.params, design.z))
    sse = float(((target - value) ** 2).sum())
    return Fit(
        law=law,
        table=table,
        factors=factors,
        centre=centre,
        params=found.params,
        draws=draws,
        intervals=intervals,
        sse=sse,
        starts=found.starts,
        bootstrap=about | {"level": level},
        lack_of_fit=lack_of_fit(table, sse, k, target),
        identifiability=identifiability(
            law, table, factors, found.params, design.z, jacobian=jacobian, bounds=bounds
        ),
        objective=objective,
        criterion=found.loss,
        flips=flips,
        at_bound=at_bound,
        options={"delta": delta, "chance": chance, "seed": seed, "level": level, "starts": starts},
    )


def _searched(law: Law, design: Design, table: Table, goal: Objective, **options):
    """Search for the optimum; a law of one's own whose arrays do not fit says so in one line."""
    weights = _row_weights(table, goal)
    try:
        return search(law, design, weights, objective=goal, **options)
    except (ValueError, IndexError) as error:
        names = law.parameters(design.factors)
        raise FitError(
            f"{law.name}: evaluate must take parameters [..., {len(names)}] "
            f"({', '.join(names)}) and centred logs [n, {len(design.factors)}] and give "
            f"[..., n] and [..., n, {len(names)}], got {error}"
        ) from error


def _check_options(table: Table, bootstrap: int, chance: float) -> None:
    """Refuse a bootstrap of too few refits for an interval, and a chance that is no accuracy."""
    if bootstrap != 0 and not FEWEST_REFITS <= bootstrap <= MOST_REFITS:
        raise FitError(
            f"bootstrap: must be 0 (none), or {FEWEST_REFITS} to {MOST_REFITS:,} refits, "
            f"got {bootstrap}"
        )
    if not 0 <= chance < 1 or (table.kind == "accuracy" and chance >= table.y.max()):
        raise FitError(
            f"chance: must lie from 0 to below the largest accuracy, "
            f"{table.scale * table.y.max():g}, got {table.scale * chance:g}"
        )


def centred(
    logs: np.ndarray, columns: tuple[str, ...], factors: tuple[str, ...], centre: np.ndarray
) -> np.ndarray:
    """Select the law's factors from logs of a table's factors `[p, m]`, and subtract the centre."""
    return logs[:, [columns.index(factor) for factor in factors]] - centre


def _centre(
    law: Law, table: Table, factors: tuple[str, ...], centre: np.ndarray | None
) -> np.ndarray:
    """Return the centre of the law's factors; given, it is in their order or in the table's."""
    columns = [table.factors.index(factor) for factor in factors]
    found = table.logs[:, columns].mean(0) if centre is None else np.array(centre, np.float64)
    if centre is not None and len(found) == len(table.factors):
        found = found[columns]
    # Epochs count from one pass, so their log has a zero of its own.
    fixed = [law.roles.index(role) for role in law.uncentred]
    found[fixed] = 0.0
    return found


def _flips(law: Law, table: Table) -> bool:
    """Say whether a law is fitted to 1 - y; refuse a law of fractions on a loss."""
    if law.response == "accuracy" and table.kind == "loss":
        raise FitError(f"{law.name}: needs a fraction, got a loss; log and power laws take a loss")
    return (law.response, table.kind) in (("loss", "accuracy"), ("accuracy", "error"))


def _row_weights(table: Table, objective: Objective) -> np.ndarray:
    if objective.name != "binomial":
        return np.ones(len(table.frame))
    if not table.trials:
        raise FitError(
            f"{table.name}: objective binomial: needs a column of trials, the images scored; "
            "name it when the table is read"
        )
    return table.frame[table.trials].to_numpy(np.float64)


def _at_bound(
    names: tuple[str, ...], params: np.ndarray, bounds: tuple[np.ndarray, np.ndarray] | None
) -> tuple[str, ...]:
    if bounds is None:
        return ()
    low, high = (np.where(np.isfinite(b), b, np.nan) for b in bounds)
    near = 1e-9 * (1 + np.abs(params))
    hit = (params <= low + near) | (params >= high - near)
    return tuple(name for name, at in zip(names, hit, strict=True) if at)


@dataclass(frozen=True)
class _Resampling:
    """What is resampled, how often, and how a refit is made."""

    table: Table
    objective: Objective
    bounds: tuple[np.ndarray, np.ndarray] | None
    count: int
    how: str | None
    seed: int


def _bootstrap(
    law: Law, design: Design, params: np.ndarray, how: _Resampling
) -> tuple[np.ndarray, dict]:
    """Refit the law to resampled rows or responses; return the draws that converged, and a count."""
    table, goal, count = how.table, how.objective, how.count
    if count == 0:
        return np.empty((0, len(params))), {"unit": "none", "refits": 0, "failed": 0}
    weights, unit = resample_weights(table, count, how.seed, how.how)
    weights = weights * _row_weights(table, goal)
    y = design.y
    if how.how in ("residual", "wild"):
        # Residuals are resampled on the scale that is fitted, where they are alike.
        target = goal.target(y)
        fitted = goal.scaled(*law.evaluate(params, design.z))[0]
        drawn = resample_responses(table, target, fitted, len(params), count, how.seed, how.how)
        y = np.exp(drawn) if goal.in_logs else drawn
        y = np.clip(y, 0, 1) if goal.name == "binomial" else y
    draws, converged = refit(law, design.z, y, weights, params, objective=goal, bounds=how.bounds)
    return draws[converged], {"unit": unit, "refits": count, "failed": int((~converged).sum())}


def _intervals(
    params: np.ndarray, draws: np.ndarray, how: _Resampling, level: float, hidden: list[bool]
) -> np.ndarray:
    """Return intervals `[k, 2]`; None with too few draws, or for a parameter at a bound."""
    if len(draws) < max(2, how.count / 2):
        return np.full((len(params), 2), None)
    groups = cluster_count(how.table, how.how)
    intervals = bootstrap_intervals(params, draws, level=level, groups=groups)[0]
    known = np.isfinite(intervals) & ~np.array(hidden)[:, None]
    return np.where(known, intervals, None)
