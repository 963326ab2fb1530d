"""The gate: does the largest cell know more than its baselines, by two standard errors? No torch."""

import pandas as pd

from mae_lib.evaluation.intervals import standard_errors_apart

MARGIN = 2.0


def random_columns(frame: pd.DataFrame) -> list[str]:
    """Return the columns of the random initialisations."""
    return [name for name in frame.columns if name.startswith("random") and name.endswith("_top1")]


def score_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return each score beside its baselines, in fractions, rounded to four places."""
    table = rows[["cell", "task", "protocol", "top1", "top1_low", "top1_high", "chance"]].copy()
    table["pixels"] = rows["pixels_top1"]
    table["random_best"] = rows[random_columns(rows)].max(axis=1)
    return table.round(4)


def largest_cells(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the cell with the most images, parameters and pixels, in that order."""
    done = runs[runs.status == "complete"]
    key = ["images", "params_encoder", "resolution"]
    if done.empty:
        return done
    top = done.sort_values(key).iloc[-1]
    return done[done.cell == top.cell]


def gate(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a row a task and protocol of the largest cell: its score, the better baseline, the
    distance in standard errors, and whether it is at least two."""
    rows = []
    for row in largest_cells(runs).itertuples():
        random = max(getattr(row, name) for name in random_columns(runs))
        best, name = max((row.pixels_top1, "raw pixels"), (random, "random initialisation"))
        apart = standard_errors_apart(row.top1, best, int(row.n_eval))
        rows.append(
            {
                "cell": row.cell,
                "task": row.task,
                "protocol": row.protocol,
                "top1": round(row.top1, 4),
                "baseline": name,
                "baseline_top1": round(best, 4),
                "standard_errors": round(apart, 2),
                "passes": bool(apart >= MARGIN),
            }
        )
    return pd.DataFrame(rows)
