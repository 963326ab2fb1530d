"""The stacked prediction: laws averaged by their own held-out errors, with an interval in three parts.

Everything happens in ln of the error (1 - accuracy) or of the loss, where runs of all sizes count
alike. A member is a law fitted with weights that fall away from the frontier (frontier.py), at
several steepnesses. With e_k the root mean squared error of member k on nested splits of the runs,
refitted without the top 40, 25 and 10 % in the direction of the question:

    w_k = e_k^-4 / sum e^-4,   p = sum w_k p_k
    V = within + between + held out
      = sum w_k s_k^2 (1 + min(h_k, 1)) / 2  +  sum w_k (p_k - p)^2  +  sum w_k e_k^2

and the interval is p +- t sqrt(V), t with n - 2 - m degrees of freedom (the simplest member's). The
within-law part counts half, because the held-out error has noise and estimation in it already.
Nothing is learnt from other tables; how often the interval covers was measured on public grids by
`mae bench coverage` (benchmarks/law/README.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mae_lib.errors import FitError
from mae_lib.scaling.distributions import t_quantile
from mae_lib.scaling.frontier import SHARES, Nested, nearness, nested_splits
from mae_lib.scaling.local import LocalLaw, local_law
from mae_lib.scaling.table import Table

STACK_LAWS = ("power_product", "power_sum", "logit_additive", "m4")


@dataclass(frozen=True)
class Scheme:
    """How laws are averaged; the defaults were chosen by coverage and interval score.

    `steepnesses`: of the weights that fall away from the frontier, in e-folds over the data's range.
    `power` of 1 / held-out error in the weights. `within` is the share of the within-law variance
    that counts, its leverage cut at `most_leverage`. `shares` are held out to learn the errors.
    """

    laws: tuple[str, ...] = STACK_LAWS
    steepnesses: tuple[float, ...] = (0.0, 4.0, 8.0)
    power: float = 4.0
    within: float = 0.5
    most_leverage: float = 1.0
    shares: tuple[float, ...] = SHARES


SCHEME = Scheme()
# With fewer clusters than this, Student's t with one degree less replaces the normal quantile.
FEW_CLUSTERS = 8


@dataclass(frozen=True)
class Stacked:
    """Answers at p points in ln of error or loss: centre, three variances, members and weights.

    `values` and `weights` are `[members, p]`; a member that leaves the possible range at a point
    has weight 0 there and is named in `dropped` of that point.
    """

    centre: np.ndarray
    within: np.ndarray
    between: np.ndarray
    held_out: np.ndarray
    members: tuple[str, ...]
    values: np.ndarray
    weights: np.ndarray
    dropped: tuple[tuple[str, ...], ...]
    left_out: tuple[str, ...]

    @property
    def deviation(self) -> np.ndarray:
        """The root of the sum of the three variances, `[p]`."""
        return np.sqrt(self.within + self.between + self.held_out)

    def by_law(self, point: int) -> dict[str, float]:
        """Return each law's share of the weight at a point."""
        shares: dict[str, float] = {}
        for name, weight in zip(self.members, self.weights[:, point], strict=True):
            shares[name] = shares.get(name, 0.0) + float(weight)
        return shares


@dataclass(frozen=True)
class Member:
    """One law at one steepness: values `[p]`, s^2 (1 + h) `[p]`, own held-out error; in logs."""

    law: str
    steepness: float
    values: np.ndarray
    spread: np.ndarray
    error: float


def stack_at(table: Table, x: np.ndarray, along: np.ndarray, *, scheme: Scheme = SCHEME) -> Stacked:
    """Answer raw points `[p, m]` from a table's runs, `along` `[n]` being their place on the way.

    Raises: FitError when no law can be refitted without the runs nearest to the question.
    """
    members, left_out = members_at(table, x, along, scheme)
    if not members:
        raise FitError(
            f"{table.name}: stacked: no law can be refitted without the runs nearest to the "
            f"question, got {len(along)} runs; add runs"
        )
    return combine(members, scheme, left_out)


def members_at(
    table: Table, x: np.ndarray, along: np.ndarray, scheme: Scheme = SCHEME
) -> tuple[list[Member], tuple[str, ...]]:
    """Return the members of a stack, and the laws that the runs are too few to hold out for."""
    x = np.atleast_2d(np.asarray(x, np.float64))
    least_error = np.sqrt(pure_variance(table))
    members, left_out = [], []
    for name in scheme.laws:
        law = local_law(table, name)
        if law is None:
            continue
        found = _of_law(table, law, x, along, scheme, least_error)
        members += found
        if not found:
            left_out.append(name)
    return members, tuple(left_out)


