"""How far a fit can be trusted: what is resampled, pure error, and lack of fit."""

import numpy as np
import pandas as pd
from scipy import stats

from mae_lib.errors import FitError
from mae_lib.kernels.philox import Purpose, random_words, uniform
from mae_lib.scaling.table import Table

HOWS = ("clusters", "cells", "residual", "wild")


def resample_weights(
    table: Table, count: int, seed: int, how: str | None = None
) -> tuple[np.ndarray, str]:
    """Return how often each refit takes each row `[count, n]`, and what is drawn, in words.

    Whole clusters are drawn where the table names them, else rows.
    Raises: FitError for clusters that the table does not name.
    """
    if how == "clusters" and not table.clusters:
        raise FitError("resample: clusters: the table names no column of clusters")
    if table.clusters and how in (None, "clusters"):
        codes, unit = pd.factorize(table.frame[table.clusters])[0], f"clusters ({table.clusters})"
    else:
        codes, unit = np.arange(len(table.frame)), "cells"
    groups = int(codes.max()) + 1
    words = random_words(seed, Purpose.BOOTSTRAP, np.arange(count), draws=groups)
    drawn = np.floor(uniform(words) * groups).astype(np.int64)
    counts = np.zeros((count, groups))
    np.add.at(counts, (np.arange(count)[:, None], drawn), 1.0)
    return counts[:, codes], unit


def lack_of_fit(table: Table, sse: float, k: int) -> dict | None:
    """Compare what a law leaves with the scatter of repeated cells; None where none is repeated."""
    frame = pd.DataFrame(table.logs.round(12)).assign(y=table.y)
    groups = frame.groupby(list(range(table.logs.shape[1])))["y"]
    pure = float((groups.transform("mean") - frame["y"]).pow(2).sum())
    df_pure = len(frame) - groups.ngroups
    df_lack = groups.ngroups - k
    if df_pure < 1 or df_lack < 1 or pure == 0:
        return None
    f = ((sse - pure) / df_lack) / (pure / df_pure)
    p = float(stats.f.sf(f, df_lack, df_pure))
    return {"f": float(f), "df": [int(df_lack), int(df_pure)], "p": p}
