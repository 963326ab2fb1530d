"""How far a fit can be trusted: what is resampled, standard errors, pure error, lack of fit.

Three things are kept apart: the scatter of repeated cells (`pure_error`), what a law leaves beyond
it (`lack_of_fit`), and what laws that fit alike say apart (`law_spread`).
"""

from collections.abc import Sequence

import numpy as np

from mae_lib.errors import FitError
from mae_lib.kernels.philox import Purpose, random_words, uniform
from mae_lib.scaling.distributions import f_tail, normal_tail, t_quantile
from mae_lib.scaling.table import Table

HOWS = ("clusters", "cells", "residual", "wild")
# Below this many clusters bootstrap quantiles are too narrow: Student's t with G - 1 instead.
FEW_CLUSTERS = 8
# Steps of the counter that keep the draws of one way from those of another.
_RESIDUAL_STEP, _WILD_STEP = 1, 2
# Webb's six points: with few clusters two signs give too few different samples.
# Source: Webb 2014, Queen's Economics Department working paper 1315.
_WEBB = np.array([-np.sqrt(1.5), -1.0, -np.sqrt(0.5), np.sqrt(0.5), 1.0, np.sqrt(1.5)])


def default_how(table: Table) -> str:
    """Return what is resampled unless asked otherwise: clusters where there are any, else cells."""
    return "clusters" if table.clusters else "cells"


def cluster_count(table: Table, how: str | None = None) -> int | None:
    """Return the number of clusters where a bootstrap takes them whole; None where it does not."""
    codes = table.cluster_codes
    return int(codes.max()) + 1 if codes is not None and how in (None, "clusters", "wild") else None


def resample_weights(
    table: Table, count: int, seed: int, how: str | None = None
) -> tuple[np.ndarray, str]:
    """Return how often each refit takes each row `[count, n]`, and what is drawn, in words.

    Whole clusters, or whole cells, are drawn with replacement. `residual` and `wild` keep all rows
    and change the responses: their weights are 1 (see `resample_responses`).
    Raises: FitError for an unknown way, or for clusters that the table does not name.
    """
    how = how or default_how(table)
    _check_how(table, how)
    if how in ("residual", "wild"):
        return np.ones((count, len(table.frame))), _called(table, how)
    codes = table.cluster_codes if how == "clusters" else table.cell_codes
    groups = int(codes.max()) + 1
    words = random_words(seed, Purpose.BOOTSTRAP, np.arange(count), draws=groups)
    drawn = np.floor(uniform(words) * groups).astype(np.int64)
    counts = np.zeros((count, groups))
    np.add.at(counts, (np.arange(count)[:, None], drawn), 1.0)
    return counts[:, codes], _called(table, how)


def resample_responses(
    table: Table, y: np.ndarray, fitted: np.ndarray, k: int, count: int, seed: int, how: str
) -> np.ndarray:
    """Return responses `[count, n]` for refits, on the scale of `y` and `fitted` `[n]`.

    residual: fitted + residuals drawn with replacement. wild: fitted + each residual times a random
    sign, one sign a cluster where there are any (Webb's six values with fewer than 8 clusters).
    Residuals are centred and scaled by sqrt(n / (n - k)). Clusters and cells leave `y` as it is.
    """
    _check_how(table, how)
    n = len(y)
    if how not in ("residual", "wild"):
        return np.broadcast_to(y, (count, n))
    residuals = y - fitted
    residuals = (residuals - residuals.mean()) * np.sqrt(n / max(n - k, 1))
    step = _RESIDUAL_STEP if how == "residual" else _WILD_STEP
    codes = table.cluster_codes
    codes = np.arange(n) if how == "residual" or codes is None else codes
    groups = int(codes.max()) + 1
    words = random_words(seed, Purpose.BOOTSTRAP, np.arange(count), step, draws=groups)
    if how == "residual":
        return fitted + residuals[np.floor(uniform(words) * n).astype(np.int64)]
    points = _WEBB if groups < FEW_CLUSTERS else np.array([-1.0, 1.0])
    signs = points[np.floor(uniform(words) * len(points)).astype(np.int64)]
    return fitted + residuals * signs[:, codes]


def bootstrap_intervals(
    values: np.ndarray, draws: np.ndarray, *, level: float = 0.95, groups: int | None = None
) -> tuple[np.ndarray, str]:
    """Return intervals `[..., 2]` of `values` from draws `[B, ...]`, and how they were made.

    Quantiles of the draws; of G clusters, those at Phi(-+ sqrt(G / (G - 1)) t(G - 1)), because the
    bootstrap of few clusters is too narrow; of fewer than 8, which have no tails to read,
    `value +- t(G - 1) sd sqrt(G / (G - 1))`.
    Source: Hesterberg 2015, The American Statistician 69, 371-386, section 5.3 (expanded
    percentiles).
    Error: 6 and 12 clusters cover 94-98 % at a nominal 95 % (tests); plain quantiles 83-91 %.
    """
    values = np.asarray(values, np.float64)
    if len(draws) < 2:
        return np.full((*values.shape, 2), np.nan), "none: too few refits settled"
    tail, how = (1 - level) / 2, "quantiles of the bootstrap"
    if groups is not None:
        wide = t_quantile(0.5 + level / 2, groups - 1) * np.sqrt(groups / (groups - 1))
        tail, how = normal_tail(wide), f"{how}, widened for {groups} clusters"
    if groups is not None and groups < FEW_CLUSTERS:
        half = wide * draws.std(0, ddof=1)
        how = (
            f"Student's t with {groups - 1} degrees of freedom: {groups} clusters are fewer than 8"
        )
        return np.stack([values - half, values + half], -1), how
    low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
    return np.stack([low, high], -1), how