def quantile_at(table: Table, level: float) -> tuple[float, str | None]:
    """Return how many deviations reach to a level, and a note where clusters are few.

    Student's t with n - 2 - m degrees of freedom, as the simplest member has; with fewer than
    FEW_CLUSTERS clusters at most one less than those.
    """
    free, note = len(table.frame) - 2 - len(table.factors), None
    if table.clusters:
        groups = len(np.unique(table.cluster_codes))
        if groups < FEW_CLUSTERS and groups - 1 < free:
            free = groups - 1
            note = f"{groups} clusters only: Student's t with {free} degrees of freedom"
    return t_quantile(0.5 + level / 2, max(free, 1)), note


def log_loss(table: Table) -> np.ndarray:
    """Return ln of the loss, or of the error, of every run `[n]`; an error below 1e-4 counts as that."""
    loss = 1 - table.y if table.kind == "accuracy" else table.y
    return np.log(np.maximum(loss, 1e-4 if table.kind != "loss" else 1e-12))


def pure_variance(table: Table) -> float:
    """Return the variance of ln loss among runs of the same cell, 0 where no cell is repeated."""
    codes, y = table.cell_codes, log_loss(table)
    count = np.bincount(codes)
    free = len(y) - len(count)
    if free < 1:
        return 0.0
    mean = np.bincount(codes, y) / count
    return float(((y - mean[codes]) ** 2).sum() / free)


def _of_law(
    table: Table,
    law: LocalLaw,
    x: np.ndarray,
    along: np.ndarray,
    scheme: Scheme,
    least_error: float,
) -> list[Member]:
    """Return a law's members, one a steepness; all their fits are one batch."""
    rows = np.ones(len(along), bool)
    splits = nested_splits(table, along, least=law.k, shares=scheme.shares)
    if law.k >= len(along) or not splits:
        return []
    trains = [rows, *(split.train for split in splits)]
    weights = np.array([[nearness(along, t, s) for t in trains] for s in scheme.steepnesses])
    fits = law.fit(weights.reshape(-1, len(along)))
    found = []
    for place, steepness in enumerate(scheme.steepnesses):
        first = place * len(trains)
        error = _held_out(law, fits.params[first + 1 : first + len(trains)], splits)
        if error is None:
            continue
        values, spread = law.answer(
            fits.params[first], fits.weights[first], x, scheme.most_leverage
        )
        # A held-out error below the scatter of repeated cells is luck, not a better law.
        found.append(Member(law.law.name, steepness, values, spread, max(error, least_error)))
    return found


def _held_out(law: LocalLaw, params: np.ndarray, splits: list[Nested]) -> float | None:
    """Return the root mean square over splits of the error of ln loss on what was held out."""
    squares = []
    for at, split in zip(params, splits, strict=True):
        miss = (law.log_loss - law.log_value(at, law.z))[split.test]
        if np.isfinite(miss).all():
            squares.append(float((miss**2).mean()))
    return float(np.sqrt(np.mean(squares))) if squares else None


def combine(
    members: Sequence[Member], scheme: Scheme = SCHEME, left_out: tuple[str, ...] = ()
) -> Stacked:
    """Average members point by point; one that leaves the possible range has no weight there."""
    values = np.array([member.values for member in members])
    spreads = np.array([member.spread for member in members])
    # An error of exactly 0 (noise-free runs of a true law) must not make the weights undefined.
    errors = np.maximum([member.error for member in members], 1e-9)
    names = tuple(member.law for member in members)
    possible = np.isfinite(values)
    relative = (errors.min() / errors) ** scheme.power
    weights = np.where(possible, relative[:, None], 0.0)
    total = weights.sum(0)
    weights = weights / np.where(total > 0, total, 1.0)
    known, spreads = np.where(possible, values, 0.0), np.where(possible, spreads, 0.0)
    centre = np.where(total > 0, (weights * known).sum(0), np.nan)
    dropped = tuple(
        tuple(dict.fromkeys(n for n, ok in zip(names, column, strict=True) if not ok))
        for column in possible.T
    )
    return Stacked(
        centre=centre,
        within=scheme.within * (weights * spreads).sum(0),
        between=(weights * np.where(possible, known - centre, 0.0) ** 2).sum(0),
        held_out=(weights * errors[:, None] ** 2).sum(0),
        members=names,
        values=values,
        weights=weights,
        dropped=dropped,
        left_out=left_out,
    )
