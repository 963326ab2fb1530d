"""What the public grid of arXiv 2308.03712 cannot tell apart, read off its own rows."""

import numpy as np
import pandas as pd
from scipy import stats

from mae_lib.errors import FitError


def confounds(frame: pd.DataFrame) -> dict:
    """Return where resolution varies, what varies with it, and how far seeds share their data.

    `frame` has the columns of results/grids/orhan2023.csv. A size is a model's width.
    Raises: FitError when fine-tuning length varies within a resolution.
    """
    by_size = frame.groupby("width").res.nunique()
    sizes = frame.drop_duplicates("width").set_index("width").arch
    epochs = frame.groupby("res").epochs
    if (epochs.nunique() > 1).any():
        raise FitError("epochs: vary within a resolution, so this summary does not apply")
    last = frame.epoch_best == frame.epochs
    return {
        "rows": len(frame),
        "models": int(frame.groupby(["arch", "res"]).ngroups),
        "resolution_varies_at": [str(sizes[width]) for width in by_size[by_size > 1].index],
        "epochs_by_resolution": {str(px): int(n) for px, n in epochs.first().items()},
        "best_at_last_epoch": {
            str(px): f"{int(part.sum())} of {len(part)}" for px, part in last.groupby(frame.res)
        },
        "vif_interaction": interaction_vif(frame, ("n_params", "res")),
        **subset_effect(frame),
        **resolution_step(frame, 448, 476),
        **pure_error(frame),
    }


def interaction_vif(frame: pd.DataFrame, pair: tuple[str, str]) -> float:
    """Return by how much the variance of the pair's interaction is inflated by its main effects.

    1 / (1 - R^2) of the product of logs about their means, regressed on the logs of all factors.
    """
    logs = np.log(frame[["hours", "n_params", "res"]].astype(float))
    z = logs - logs.mean()
    product = (z[pair[0]] * z[pair[1]]).to_numpy()
    design = np.column_stack([np.ones(len(z)), z.to_numpy()])
    left = product - design @ np.linalg.lstsq(design, product, rcond=None)[0]
    return float(((product - product.mean()) ** 2).sum() / (left**2).sum())


def subset_effect(frame: pd.DataFrame) -> dict:
    """Test whether runs that share a training subset scatter together (one-way, within cells).

    F of the subset means of the residuals from cell means, where a cell is repeated, and the
    intraclass correlation by the analysis of variance.
    """
    cell = frame.groupby(["arch", "res", "data_frac"]).acc1_max
    repeated = cell.transform("size") > 1
    part = frame[repeated].assign(residual=(frame.acc1_max - cell.transform("mean"))[repeated])
    means = part.groupby("subset").residual.agg(["mean", "size"])
    models = int(means["size"].iloc[0])
    df_subset = len(means) - part.data_frac.nunique()
    df_rest = (models - 1) * df_subset
    between = (means["size"] * means["mean"] ** 2).sum()
    within = (part.residual**2).sum() - between
    f = (between / df_subset) / (within / df_rest)
    return {
        "subsets": int(frame.subset.nunique()),
        "subset_f": float(f),
        "subset_df": [int(df_subset), int(df_rest)],
        "subset_p": float(stats.f.sf(f, df_subset, df_rest)),
        "subset_icc": float((f - 1) / (f - 1 + models)),
    }


def resolution_step(frame: pd.DataFrame, low: int, high: int) -> dict:
    """Return the mean gain between two resolutions in points, paired by subset, with its t interval."""
    wide = frame[frame.res.isin([low, high])].pivot_table(
        index="subset", columns="res", values="acc1_max"
    )
    change = (wide[high] - wide[low]).dropna()
    half = stats.t.ppf(0.975, len(change) - 1) * stats.sem(change)
    return {
        "step": f"{low} to {high}",
        "step_gain": float(change.mean()),
        "step_low": float(change.mean() - half),
        "step_high": float(change.mean() + half),
    }


def pure_error(frame: pd.DataFrame) -> dict:
    """Return the scatter of repeated cells in points: standard deviation and degrees of freedom."""
    cell = frame.groupby(["arch", "res", "data_frac"]).acc1_max
    squares = ((frame.acc1_max - cell.transform("mean")) ** 2).sum()
    df = len(frame) - cell.ngroups
    return {"noise_points": float(np.sqrt(squares / df)), "noise_df": int(df)}