def standard_errors(
    design: np.ndarray, residuals: np.ndarray, clusters: np.ndarray | None
) -> dict[str, np.ndarray | None]:
    """Return `ols` and cluster-robust `cr1` standard errors `[k]` from a Jacobian `[n, k]`.

    CR1 = G/(G-1) (n-1)/(n-k) (J'J)^+ (sum_g J_g' e_g e_g' J_g) (J'J)^+; None without clusters.
    Source: Cameron and Miller 2015, Journal of Human Resources 50, equation 12.
    """
    n, k = design.shape
    inverse = np.linalg.pinv(design.T @ design)
    left = max(n - k, 1)
    ols = np.sqrt(np.diag(inverse) * (residuals @ residuals) / left)
    if clusters is None:
        return {"ols": ols, "cr1": None}
    groups = int(clusters.max()) + 1
    scores = np.zeros((groups, k))
    np.add.at(scores, clusters, design * residuals[:, None])
    meat = scores.T @ scores * groups / (groups - 1) * (n - 1) / left
    return {"ols": ols, "cr1": np.sqrt(np.diag(inverse @ meat @ inverse))}


def pure_error(table: Table, y: np.ndarray | None = None) -> dict | None:
    """Return the scatter within repeated cells: `sse`, `df`, `sd`, `cells`; None without repeats."""
    values, codes = table.y if y is None else y, table.cell_codes
    means = np.bincount(codes, values) / np.bincount(codes)
    sse = float(((values - means[codes]) ** 2).sum())
    cells = int(codes.max()) + 1
    df = len(values) - cells
    if df < 1:
        return None
    return {"sse": sse, "df": df, "sd": float(np.sqrt(sse / df)), "cells": cells}


def lack_of_fit(table: Table, sse: float, k: int, y: np.ndarray | None = None) -> dict | None:
    """Compare what a law leaves with the scatter of repeated cells; None where none is repeated.

    F = ((SSE - pure) / (cells - k)) / (pure / df); `y` on the objective's scale, if it is another.
    """
    pure = pure_error(table, y)
    if pure is None or pure["sse"] == 0 or pure["cells"] <= k:
        return None
    df = [pure["cells"] - k, pure["df"]]
    f = float(((sse - pure["sse"]) / df[0]) / (pure["sse"] / df[1]))
    if f < 0:
        # Cells that hold different factor values: their scatter is no pure error.
        return None
    return {"f": f, "df": df, "p": f_tail(f, *df)}


def cluster_effect(table: Table) -> dict | None:
    """Test whether runs of one cluster move together within the cells; F, df, p and ICC.

    Two-way fixed effects: SS(cluster | cell) against what is left. ICC = s_c^2 / (s_c^2 + s^2) with
    s_c^2 by moments (Henderson's method 3). None where clusters and repeats do not cross.
    """
    codes = table.cluster_codes
    if codes is None:
        return None
    cells, y = np.eye(table.cell_codes.max() + 1)[table.cell_codes], table.y
    members = np.eye(codes.max() + 1)[codes]
    counts = cells.sum(0)

    def within(values: np.ndarray) -> np.ndarray:
        return values - cells @ ((cells.T @ values) / counts.reshape(-1, *[1] * (values.ndim - 1)))

    deviations, inside = within(y), within(members)
    basis, singular, _ = np.linalg.svd(inside, full_matrices=False)
    basis = basis[:, singular > 1e-9 * max(singular[0], 1.0)]
    df_cluster = basis.shape[1]
    df_left = len(y) - cells.shape[1] - df_cluster
    if df_cluster < 1 or df_left < 1:
        return None
    explained = float(((basis.T @ deviations) ** 2).sum())
    left = float((deviations**2).sum()) - explained
    if left <= 0:
        return None
    variance = left / df_left
    component = max((explained - df_cluster * variance) / float((inside**2).sum()), 0.0)
    f = explained / df_cluster / variance
    return {
        "f": f,
        "df": [df_cluster, df_left],
        "p": f_tail(f, df_cluster, df_left),
        "icc": component / (component + variance),
        "variance_cluster": component,
        "variance_residual": variance,
    }


def law_spread(values: Sequence[float]) -> dict:
    """Return how far laws lie apart at one point: `low`, `high`, `sd` and how many there are."""
    array = np.asarray(values, np.float64)
    sd = float(array.std(ddof=1)) if len(array) > 1 else 0.0
    return {"low": float(array.min()), "high": float(array.max()), "sd": sd, "laws": len(array)}


def _check_how(table: Table, how: str) -> None:
    if how not in HOWS:
        raise FitError(f"resample: one of {', '.join(HOWS)}, got {how!r}")
    if how == "clusters" and not table.clusters:
        raise FitError("resample: clusters: the table names no column of clusters")


def _called(table: Table, how: str) -> str:
    """Say what is drawn."""
    signs = f"one sign a cluster ({table.clusters})" if table.clusters else "one sign a run"
    return {
        "clusters": f"clusters ({table.clusters})",
        "cells": "cells",
        "residual": "residuals",
        "wild": f"wild, {signs}",
    }[how]
