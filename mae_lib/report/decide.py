"""The numbers that decide the claim, gathered into results/claim.json, and the verdicts on them."""

import pandas as pd

from mae_lib.images.mixture import allot
from mae_lib.records.sidecar import read_list, write_list
from mae_lib.scaling.claim import (
    balanced_error_factor,
    decision,
    half_width,
    native_share,
    ranges_beyond,
    runs_for,
    standard_error_factor,
    verdicts,
)
from mae_lib.scaling.claim_evidence import evidence
from mae_lib.scaling.claim_simulation import DESIGNS, simulate
from mae_lib.scaling.confounds import confounds
from mae_lib.study.load import load_study
from mae_lib.study.paths import root

# Width and height in pixels: CelebA aligned and CIFAR-10 as published, ImageNet's average, and
# scene parsing, whose shortest side is 512, at 4:3.
NATIVE = {
    "imagenet": (469, 387),
    "celeba": (178, 218),
    "cifar10": (32, 32),
    "ade20k": (683, 512),
}
# Cells of the design with sizes: three models x four amounts x two resolutions.
RUNS = 24
WANTED_POINTS = 2.0


def claim_path():
    """Return where the numbers of the claim are published."""
    return root() / "results" / "claim.json"


def grids_folder():
    """Return the folder of the committed public tables."""
    return root() / "results" / "grids"


def claim_numbers() -> dict:
    """Compute every number of the claim's page: design, simulation, public grid, pixels, verdicts."""
    frame = pd.read_csv(grids_folder() / "orhan2023.csv")
    grid = confounds(frame)
    study = load_study("paper")
    low, high = sorted({cell.resolution for cell in study.cells})
    target = float(study.targets[0].resolution)
    counts = allot(study.data.total, [source.share for source in study.data.sources])
    named = {s.name: int(n) for s, n in zip(study.data.sources, counts, strict=True)}
    noise = grid["noise_points"]
    factor = balanced_error_factor(low, high, target)
    numbers = {
        "format": 1,
        "design": {
            "low": low,
            "high": high,
            "target": target,
            "rho": ranges_beyond(low, high, target),
            "se_factor": factor,
            "noise_points": noise,
            "runs": RUNS,
            "half_width": half_width(noise, RUNS, factor),
            "runs_for_2": runs_for(noise, WANTED_POINTS, standard_error_factor(low, high, target)),
            "se_factor_64_512": standard_error_factor(64, 512, target),
            "fewer_runs_64_512": (
                standard_error_factor(low, high, target) / standard_error_factor(64, 512, target)
            )
            ** 2,
        },
        "simulation": {design.name: simulate(design) for design in DESIGNS},
        "grid": grid,
        "pixels": native_share(named, {n: NATIVE[n] for n in named}, int(target))
        | {"images": study.data.total},
        **evidence(frame),
    }
    found = verdicts(numbers)
    return numbers | {
        "verdicts": [vars(verdict) for verdict in found],
        "decision": decision(found),
    }


def write_claim() -> dict:
    """Compute the numbers and write results/claim.json with its seal."""
    numbers = claim_numbers()
    write_list(claim_path(), numbers)
    return numbers


def read_claim() -> dict:
    """Read the published numbers of the claim."""
    return read_list(claim_path())
