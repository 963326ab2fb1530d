"""Which cells to run next, in arrays: c-optimal per cost under each law, and a share that can refute.

Write J `[n, k]` for a law's Jacobian at the measured runs, x `[k]` at one candidate, g `[k]` at the
target, M = J'J. In units of the residual variance the prediction's variance is h = g' M^-1 g, and
one run at x takes from it

    gain(x) = (g' M^-1 x)^2 / (1 + x' M^-1 x),

after which M^-1 <- M^-1 - (M^-1 x)(M^-1 x)' / (1 + x' M^-1 x). Cells are taken greedily by the
mean over laws of gain / h, h before any of them (the share of its own variance that a law would
lose: so each law has one vote, and one with a flat parameter does not drown the rest) per cost.

Runs that share a cluster share a random effect: with intraclass correlation r the rows of a cluster
of size c have covariance (1 - r) I + r 11', and a further run there counts as the row

    (x - a sum of the cluster's rows) / sqrt(1 - r a c),   a = r / (1 - r + r c),

which is generalised least squares, one row at a time. A candidate without a cluster is a new one.

Where J lacks a direction, M is singular: a ridge of RIDGE times each column's squared length (1
where the column is 0) stands for it, so that a cell that settles the direction gains nearly all of h
and one that does not gains nothing of it; `estimable` says whether the target needs it.

Source: Elfving 1952 (c-optimality); Sherman & Morrison 1950; refuting cells: `REFUTERS`.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field

import numpy as np

RIDGE = 1e-8
NEW_CLUSTER = -1
# A part of the target's gradient above this share lies in a direction that the runs do not have.
ESTIMABLE = 1e-6


@dataclass(frozen=True)
class LawView:
    """What one law says on this design: `predictions` at candidates, `variance` of a residual.

    `design` `[n, k]`, `target` `[k]`, `candidates` `[p, k]`; `weight` of the law among the laws;
    `correlation` of residuals within a cluster.
    """

    name: str
    design: np.ndarray
    target: np.ndarray
    candidates: np.ndarray
    predictions: np.ndarray
    variance: float
    weight: float = 1.0
    correlation: float = 0.0


@dataclass(frozen=True)
class Candidates:
    """Costs `[p]`, how often each may run, and clusters of candidates and of measured rows.

    `terms` are second-order terms in the scaled logs at the rows `[n, q]` and candidates `[p, q]`;
    `inside` says which candidates lie in the box of the runs and the target.
    """

    costs: np.ndarray
    repeats: int
    clusters: np.ndarray
    row_clusters: np.ndarray
    terms: tuple[np.ndarray, np.ndarray]
    inside: np.ndarray


@dataclass(frozen=True)
class Chosen:
    """One chosen cell: its row, what it is for, its score per cost, and the gain under each law."""

    row: int
    role: str
    score: float
    gains: tuple[float, ...]


class Knowledge:
    """What one law knows after the runs so far: M^-1, and each cluster's size and sum of rows.

    `before` is `h` with the measured runs alone.
    """

    def __init__(self, view: LawView, clusters: np.ndarray, row_clusters: np.ndarray):
        self.view, self.clusters = view, clusters
        sums, sizes = _cluster_sums(view.design, row_clusters)
        self.inverse = _inverse(information(view.design, view.correlation, sums, sizes))
        names = np.unique(row_clusters)
        self.sums = dict(zip(names.tolist(), sums, strict=True))
        self.sizes = dict(zip(names.tolist(), sizes.tolist(), strict=True))
        self._follow()
        self.before = self.h

    @property
    def h(self) -> float:
        """The prediction's variance at the target, in units of the residual variance."""
        return float(self.view.target @ self.inverse @ self.view.target)

    def gains(self) -> np.ndarray:
        """Return how much of `h` one run at each candidate takes away, `[p]`."""
        return (self.solved @ self.view.target) ** 2 / self.spread

    def take(self, row: int) -> np.ndarray:
        """Add a run; return the step `[p]` that a unit surprise there moves every prediction by."""
        solved, spread = self.solved[row].copy(), self.spread[row]
        move = self.rows @ solved / spread
        self.inverse -= np.outer(solved, solved) / spread
        cluster = int(self.clusters[row])
        if cluster != NEW_CLUSTER:
            self.sums[cluster] = self.sums.get(cluster, 0) + self.view.candidates[row]
            self.sizes[cluster] = self.sizes.get(cluster, 0) + 1
        self._follow()
        return move

    def _follow(self) -> None:
        self.rows = self._whitened()
        self.solved = self.rows @ self.inverse
        self.spread = 1 + (self.solved * self.rows).sum(1)

    def _whitened(self) -> np.ndarray:
        rows, r = self.view.candidates, self.view.correlation
        if r == 0 or (self.clusters == NEW_CLUSTER).all():
            return rows
        rows = rows.copy()
        for cluster in np.unique(self.clusters[self.clusters != NEW_CLUSTER]).tolist():
            if size := self.sizes.get(cluster, 0):
                a = r / (1 - r + r * size)
                here = self.clusters == cluster
                rows[here] = (rows[here] - a * self.sums[cluster]) / np.sqrt(1 - r * a * size)
        return rows


