"""Which cells to run next: c-optimal per cost under each law, and a share that can refute.

Cells are taken greedily. To narrow, a cell is worth the mean over laws of gain / h (`knowledge.py`),
h before any candidate ran: the share of its own variance that a law would lose, so each law has one
vote, and one with a flat parameter does not drown the rest. To refute, see `refuters.py`. Each part
of the budget is filled twice, by worth per cost and by worth, and the fill of the higher total kept:
by worth per cost alone it may go into many small cells where one large cell is worth more.

Source: Khuller, Moss & Naor 1999 (budgeted coverage: the better of two fills).
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field

import numpy as np

from mae_lib.scaling.knowledge import Candidates, Knowledge, LawView, with_curvature
from mae_lib.scaling.refuters import REFUTERS, Discrepancy, LackOfFit


@dataclass(frozen=True)
class Chosen:
    """One chosen cell: its row, what it is for, its score per cost, and the gain under each law."""

    row: int
    role: str
    score: float
    gains: tuple[float, ...]


@dataclass
class Plan:
    """The cells so far, what they cost, and what each law knows with them.

    `known` trust their law, `wary` doubt it as `with_curvature` says.
    """

    known: list[Knowledge]
    wary: list[Knowledge]
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
        total = sum(k.view.weight for k in self.wary)
        return sum(k.view.weight * k.gains() / k.before for k in self.wary) / total

    def take(self, row: int, role: str, score: float) -> None:
        """Add a cell, and let every law and the refuter know."""
        gains = tuple(float(k.gains()[row]) for k in self.known)
        self.refuter.take(row, [k.take(row) for k in self.known])
        for k in self.wary:
            k.take(row)
        self.chosen.append(Chosen(row, role, score, gains))


def choose_cells(
    views: Sequence[LawView],
    candidates: Candidates,
    budget: float,
    *,
    share: float = 1 / 3,
    refute: str = "discrepancy",
    caution: float = 1.0,
) -> Plan:
    """Spend `share` of the budget on cells that can refute a law, the rest on narrowing.

    Refuting cells come first, until their cost is as near to the share as whole cells allow;
    narrowing then knows them. No cell runs more than `repeats` times. With `caution` 0 each law
    trusts itself wholly: plain c-optimality.
    """
    clusters = candidates.clusters, candidates.row_clusters
    known = [Knowledge(v, *clusters) for v in views]
    wary = [Knowledge(v, *clusters) for v in with_curvature(views, candidates, caution)]
    plan = Plan(known, wary, candidates, REFUTERS[refute](known, candidates))
    plan = _fill(plan, "refute", share * budget, budget)
    return _fill(plan, "narrow", budget, budget)


def _fill(plan: Plan, role: str, limit: float, budget: float) -> Plan:
    """Fill by worth per cost and by worth alone; keep the plan of the higher total."""
    plans = [deepcopy(plan), plan]
    totals = [
        _take_best(each, role, costs, limit, budget)
        for each, costs in zip(plans, (plan.candidates.costs, 1.0), strict=True)
    ]
    return plans[int(np.argmax(totals))]


def _take_best(
    plan: Plan, role: str, per: np.ndarray | float, limit: float, budget: float
) -> float:
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
