"""Which cells can show a law to be wrong: where laws disagree, or where curvature would show."""

import numpy as np

from mae_lib.scaling.knowledge import Candidates, Knowledge


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
        rows, terms, _ = candidates.terms
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
