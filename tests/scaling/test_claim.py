"""The claim in numbers: the design's arithmetic, its simulation, the public grid's confounds."""

import pandas as pd
import pytest

from mae_lib.errors import FitError
from mae_lib.scaling.claim import (
    balanced_error_factor,
    half_width,
    native_share,
    ranges_beyond,
    runs_for,
    standard_error_factor,
)
from mae_lib.scaling.claim_simulation import DESIGNS, simulate
from mae_lib.scaling.confounds import confounds
from mae_lib.study.paths import root


@pytest.fixture(scope="module")
def grid():
    return confounds(pd.read_csv(root() / "results" / "grids" / "orhan2023.csv"))


# Factors of a straight line in ln R with two levels, to 4096 px; worked out by hand from the
# formula ((t - a) + (t - b)) / (b - a).
@pytest.mark.parametrize(
    ("low", "high", "factor"),
    [(226, 256, 45.4887), (224, 448, 7.385), (224, 476, 6.711), (64, 256, 5.0), (64, 512, 3.0)],
)
def test_the_standard_error_at_4096_pixels_by_design(low, high, factor):
    assert standard_error_factor(low, high, 4096) == pytest.approx(factor, rel=1e-3)


def test_the_printed_design_is_22_ranges_away_and_its_answer_is_25_points_wide_each_way():
    assert ranges_beyond(226, 256, 4096) == pytest.approx(22.2443, abs=1e-4)
    factor = balanced_error_factor(226, 256, 4096)
    assert factor == pytest.approx(45.4997, abs=1e-4)
    assert half_width(1.285, 24, factor) == pytest.approx(24.7, abs=0.1)
    assert half_width(0.5, 24, factor) == pytest.approx(9.6, abs=0.1)
    assert runs_for(1.285, 2.0, standard_error_factor(226, 256, 4096)) == pytest.approx(3281, abs=2)
    with pytest.raises(FitError, match="more than the 2 parameters"):
        half_width(1.0, 2, factor)


def test_least_squares_gives_the_standard_error_that_the_formula_says():
    # one prediction at 4096 px from 12 runs at each level, 4,000 times
    import numpy as np

    x = np.log(np.repeat([226.0, 256.0], 12))
    design = np.column_stack([np.ones(24), x])
    noise = np.random.default_rng(0).normal(size=(24, 4000))
    answers = np.array([1, np.log(4096)]) @ np.linalg.lstsq(design, noise, rcond=None)[0]
    expected = balanced_error_factor(226, 256, 4096) / np.sqrt(24)
    assert answers.std() == pytest.approx(expected, rel=0.04)


def test_a_mixture_of_small_photographs_holds_a_small_share_of_large_pixels():
    found = native_share({"a": 3, "b": 1}, {"a": (32, 32), "b": (64, 128)}, 256)
    assert found["native_pixels"] == 3 * 1024 + 8192
    assert found["share"] == pytest.approx((3 * 1024 + 8192) / (4 * 65536))
    assert found["upsampling"] == {"a": 8.0, "b": 4.0}


@pytest.fixture(scope="module")
def simulated():
    return {design.name: simulate(design, studies=800) for design in DESIGNS}


def test_from_the_printed_design_a_product_law_is_a_coin_toss(simulated):
    found = simulated["printed_sizes"]
    assert found["runs"] == 24
    assert found["truth"] == pytest.approx(0.7865, abs=1e-4)
    product = found["laws"]["log_product"]
    assert 0.45 < product["above_90"] < 0.65
    assert product["sd"] > 0.2
    assert found["laws"]["logit_additive"]["mean"] == pytest.approx(found["truth"], abs=0.03)


def test_the_printed_law_is_honest_where_it_is_nearly_right_and_useless(simulated):
    found = simulated["printed"]
    law = found["laws"]["log_product"]
    assert law["mean"] == pytest.approx(found["truth"], abs=0.02)
    assert law["coverage"] > 0.9
    assert law["width"] > 0.4


def test_more_runs_of_the_product_law_are_precise_and_wrong_and_the_true_law_covers(simulated):
    laws = simulated["extended"]["laws"]
    assert laws["log_product"]["above_90"] > 0.9
    assert laws["log_product"]["coverage"] < 0.05
    assert laws["logit_additive"]["coverage"] == pytest.approx(0.95, abs=0.03)
    assert all(law["failed"] == 0 for law in laws.values())


def test_the_simulation_is_the_same_every_time():
    assert simulate(DESIGNS[0], studies=50) == simulate(DESIGNS[0], studies=50)


# Reference values of the public grid, computed independently of this code.
def test_the_public_grids_confounds_are_read_off_its_rows(grid):
    assert grid["resolution_varies_at"] == ["ViT-H/14"]
    assert grid["epochs_by_resolution"] == {"224": 50, "448": 10, "476": 8}
    assert grid["best_at_last_epoch"] == {"224": "0 of 52", "448": "0 of 13", "476": "9 of 13"}
    assert grid["vif_interaction"] > 1e7
    assert (grid["rows"], grid["models"], grid["subsets"]) == (78, 6, 13)


def test_runs_of_the_public_grid_share_their_subsets_noise(grid):
    assert grid["subset_f"] == pytest.approx(8.69, abs=0.01)
    assert grid["subset_df"] == [8, 40]
    assert grid["subset_icc"] == pytest.approx(0.562, abs=1e-3)
    assert grid["noise_points"] == pytest.approx(1.285, abs=1e-3)
    assert grid["noise_df"] == 48


def test_the_step_from_448_to_476_pixels_is_not_settled(grid):
    assert grid["step_low"] < 0 < grid["step_high"]


def test_confounds_of_another_kind_of_grid_are_refused():
    frame = pd.read_csv(root() / "results" / "grids" / "orhan2023.csv")
    frame.loc[0, "epochs"] = 7
    with pytest.raises(FitError, match="vary within a resolution"):
        confounds(frame)
