"""What a law knows from its runs, one run at a time, and how wary of itself it should be.

Write J `[n, k]` for a law's Jacobian at the measured runs, x `[k]` at one candidate, g `[k]` at the
target, M = J'J. In units of the residual variance the prediction's variance is h = g' M^-1 g, and
one run at x takes from it

    gain(x) = (g' M^-1 x)^2 / (1 + x' M^-1 x),

after which M^-1 <- M^-1 - (M^-1 x)(M^-1 x)' / (1 + x' M^-1 x).

Runs that share a cluster share a random effect: with intraclass correlation r the rows of a cluster
of size c have covariance (1 - r) I + r 11', and a further run there counts as the row

    (x - a sum of the cluster's rows) / sqrt(1 - r a c),   a = r / (1 - r + r c),

which is generalised least squares, one row at a time. A candidate without a cluster is a new one.

Where J lacks a direction, M is singular: a ridge of RIDGE times each column's squared length (1
where the column is 0) stands for it, so that a cell that settles the direction gains nearly all of h
and one that does not gains nothing of it; `estimable` says whether the target needs it.

Source: Elfving 1952 (c-optimality); Sherman & Morrison 1950.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

RIDGE = 1e-10
NEW_CLUSTER = -1
# A part of the target's gradient above this share lies in a direction that the runs do not have.
ESTIMABLE = 1e-6


@dataclass(frozen=True)
class LawView:
    """What one law says on this design: `predictions` at candidates, `variance` of a residual.

    `design` `[n, k]`, `target` `[k]`, `candidates` `[p, k]` are Jacobians; `weight` of the law among
    the laws; `correlation` of residuals within a cluster; `prior` `[k]` is information on parameters
    from elsewhere, in units of one over the residual variance.
    """

    name: str
    design: np.ndarray
    target: np.ndarray
    candidates: np.ndarray
    predictions: np.ndarray
    at_target: float
    variance: float
    weight: float = 1.0
    correlation: float = 0.0
    prior: np.ndarray | float = 0.0


@dataclass(frozen=True)
class Candidates:
    """Costs `[p]`, how often each may run, and clusters of candidates and of measured rows.

    `terms` are second-order terms in the scaled logs at the rows `[n, q]`, the candidates `[p, q]`
    and the target `[q]`; `inside` says which candidates lie in the box of the runs and the target.
    """

    costs: np.ndarray
    repeats: int
    clusters: np.ndarray
    row_clusters: np.ndarray
    terms: tuple[np.ndarray, np.ndarray, np.ndarray]
    inside: np.ndarray


class Knowledge:
    """What one law knows after the runs so far: M^-1, and each cluster's size and sum of rows.

    `before` is `h` with the measured runs alone.
    """

    def __init__(self, view: LawView, clusters: np.ndarray, row_clusters: np.ndarray):
        self.view, self.clusters = view, clusters
        sums, sizes = _cluster_sums(view.design, row_clusters)
        known = information(view.design, view.correlation, sums, sizes)
        self.inverse = _inverse(known + np.eye(len(known)) * view.prior)
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


def spread_at_target(views: Sequence[LawView]) -> float:
    """Return the weighted variance of the laws' predictions at the target."""
    said, weights = np.array([(v.at_target, v.weight) for v in views]).T
    mean = np.average(said, weights=weights)
    return float(np.average((said - mean) ** 2, weights=weights))


def with_curvature(
    views: Sequence[LawView], candidates: Candidates, caution: float
) -> list[LawView]:
    """Let each law doubt itself by as much as the laws doubt one another.

    A law trusts its form at any distance, so under it many small cells far from the target are
    worth a large one near it. Here each law also has second-order terms with a normal prior, whose
    variance makes the terms' part of the prediction at the target (less what the law's tangent
    takes of it) vary by `caution`^2 times the variance between the laws there.

    Source: DuMouchel & Jones 1994 (potential terms), the prior's scale from the laws themselves.
    """
    rows, points, target = candidates.terms
    spread = caution**2 * spread_at_target(views)
    if not spread > 0:
        return list(views)
    wider = []
    for v in views:
        # What the law's tangent takes of the terms is no curvature that it lacks.
        taken = _inverse(v.design.T @ v.design) @ v.design.T @ rows
        left = target - v.target @ taken
        information_on_terms = v.variance * (left @ left) / spread
        wider.append(
            replace(
                v,
                design=np.hstack([v.design, rows]),
                candidates=np.hstack([v.candidates, points]),
                target=np.concatenate([v.target, target]),
                prior=np.repeat([0.0, information_on_terms], [len(v.target), len(target)]),
            )
        )
    return wider


def estimable(view: LawView, extra: Sequence[int] = ()) -> bool:
    """Say whether the target's gradient lies in the directions of the runs and `extra` candidates."""
    design = np.vstack([view.design, view.candidates[list(extra)]])
    scale = _lengths(design)
    _, singular, directions = np.linalg.svd(design / scale, full_matrices=True)
    rank = int((singular > np.sqrt(RIDGE) * singular[0]).sum())
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