class Discrepancy:
    """Cells where the laws disagree beyond what they could mispredict.

    If law l is right, a run at x surprises law m by d = p_l - p_m, and m's sum of squares rises by
    d^2 / (1 + x' M_m^-1 x) after its refit: summed over ordered pairs, in units of m's residual
    variance. After a cell is taken, every d of m moves as the refit of m would move it, so the next
    cell is one that still surprises.

    Source: Hunter & Reiner 1965; Atkinson & Fedorov 1975 (T-optimality), linearised; the pair
    weights of Box & Hill 1967.
    """

    def __init__(self, known: list[Knowledge], candidates: Candidates):
        said = np.stack([k.view.predictions for k in known], 1)
        self.surprise = [said - k.view.predictions[:, None] for k in known]
        self.weights = np.array([k.view.weight for k in known])

    def scores(self, known: list[Knowledge]) -> np.ndarray:
        """Return the expected noncentrality of each candidate, `[p]`."""
        return sum(
            k.view.weight * (s**2 @ self.weights) / (k.view.variance * k.spread)
            for k, s in zip(known, self.surprise, strict=True)
        )

    def take(self, row: int, moves: list[np.ndarray]) -> None:
        """Follow a taken cell."""
        for surprise, move in zip(self.surprise, moves, strict=True):
            surprise -= np.outer(move, surprise[row])


class LackOfFit:
    """Cells inside the box of the runs and the target that show curvature a law does not have.

    Second-order terms in the scaled logs, less what the law's tangent takes of them, each with a
    prior SD of one residual: a cell scores ln(1 + t' F^-1 t / (1 + x' M^-1 x)), where t are its
    terms so reduced and F the information on them so far.

    Source: Jones & Mitchell 1978; DuMouchel & Jones 1994 (potential terms).
    """

    def __init__(self, known: list[Knowledge], candidates: Candidates):
        rows, terms = candidates.terms
        self.inside = candidates.inside
        self.left, self.inverse = [], []
        for k in known:
            taken = k.inverse @ k.view.design.T @ rows
            reduced = rows - k.view.design @ taken
            self.left.append(terms - k.view.candidates @ taken)
            self.inverse.append(np.linalg.inv(reduced.T @ reduced + np.eye(rows.shape[1])))

    def scores(self, known: list[Knowledge]) -> np.ndarray:
        """Return the expected information on terms that no law has, `[p]`."""
        total = sum(
            k.view.weight * np.log1p(((t @ f) * t).sum(1) / k.spread)
            for k, t, f in zip(known, self.left, self.inverse, strict=True)
        )
        return np.where(self.inside, total, 0.0)

    def take(self, row: int, moves: list[np.ndarray]) -> None:
        """Follow a taken cell."""
        for i, move in enumerate(moves):
            # 1 - x' M^-1 x / (1 + x' M^-1 x): the share of a run there that tests rather than fits.
            tests = max(1 - move[row], 0.0)
            terms = self.left[i][row].copy()
            solved = self.inverse[i] @ terms
            self.inverse[i] -= np.outer(solved, solved) * tests / (1 + tests * terms @ solved)
            self.left[i] -= np.outer(move, terms)


REFUTERS = {"discrepancy": Discrepancy, "lack_of_fit": LackOfFit}


