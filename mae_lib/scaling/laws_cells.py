"""One mean a cell: the yardstick that every law is held against, and no law of its own."""

from dataclasses import replace

import numpy as np

from mae_lib.scaling.law import Design, Law

# Centred logs closer than this are one cell.
DECIMALS = 9


def cells_of(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct rows of z `[c, m]` and the cell of each row `[n]`."""
    cells, codes = np.unique(z.round(DECIMALS), axis=0, return_inverse=True)
    return cells, codes.ravel()


def _indicator(cells: np.ndarray, z: np.ndarray) -> np.ndarray:
    same = (np.abs(z[:, None, :] - cells) < 10.0**-DECIMALS * 2).all(-1).astype(np.float64)
    same[same.sum(1) == 0] = np.nan
    return same


def _bind(law: Law, design: Design) -> Law:
    cells, _ = cells_of(design.z)

    def basis(theta: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        phi = _indicator(cells, z)
        return phi, np.zeros((*phi.shape, 0))

    def evaluate(params: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        phi = _indicator(cells, z)
        value = params @ phi.T
        return value, np.broadcast_to(phi, (*value.shape, phi.shape[1]))

    return replace(
        law,
        evaluate=evaluate,
        basis=basis,
        linear=lambda m: len(cells),
        parameters=lambda factors: tuple(f"cell_{j}" for j in range(len(cells))),
    )


def _unbound(params: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cells, codes = cells_of(z)
    phi = np.eye(len(cells))[codes]
    value = params @ phi.T
    return value, np.broadcast_to(phi, (*value.shape, phi.shape[1]))


CELL_LAWS = (
    Law(
        "cell_means",
        "one mean for each combination of levels",
        "analysis of variance; what lack of fit is measured against",
        _unbound,
        note="says nothing between or beyond its cells: no number there",
        levels_needed=1,
        bind=_bind,
        identifiable="every mean",
    ),
)
