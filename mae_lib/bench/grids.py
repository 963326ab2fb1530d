"""The grids of runs that coverage is measured on: tables of a folder, cut into grids of one response.

Tables that are known here are cut by what their columns mean; any other `X.csv` with an `X.yaml` beside
it is one grid, one study, with the response and factors that the YAML names (`mae_lib.scaling.read`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mae_lib.errors import FitError
from mae_lib.scaling.read import read_table
from mae_lib.scaling.table import Table, check_table


@dataclass(frozen=True)
class Grid:
    """One table of one response: `compute` `[n]` is None where only the factors are known."""

    study: str
    name: str
    table: Table
    compute: np.ndarray | None


@dataclass(frozen=True)
class Known:
    """How a known file is cut: `by` one grid a value, `clusters` by grid, `keep` drops rows."""

    responses: tuple[str, ...]
    factors: tuple[str, ...]
    kind: str
    compute: Callable[[pd.DataFrame], pd.Series] | None = None
    by: str | None = None
    clusters: Callable[[str], str | None] = lambda value: None
    keep: Callable[[pd.DataFrame], pd.DataFrame] = lambda frame: frame


def _without_five_largest(frame: pd.DataFrame) -> pd.DataFrame:
    """Drop the five largest losses, as the published fit does (arXiv 2404.10102)."""
    return frame[frame.loss < frame.loss.nlargest(5).min()]


# Few-shot curves of vision_alabdulmohsin2022.csv are left out: 1,671 points of 18 runs.
# Data size of OpenCLIP is left out: three levels, the last nominal; and its parameters stand for two
# models of equal size and different compute, so the compute of one sample takes their place.
KNOWN = {
    "orhan2023": Known(
        ("acc1_max", "acc5_max", "test_loss_min"), ("hours", "n_params", "res"), "",
        lambda f: 1.0 * f.n_params * f.tokens * f.hours, clusters=lambda _: "subset",
    ),
    "chinchilla_besiroglu2024": Known(
        ("loss",), ("n_params", "n_tokens"), "loss", lambda f: f.flop, keep=_without_five_largest
    ),
    "cherti2023_openclip": Known(
        ("imagenet1k_acc1", "imagenet_robustness_acc1", "vtab_acc1", "coco_t2i_r5"),
        ("gmacs_per_sample", "samples_seen"), "accuracy",
        lambda f: f.gmacs_per_sample * f.samples_seen,
    ),
    "gadre2024_overtraining": Known(
        ("loss_c4_val", "loss_openlm"), ("n_params", "tokens"), "loss",
        lambda f: 1.0 * f.n_params * f.tokens, by="train_set",
    ),
    # Points of one size may be checkpoints of one run, except where the schedule needs a run a point.
    "porian2024_isoflop": Known(
        ("loss",), ("n_params", "n_tokens"), "loss", lambda f: f.flops, by="setting",
        clusters=lambda setting: None if "chinchilla" in setting else "n_params",
    ),
    "nmt_alabdulmohsin2022": Known(
        ("log_perplexity",), ("sentences",), "loss", by="arch"
    ),
}  # fmt: skip
SKIPPED = ("vision_alabdulmohsin2022",)


def load_grids(folder: str | Path) -> list[Grid]:
    """Return the grids of every table in a folder, known ones and those with a YAML, by file name.

    Raises: FitError when the folder holds no such table, or one cannot be read.
    """
    folder = Path(folder)
    found: list[Grid] = []
    for path in sorted(folder.glob("*.csv")):
        if path.stem in KNOWN:
            found += _known(path, KNOWN[path.stem])
        elif path.stem not in SKIPPED and path.with_suffix(".yaml").exists():
            found.append(_described(path))
    if not found:
        raise FitError(
            f"{folder}: holds no table that is known, nor one with a YAML beside it; "
            "set MAE_GRIDS to the folder of the grids"
        )
    return found


def _known(path: Path, known: Known) -> list[Grid]:
    frame = known.keep(pd.read_csv(path))
    parts = frame.groupby(known.by) if known.by else [("", frame)]
    found = []
    for value, part in parts:
        for response in known.responses:
            name = "/".join(filter(None, (path.stem, value, response)))
            table = check_table(
                part.reset_index(drop=True),
                response=response,
                factors=known.factors,
                clusters=known.clusters(value),
                kind=known.kind or ("loss" if "loss" in response else "accuracy"),
                name=name,
                allow_repeats=True,
            )
            compute = known.compute(part).to_numpy(np.float64) if known.compute else None
            found.append(Grid(path.stem, name, table, compute))
    return found


def _described(path: Path) -> Grid:
    table = read_table(path)
    role = table.roles.get("compute")
    compute = table.frame[role].to_numpy(np.float64) if role else None
    return Grid(path.stem, f"{path.stem}/{table.response}", table, compute)
