"""Fits reproduce published reference values, recover truth, and say what they cannot know."""

import numpy as np
import pandas as pd
import pytest
from law_tables import FACTORS
from law_tables import law_grid as grid
from law_tables import law_table as table

from mae_lib.errors import FitError
from mae_lib.scaling.effects import factor_signs
from mae_lib.scaling.fit import fit_law
from mae_lib.scaling.predict import distances, predict_law, predictions_frame
from mae_lib.scaling.table import check_table


@pytest.mark.parametrize("name", ["log_product", "log_additive", "logit_additive"])
def test_noise_free_data_of_a_law_is_recovered(name):
    frame = grid(0.0, law=name)
    fit = fit_law(table(frame), name, bootstrap=100)
    np.testing.assert_allclose(fit.fitted(), frame.top1, atol=1e-9)
    assert fit.starts["agreeing"] >= 1


def test_the_printed_law_is_the_product_of_two_brackets_whatever_their_scale():
    frame = grid(0.0)
    frame["top1"] = (0.02 + 0.03 * np.log(frame.images)) * (0.1 + 0.5 * np.log(frame.resolution))
    fit = fit_law(table(frame), "printed", bootstrap=100)
    np.testing.assert_allclose(fit.fitted(), frame.top1, atol=1e-9)
    assert fit.identifiability["rank"] == fit.k == 3


def test_bootstrap_intervals_cover_the_truth_about_as_often_as_they_say():
    truth, hits = 0.02, 0
    repeats = 60
    for seed in range(repeats):
        frame = grid(0.005, seed, "log_additive", repeats=3)
        fit = fit_law(table(frame), "log_additive", bootstrap=300, seed=seed)
        low, high = fit.intervals[1]
        hits += low <= truth <= high
    # 95 % nominal; the bootstrap is short with few rows: five binomial errors below 95 % is 0.81
    assert hits / repeats >= 0.81


def test_the_bootstrap_is_deterministic_and_counts_failed_refits():
    first = fit_law(table(grid(0.01)), "log_product", bootstrap=300).to_json()
    assert first == fit_law(table(grid(0.01)), "log_product", bootstrap=300).to_json()
    assert 0 <= first["bootstrap"]["failed"] < 300


def test_rho_is_the_distance_beyond_the_data_over_its_range():
    fit = fit_law(table(grid(0.01)), "log_additive", bootstrap=100)
    rho = distances(fit, {"images": 80000, "params_encoder": 2e5, "resolution": 8})
    assert rho == pytest.approx({"images": 0.5, "params_encoder": 0.0, "resolution": 1.0})


def test_predictions_have_a_row_a_law_and_target_and_say_when_they_are_impossible():
    names = ("printed", "log_product", "log_additive", "logit_additive")
    fits = [fit_law(table(grid(0.002)), name, bootstrap=200) for name in names]
    targets = {
        "near": {"images": 16000, "params_encoder": 4e5, "resolution": 32},
        "far": {"images": 2e5, "params_encoder": 5.22e11, "resolution": 4096},
    }
    frame = predictions_frame(fits, targets).set_index(["target", "law"])
    assert len(frame) == 8
    assert frame.loc["near"].calibrated.all()
    assert not frame.loc["far"].calibrated.any()
    assert not frame.loc[("far", "log_product"), "inside_unit_interval"]
    assert frame.loc[("far", "logit_additive"), "inside_unit_interval"]
    assert ((frame.low <= frame.value) & (frame.value <= frame.high)).all()


def test_signs_of_effects_are_found_and_doubt_is_said():
    verdicts = factor_signs(table(grid(0.001))).set_index("factor").verdict
    assert verdicts.to_dict() == dict.fromkeys(FACTORS, "helps")
    noise = grid(0.0)
    noise["top1"] = 0.2 + 0.05 * np.random.default_rng(3).normal(size=len(noise))
    assert (factor_signs(table(noise)).verdict == "not settled").sum() >= 2


def test_too_few_rows_and_unknown_laws_are_refused():
    with pytest.raises(FitError, match="need at least 4 rows"):
        fit_law(table(grid(0.01).iloc[[0, 5, 11]]), "log_product")
    with pytest.raises(FitError, match="one of printed"):
        fit_law(table(grid(0.01)), "log_prodct")


def orhan(grids):
    frame = pd.read_csv(grids / "orhan2023.csv")
    return check_table(frame, response="acc1_max", factors=("hours", "n_params", "res"))


# Reference values of the public grid of arXiv 2308.03712 (78 runs), least squares on fractions,
# centred at (50 h, 1.5e8 parameters, 300 px); computed independently with scipy.
ORHAN_CENTRE = np.log([50, 1.5e8, 300])
ORHAN = {
    "log_product": (269.2317, [0.261491, 0.080224, 0.082596, 0.239607], (60.9176, 97.4652)),
    "log_additive": (248.4027, [0.2645383, 0.0218862, 0.0183872, 0.0733053], (53.21, 70.69)),
    "logit_additive": (196.7851, [-1.0696296, 0.1182398, 0.1124533, 0.3489186], (58.8581, 78.6505)),
}


@pytest.mark.parametrize("name", ORHAN)
def test_the_public_grid_gives_its_reference_values(grids, name):
    sse, params, predictions = ORHAN[name]
    fit = fit_law(orhan(grids), name, bootstrap=100, centre=ORHAN_CENTRE)
    assert fit.sse * 1e4 == pytest.approx(sse, rel=1e-4)
    assert fit.params == pytest.approx(params, rel=1e-4)
    for hours, n_params, res, expected in (
        (20000, 2.5e9, 952, predictions[0]),
        (5000, 522e9, 4096, predictions[1]),
    ):
        at = {"hours": hours, "n_params": n_params, "res": res}
        assert 100 * predict_law(fit, at)["value"] == pytest.approx(expected, rel=2e-4)


def test_the_public_grids_lack_of_fit_and_leverage_are_the_reference_values(grids):
    fit = fit_law(orhan(grids), "log_product", bootstrap=100, centre=ORHAN_CENTRE)
    assert fit.lack_of_fit["f"] == pytest.approx(4.428, rel=1e-3)
    assert fit.lack_of_fit["df"] == [26, 48]
    fit = fit_law(orhan(grids), "log_additive", bootstrap=100, centre=ORHAN_CENTRE)
    for hours, n_params, res, expected in (
        (5000, 632e6, 476, 0.0845), (20000, 2.5e9, 952, 0.2408), (5000, 522e9, 4096, 0.8889)
    ):  # fmt: skip
        at = {"hours": hours, "n_params": n_params, "res": res}
        assert predict_law(fit, at)["leverage"] == pytest.approx(expected, abs=1e-4)
