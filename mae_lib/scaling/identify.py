"""What a design can know of a law: rank, null directions in words, condition, levels a factor."""

import numpy as np

from mae_lib.scaling.laws import Law
from mae_lib.scaling.table import Table

RANK_TOLERANCE = 1e-8


def identifiability(
    law: Law, table: Table, factors: tuple[str, ...], params: np.ndarray, z: np.ndarray
) -> dict:
    """Judge the Jacobian of the centred law at its fit, its columns scaled to unit length."""
    jacobian = law.evaluate(params, z)[1]
    norms = np.linalg.norm(jacobian, axis=0)
    _, singular, directions = np.linalg.svd(jacobian / np.where(norms == 0, 1, norms))
    rank = int((singular > RANK_TOLERANCE * singular[0]).sum())
    names = law.names(table.factors)
    levels = {f: len(np.unique(z[:, j].round(9))) for j, f in enumerate(factors)}
    return {
        "rank": rank,
        "parameters": len(params),
        "condition": float(singular[0] / singular[-1]) if singular[-1] > 0 else None,
        "null_directions": [_in_words(row, names) for row in directions[rank:]],
        "levels": levels,
        "too_few_levels": [f for f, count in levels.items() if count < 3],
        "note": law.note,
    }


def _in_words(direction: np.ndarray, names: tuple[str, ...]) -> str:
    """Name the parameters that the data cannot tell apart."""
    involved = [name for name, part in zip(names, direction, strict=True) if abs(part) > 0.1]
    return f"{' x '.join(involved)}: aliased on this design"
