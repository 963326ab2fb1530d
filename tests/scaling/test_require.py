"""What a target takes, by law; "never" where a ceiling forbids it."""

from dataclasses import replace

import pytest

from mae_lib.errors import FitError
from mae_lib.scaling.fit import fit_law, fit_laws
from mae_lib.scaling.read import read_table
from mae_lib.scaling.require import require

ORHAN = "results/grids/orhan2023.csv"
AT = {"hours": 5000, "res": 4096}


@pytest.fixture(scope="module")
def orhan():
    table = read_table(ORHAN)
    names = ["log_product", "log_additive", "logit_additive", "logit_ceiling", "power_sum"]
    return table, fit_laws(table, names, bootstrap=200)


def answers(table, fits, target, at=AT, solve="n_params"):
    return {one["law"]: one for one in require(table, fits, target, solve, at)["laws"]}


def test_the_size_for_90_percent_differs_by_five_decades_between_laws(orhan):
    found = answers(*orhan, 90)
    # Solved independently from fits to the same 78 runs.
    assert found["log_product"]["value"] == pytest.approx(1.1e11, rel=0.05)
    assert found["logit_additive"]["value"] == pytest.approx(1.5e15, rel=0.05)
    assert found["log_additive"]["value"] == pytest.approx(1.9e16, rel=0.05)
    for name in ("logit_ceiling", "power_sum"):
        assert found[name]["value"] is None
        assert found[name]["answer"].startswith("never")


def test_the_law_gives_the_target_at_the_answer(orhan):
    table, fits = orhan
    found = answers(table, fits, 60)
    for fit in fits[:3]:
        x = [[5000, found[fit.law.name]["value"], 4096]]
        assert table.scale * fit.predict(x)[0] == pytest.approx(60, abs=1e-6)


def test_answers_far_beyond_the_data_are_marked(orhan):
    found = answers(*orhan, 90)
    assert not found["log_product"]["calibrated"]
    assert found["log_product"]["rho_max"] > 2
    near = answers(*orhan, 45, {"hours": 5000, "res": 448})["logit_additive"]
    assert near["calibrated"]


def test_the_interval_holds_the_answer_and_says_how_often_it_is_never(orhan):
    one = answers(*orhan, 60)["logit_additive"]
    assert one["low"] <= one["value"] * 1.2
    assert one["high"] >= one["value"] / 1.2
    assert one["never_share"] == 0
    short = answers(*orhan, 79)["logit_ceiling"]
    assert 0 < short["never_share"] <= 1


def test_a_loss_is_reached_from_above_and_never_below_its_floor():
    table = read_table(
        "results/grids/gadre2024_overtraining.csv", response="loss_c4_val",
        factors=["n_params", "tokens"],
    )  # fmt: skip
    fit = fit_law(table, "power_sum", bootstrap=0)
    found = answers(table, [fit], 2.6, {"n_params": 7e9}, "tokens")["power_sum"]
    assert fit.predict([[7e9, found["value"]]])[0] == pytest.approx(2.6)
    assert fit.predict([[7e9, found["value"] / 2]])[0] > 2.6
    never = answers(table, [fit], 1.0, {"n_params": 7e9}, "tokens")["power_sum"]
    assert never["value"] is None
    assert never["answer"].startswith("never")


def test_a_law_without_the_factor_never_reaches_by_it(orhan):
    table, fits = orhan
    blind = replace(fits[1], factors=("hours", "res"))
    assert answers(table, [blind], 60)["log_additive"]["answer"] == "never: the law has no n_params"


def test_impossible_questions_are_refused_in_one_line(orhan):
    table, fits = orhan
    for target, solve, at, says in (
        (120, "n_params", AT, "target: must lie between 0 and 100, got 120"),
        (90, "width", AT, "solve: width: is no factor"),
        (90, "n_params", {"hours": 5}, "at: res: must be a number above 0"),
    ):
        with pytest.raises(FitError, match=says):
            require(table, fits, target, solve, at)
