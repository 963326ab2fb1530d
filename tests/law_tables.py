"""Small tables of runs for the law tests: a known law on a known grid, and the public grid."""

import numpy as np
import pandas as pd

from mae_lib.scaling.laws import law_named
from mae_lib.scaling.table import Table, check_table

FACTORS = ("images", "params_encoder", "resolution")
TRUTH = {
    "log_product": [0.2, 0.08, 0.05, 0.3],
    "log_additive": [0.2, 0.02, 0.01, 0.05],
    "logit_additive": [-1.2, 0.1, 0.08, 0.4],
}


def law_grid(
    noise: float, seed: int = 0, law: str = "log_product", repeats: int = 1
) -> pd.DataFrame:
    """Twelve cells, each `repeats` times: a law's values plus normal noise."""
    frame = pd.DataFrame(
        [
            (i, p, r)
            for i in (80, 800, 8000)
            for p in (1e5, 4.5e5)
            for r in (16, 32)
            for _ in range(repeats)
        ],
        columns=list(FACTORS),
    )
    z = np.log(frame.to_numpy()) - np.log(frame.to_numpy()).mean(0)
    y = law_named(law).evaluate(np.array(TRUTH[law]), z)[0]
    return frame.assign(top1=y + noise * np.random.default_rng(seed).normal(size=len(frame)))


def law_table(frame: pd.DataFrame, **options) -> Table:
    """Check a frame of `law_grid`."""
    return check_table(frame, response="top1", factors=FACTORS, **options)


# The centre at which the reference values of the public grid of arXiv 2308.03712 hold.
ORHAN_CENTRE = np.log([50, 1.5e8, 300])
ORHAN_FACTORS = ("hours", "n_params", "res")


def orhan(grids, **options) -> Table:
    """Check the public grid of arXiv 2308.03712 (78 runs)."""
    frame = pd.read_csv(grids / "orhan2023.csv")
    return check_table(frame, response="acc1_max", factors=ORHAN_FACTORS, **options)
