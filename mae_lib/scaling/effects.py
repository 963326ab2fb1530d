"""Does each factor help? The change from its lowest to its highest level, others held fixed."""

import numpy as np
import pandas as pd
from scipy import stats

from mae_lib.scaling.table import Table

SAME_LEVEL = np.log(1.2)


def factor_signs(table: Table, *, level: float = 0.95) -> pd.DataFrame:
    """Return a row a factor: mean paired change of the response, its interval, and a verdict.

    Pairs are cells that differ in this factor alone, lowest against highest level; values closer
    than a fifth count as one level, because the patch changes a model's parameters a little. The
    interval is Student's t over pairs, which treats the pairs as independent; `helps` and `hurts`
    need it to exclude zero, else the verdict is `not settled`.
    """
    levels = {f: _levels(table.logs[:, j]) for j, f in enumerate(table.factors)}
    frame = pd.DataFrame(levels).assign(y=table.y)
    rows = []
    for factor in table.factors:
        others = [name for name in table.factors if name != factor]
        ends = frame[frame[factor].isin([frame[factor].min(), frame[factor].max()])]
        wide = ends.pivot_table(index=others, columns=factor, values="y").dropna()
        change = (wide.iloc[:, -1] - wide.iloc[:, 0]).to_numpy() if wide.shape[1] == 2 else []
        rows.append({"factor": factor, "pairs": len(change)} | _verdict(np.array(change), level))
    return pd.DataFrame(rows)


def _levels(logs: np.ndarray) -> np.ndarray:
    """Number the levels of a factor: a new one starts where the sorted logs jump by a fifth."""
    values = np.unique(logs)
    numbers = np.concatenate([[0], np.cumsum(np.diff(values) > SAME_LEVEL)])
    return numbers[np.searchsorted(values, logs)]


def _verdict(change: np.ndarray, level: float) -> dict:
    if len(change) < 2:
        return {"change": np.nan, "low": np.nan, "high": np.nan, "verdict": "not settled"}
    mean = float(change.mean())
    half = float(stats.t.ppf(0.5 + level / 2, len(change) - 1) * stats.sem(change))
    verdict = "helps" if mean > half else "hurts" if mean < -half else "not settled"
    return {
        "change": round(mean, 6),
        "low": round(mean - half, 6),
        "high": round(mean + half, 6),
        "verdict": verdict,
    }
