"""Profiles equal exact intervals where those exist, and say where the data bound nothing."""

import numpy as np
import pandas as pd
import pytest
from law_tables import ORHAN_CENTRE, law_grid, law_table, orhan
from scipy import stats

from mae_lib.errors import FitError
from mae_lib.scaling.fit import fit_law
from mae_lib.scaling.profile import profile_parameter, profile_prediction
from mae_lib.scaling.table import check_table

AT = {"images": 40000, "params_encoder": 1e6, "resolution": 64}


def test_on_a_linear_law_the_profile_is_students_interval():
    fit = fit_law(law_table(law_grid(0.01, repeats=2)), "log_additive", bootstrap=0)
    covariance = fit.sse / (fit.n - fit.k) * np.linalg.inv(fit.design.T @ fit.design)
    t = stats.t.ppf(0.975, fit.n - fit.k)
    for place, name in enumerate(fit.law.names(fit.table.factors)):
        found = profile_parameter(fit, name)
        half = t * np.sqrt(covariance[place, place])
        assert (found.low, found.high) == pytest.approx(
            (fit.params[place] - half, fit.params[place] + half), abs=2e-3 * half
        )
        assert found.low_bounded
        assert found.high_bounded
        assert not found.better
    x = np.array([[AT[f] for f in fit.table.factors]])
    half = t * np.sqrt(fit.gradient(x)[0] @ covariance @ fit.gradient(x)[0])
    found = profile_prediction(fit, AT)
    assert found.estimate == pytest.approx(fit.predict(x)[0])
    assert (found.low, found.high) == pytest.approx(
        (found.estimate - half, found.estimate + half), abs=2e-3 * half
    )


def test_a_prediction_of_a_logistic_law_stays_between_0_and_1():
    fit = fit_law(law_table(law_grid(0.03, law="logit_additive")), "logit_additive", bootstrap=0)
    found = profile_prediction(fit, AT | {"resolution": 4096})
    assert 0 <= found.low < found.estimate < found.high <= 1


def test_an_end_that_the_data_do_not_bound_is_said():
    rng = np.random.default_rng(0)
    x = np.repeat([1e3, 1e4, 1e5, 1e6], 3)
    frame = pd.DataFrame({"images": x, "error": 5 * x**-0.2 + 0.02 * rng.normal(size=12)})
    table = check_table(frame, response="error", factors=("images",), kind="loss")
    fit = fit_law(table, "power_product", bootstrap=0)
    found = profile_parameter(fit, "floor")
    assert not found.low_bounded
    assert found.low == 0
    assert found.high_bounded
    assert "0 its bound (not bounded by the data)" in found.words
    assert found.to_json()["low"] is None


def test_the_profile_of_a_nonlinear_prediction_covers_the_truth_as_often_as_it_says():
    hits, repeats = 0, 40
    z = np.log([[AT[f] for f in ("images", "params_encoder", "resolution")]])
    z = z - np.log(law_grid(0)[["images", "params_encoder", "resolution"]]).mean().to_numpy()
    truth = 0.2 * np.prod(1 + np.array([0.08, 0.05, 0.3]) * z[0])
    for seed in range(repeats):
        fit = fit_law(law_table(law_grid(0.01, seed, repeats=2)), "log_product", bootstrap=0)
        found = profile_prediction(fit, AT)
        hits += found.low <= truth <= found.high
    # 95 % nominal; five binomial errors of 40 repeats below it is 0.78
    assert hits / repeats >= 0.78


def test_unknown_parameters_and_bad_points_are_refused():
    fit = fit_law(law_table(law_grid(0.01)), "log_additive", bootstrap=0)
    with pytest.raises(FitError, match="profile: slope: log_additive has level"):
        profile_parameter(fit, "slope")
    with pytest.raises(FitError, match="at: resolution: must be a number above 0, got nothing"):
        profile_prediction(fit, {"images": 1, "params_encoder": 1})


def test_a_ceiling_cannot_be_learnt_at_44_percent(grids):
    fit = fit_law(orhan(grids), "logit_ceiling", bootstrap=0, centre=ORHAN_CENTRE)
    found = profile_parameter(fit, "ceiling")
    assert found.low == pytest.approx(0.61, abs=5e-3)
    assert (found.high, found.high_bounded) == (1.0, False)
    # The reference's profile: 196.8 squared points with the ceiling held at 1.
    assert 1e4 * found.points[-1, 1] == pytest.approx(196.8, abs=0.05)
    claim = profile_prediction(fit, {"hours": 5000, "n_params": 522e9, "res": 4096})
    assert claim.low <= 0.58
    assert claim.high >= 0.79


def test_chinchillas_profile_intervals_are_the_reference_values(grids):
    frame = pd.read_csv(grids / "chinchilla_besiroglu2024.csv").query("loss < 3.44")
    table = check_table(frame, response="loss", factors=("n_params", "n_tokens"))
    assert len(table.frame) == 240
    fit = fit_law(table, "power_sum", objective="log", bootstrap=0)
    for name, low, high in (
        ("floor", 1.8355, 1.8917),
        ("exponent_n_params", 0.34015, 0.38059),
        ("exponent_n_tokens", 0.38733, 0.42454),
    ):
        found = profile_parameter(fit, name)
        assert (found.low, found.high) == pytest.approx((low, high), abs=6e-5)