@dataclass
class Plan:
    """The cells so far, what they cost, and what each law knows with them."""

    known: list[Knowledge]
    candidates: Candidates
    refuter: Discrepancy | LackOfFit
    chosen: list[Chosen] = field(default_factory=list)

    def cost(self, role: str | None = None) -> float:
        """Return what the chosen cells of a role cost."""
        rows = [c.row for c in self.chosen if role in (None, c.role)]
        return float(self.candidates.costs[rows].sum())

    def scores(self, role: str) -> np.ndarray:
        """Return what one run at each candidate is worth in a role, `[p]`.

        Narrowing: the mean over laws of gain, as a share of the variance before any candidate ran,
        so that the scores of cells taken one after the other add up.
        """
        if role == "refute":
            return self.refuter.scores(self.known)
        total = sum(k.view.weight for k in self.known)
        return sum(k.view.weight * k.gains() / k.before for k in self.known) / total

    def take(self, row: int, role: str, score: float) -> None:
        """Add a cell, and let every law and the refuter know."""
        gains = tuple(float(k.gains()[row]) for k in self.known)
        self.refuter.take(row, [k.take(row) for k in self.known])
        self.chosen.append(Chosen(row, role, score, gains))


def choose_cells(
    views: list[LawView],
    candidates: Candidates,
    budget: float,
    *,
    share: float = 1 / 3,
    refute: str = "discrepancy",
) -> Plan:
    """Spend `share` of the budget on cells that can refute a law, the rest on narrowing.

    Refuting cells come first, best score per cost, until their spending is as near to the share as
    whole cells allow; narrowing then knows them. No cell runs more than `repeats` times.
    """
    known = [Knowledge(v, candidates.clusters, candidates.row_clusters) for v in views]
    plan = Plan(known, candidates, REFUTERS[refute](known, candidates))
    plan = _fill(plan, "refute", share * budget, budget)
    return _fill(plan, "narrow", budget, budget)


def _fill(plan: Plan, role: str, limit: float, budget: float) -> Plan:
    """Fill by score per cost and by score alone; keep the plan of the higher total.

    Taking by score per cost alone can spend a budget on many small cells where one large cell is
    worth more than all of them.
    Source: Khuller, Moss & Naor 1999 (budgeted coverage).
    """
    plans = [deepcopy(plan), plan]
    totals = [
        _take_best(each, role, costs, limit, budget)
        for each, costs in zip(plans, (plan.candidates.costs, 1.0), strict=True)
    ]
    return plans[int(np.argmax(totals))]


def _take_best(plan: Plan, role: str, per: np.ndarray | float, limit: float, budget: float) -> float:
    """Take the best cell while one fits, past `limit` only if that is nearer than not; total score."""
    costs, total = plan.candidates.costs, 0.0
    times = np.bincount([c.row for c in plan.chosen], minlength=len(costs))
    while True:
        spent = plan.cost()
        fits = (spent + costs <= budget * (1 + 1e-12)) & (times < plan.candidates.repeats)
        # Only the share may be passed, by less than half of the cell; the budget never.
        fits &= spent + costs / (2 if limit < budget else 1) <= limit * (1 + 1e-12)
        scores = np.where(fits, plan.scores(role), 0.0)
        row = int((scores / per).argmax())
        if not scores[row] > 0:
            return total
        plan.take(row, role, float(scores[row] / costs[row]))
        total += float(scores[row])
        times[row] += 1


def estimable(view: LawView, extra: Sequence[int] = ()) -> bool:
    """Say whether the target's gradient lies in the directions of the runs and `extra` candidates."""
    design = np.vstack([view.design, view.candidates[list(extra)]])
    scale = _lengths(design)
    _, singular, directions = np.linalg.svd(design / scale, full_matrices=True)
    rank = int((singular > RIDGE * singular[0]).sum())
    target = view.target / scale
    missing = directions[rank:] @ target
    return bool(np.linalg.norm(missing) <= ESTIMABLE * max(np.linalg.norm(target), 1e-300))


def information(
    design: np.ndarray, correlation: float, sums: np.ndarray, sizes: np.ndarray
) -> np.ndarray:
    """Return J' V^-1 J in units of the residual variance, V of clusters (1 - r) I + r 11'."""
    r = correlation
    shared = r / ((1 - r) * (1 - r + r * sizes))
    return design.T @ design / (1 - r) - (sums * shared[:, None]).T @ sums


def _cluster_sums(design: np.ndarray, clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    _, codes, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    sums = np.zeros((len(sizes), design.shape[1]))
    np.add.at(sums, codes, design)
    return sums, sizes


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """Invert with the ridge, on columns of unit length."""
    scale = np.sqrt(np.where(matrix.diagonal() > 0, matrix.diagonal(), 1.0))
    unit = matrix / np.outer(scale, scale)
    return np.linalg.inv(unit + RIDGE * np.eye(len(unit))) / np.outer(scale, scale)


def _lengths(design: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(design, axis=0)
    return np.where(lengths > 0, lengths, 1.0)
