"""Each objective has the gradient that it says, and fits what it should."""

import numpy as np
import pandas as pd
import pytest

from mae_lib.errors import FitError
from mae_lib.scaling.fit import fit_law
from mae_lib.scaling.objectives import Objective, objective_named
from mae_lib.scaling.table import check_table


@pytest.mark.parametrize("name", ["ls", "log", "huber", "binomial"])
def test_the_slope_is_half_the_loss_gradient(name):
    rng = np.random.default_rng(0)
    goal, y, f = Objective(name, 0.05), rng.uniform(0.1, 0.9, 40), rng.uniform(0.1, 0.9, 40)
    step = 1e-6
    up, down = (goal.terms(y, f + s)[0] for s in (step, -step))
    np.testing.assert_allclose(-(up - down) / (2 * step), 2 * goal.terms(y, f)[1], atol=1e-6)


def test_hubers_loss_joins_smoothly_at_delta():
    goal = Objective("huber", 0.1)
    loss, slope, _ = goal.terms(np.array([0.1, 0.1 + 1e-12, 1.0]), np.zeros(3))
    assert loss[0] == pytest.approx(loss[1], rel=1e-9)
    assert loss[2] / 2 == pytest.approx(0.1 * (1 - 0.05))
    assert slope[2] == pytest.approx(0.1)


def test_the_deviance_of_a_perfect_fit_is_zero_at_the_ends_too():
    y = np.array([0.0, 0.25, 1.0])
    np.testing.assert_allclose(Objective("binomial").terms(y, y)[0], 0, atol=1e-10)


def curve(noise: float = 0.0) -> pd.DataFrame:
    frame = pd.DataFrame(
        {"tokens": np.repeat(np.geomspace(1e7, 1e10, 12), 3), "images_scored": 400}
    )
    rng = np.random.default_rng(1)
    share = 1 / (1 + np.exp(-0.5 * np.log(frame.tokens / 3e8)))
    drawn = rng.binomial(frame.images_scored, share) / frame.images_scored
    return frame.assign(top1=drawn if noise else share, loss=1.5 + (frame.tokens / 1e7) ** -0.4)


def test_a_binomial_fit_equals_statistics_by_hand():
    table = check_table(
        curve(1.0), response="top1", factors=("tokens",), trials="images_scored",
        allow_repeats=True,
    )  # fmt: skip
    fit = fit_law(table, "logit_additive", objective="binomial", bootstrap=200)
    # The score equations of logistic regression: sum m (y - p) and sum m (y - p) z are zero.
    residual = table.frame.images_scored * (table.y - fit.fitted())
    assert abs(residual.sum()) < 1e-6
    assert abs((residual * fit.z[:, 0]).sum()) < 1e-6
    assert fit.bootstrap["failed"] == 0
    low, high = fit.intervals[1]
    assert low < 0.5 < high


def test_a_binomial_fit_needs_trials():
    table = check_table(curve(1.0), response="top1", factors=("tokens",), allow_repeats=True)
    with pytest.raises(FitError, match="needs a column of trials"):
        fit_law(table, "logit_additive", objective="binomial")


def test_hubers_fit_shrugs_off_an_outlier_that_moves_least_squares():
    frame = curve()
    frame.loc[35, "loss"] *= 1.2
    table = check_table(frame, response="loss", factors=("tokens",), allow_repeats=True)
    robust = fit_law(table, "power_sum", objective="huber", bootstrap=0)
    squares = fit_law(table, "power_sum", objective="log", bootstrap=0)
    assert robust.params[0] == pytest.approx(1.5, abs=2e-3)
    assert abs(squares.params[0] - 1.5) > 2e-2


@pytest.mark.parametrize("objective", ["ls", "log", "huber"])
@pytest.mark.parametrize("how", ["cells", "residual", "wild"])
def test_every_objective_is_resampled_in_every_way(objective, how):
    frame = curve()
    frame["loss"] *= np.exp(0.01 * np.random.default_rng(4).normal(size=len(frame)))
    table = check_table(frame, response="loss", factors=("tokens",))
    fit = fit_law(table, "power_sum", objective=objective, bootstrap=200, resample=how, delta=0.01)
    assert fit.bootstrap["failed"] <= 20
    low, high = fit.intervals.astype(float).T
    assert ((low < fit.params) & (fit.params < high)).all()


def test_a_value_without_a_log_and_an_unknown_objective_stop_in_one_line():
    frame = curve().assign(top1=lambda f: f.top1.where(f.index > 0, 0.0))
    table = check_table(frame, response="top1", factors=("tokens",), allow_repeats=True)
    with pytest.raises(FitError, match="row 2: objective log takes the log"):
        fit_law(table, "log_additive", objective="log")
    with pytest.raises(FitError, match="one of ls, log, huber, binomial, got 'l1'"):
        objective_named("l1", 1e-3)
    with pytest.raises(FitError, match="delta: must be a number above 0"):
        objective_named("huber", 0.0)
