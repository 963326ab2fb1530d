"""The registry of laws. A law of one's own: `register(Law(name, formula, source, evaluate))`."""

import numpy as np

from mae_lib.errors import FitError
from mae_lib.scaling.law import Design, Evaluate, Law, numeric, separable
from mae_lib.scaling.laws_bend import BEND_LAWS
from mae_lib.scaling.laws_cells import CELL_LAWS, cells_of
from mae_lib.scaling.laws_language import LANGUAGE_LAWS
from mae_lib.scaling.laws_log import LOG_LAWS
from mae_lib.scaling.laws_logit import LOGIT_LAWS
from mae_lib.scaling.laws_power import POWER_LAWS
from mae_lib.scaling.table import Table

__all__ = [
    "LAWS",
    "Design",
    "Evaluate",
    "Law",
    "law_named",
    "numeric",
    "register",
    "separable",
    "usable_laws",
    "why_not",
]

# Distinct levels of a factor that show more than a slope.
EXPONENT_LEVELS = 3

LAWS: dict[str, Law] = {
    law.name: law
    for family in (LOG_LAWS, LOGIT_LAWS, POWER_LAWS, LANGUAGE_LAWS, BEND_LAWS, CELL_LAWS)
    for law in family
}


def register(law: Law) -> Law:
    """Add a law to the registry and return it; raises FitError for a name that is taken."""
    if law.name in LAWS:
        raise FitError(f"law: {law.name}: is registered already; choose another name")
    LAWS[law.name] = law
    return law


def law_named(name: str) -> Law:
    """Look a law up; raises FitError naming the known ones."""
    if name not in LAWS:
        raise FitError(f"law: one of {', '.join(LAWS)}, got {name!r}")
    return LAWS[name]


def why_not(law: Law, table: Table) -> str | None:
    """Say in one line why a law does not apply to a table; None where it does.

    A law asked for by name is fitted wherever it can be; this also leaves out laws whose shape the
    table has too few levels, rows or repeats to show.
    """
    try:
        factors = law.with_roles(table.roles).used(table.factors)
    except FitError as error:
        return str(error)
    if law.response == "accuracy" and table.kind == "loss":
        return f"{law.name}: needs a fraction, got a loss"
    logs = table.logs[:, [table.factors.index(factor) for factor in factors]]
    cells, _ = cells_of(logs - logs.mean(0))
    if law.levels_needed <= 1:
        return None if len(cells) < len(logs) else f"{law.name}: no cell is repeated"
    k = len(law.parameters(factors))
    if few := _too_few(law, factors, [len(np.unique(column.round(9))) for column in logs.T]):
        return few
    if len(cells) <= k:
        return f"{law.name}: {k} parameters need more than {k} different cells, got {len(cells)}"
    return None


def _too_few(law: Law, factors: tuple[str, ...], levels: list[int]) -> str | None:
    """Name the first factor with fewer levels than the law needs of it; an exponent takes three."""
    least = min(law.levels_needed, EXPONENT_LEVELS)
    needed = [law.levels_needed if law.levels_of == "every" else least] * len(levels)
    if law.levels_of == "first":
        needed[0] = law.levels_needed
    if law.levels_of == "one":
        needed[int(np.argmax(levels))] = law.levels_needed
    for name, count, need in zip(factors, levels, needed, strict=True):
        if count < need:
            return f"{law.name}: needs {need} levels of {name}, got {count}"
    return None


def usable_laws(table: Table) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the laws that apply to a table, and one line for each that does not."""
    reasons = {name: why_not(law, table) for name, law in LAWS.items()}
    fitting = tuple(name for name, reason in reasons.items() if reason is None)
    return fitting, tuple(reason for reason in reasons.values() if reason)
