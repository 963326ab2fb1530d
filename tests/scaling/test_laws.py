"""Every law: its Jacobian, its roles, what it needs of a table, and how a user adds one."""

import numpy as np
import pandas as pd
import pytest

from mae_lib.errors import FitError
from mae_lib.scaling.fit import fit_law
from mae_lib.scaling.laws import (
    LAWS,
    Design,
    Law,
    law_named,
    numeric,
    register,
    usable_laws,
    why_not,
)
from mae_lib.scaling.table import check_table

SHIPPED = (
    *("printed", "log_product", "log_additive", "log_bilinear"),
    *("logit_additive", "logit_bilinear", "logit_ceiling"),
    *("power_product", "power_sum", "kaplan", "shifted_power", "m4", "bnsl"),
    *("data_constrained", "overtrain", "cell_means"),
)
FACTORS = ("tokens", "n_params", "res", "epochs")


def frame(kind: str = "accuracy") -> pd.DataFrame:
    index = pd.MultiIndex.from_product(
        [np.geomspace(1e7, 1e10, 7), (1e6, 1e7, 1e8), (16, 32, 64), (1, 4, 16)], names=FACTORS
    )
    out = index.to_frame(index=False)
    rng = np.random.default_rng(0)
    value = {"accuracy": 0.4, "loss": 3.0}[kind]
    return out.assign(y=value + 0.1 * value * rng.normal(size=len(out)))


def table(factors=FACTORS[:3], kind: str = "accuracy", **options):
    rows = frame(kind)
    for factor in FACTORS:
        if factor not in factors:
            rows = rows[rows[factor] == rows[factor].min()].drop(columns=factor)
    return check_table(rows, response="y", factors=factors, kind=kind, **options)


def test_the_registry_ships_sixteen_laws_that_each_state_their_terms():
    assert set(SHIPPED) <= set(LAWS)
    for name in SHIPPED:
        law = LAWS[name]
        assert law.formula
        assert law.source
        assert law.note
        assert law.identifiable
        assert law.levels_needed >= 1
        assert law.response in ("accuracy", "loss", "any")


@pytest.mark.parametrize("name", [n for n in SHIPPED if n != "cell_means"])
def test_jacobians_equal_finite_differences(name):
    law = LAWS[name]
    factors = law.used(FACTORS if "epochs" in law.roles else FACTORS[:3])
    rng = np.random.default_rng(1)
    z = rng.normal(size=(11, len(factors)))
    if "epochs" in law.roles:
        z[:, 1] = np.abs(z[:, 1])
    design = Design(factors, z, rng.uniform(0.2, 0.6, size=11), "error")
    law = law.bound(design)
    low, high = law.start_box(design)
    params = low + (high - low) * rng.uniform(0.2, 0.8, size=(3, len(low)))
    value, jacobian = law.evaluate(params, z)
    numeric_jacobian = numeric(lambda p, z: law.evaluate(p, z)[0])(params, z)[1]
    assert value.shape == (3, 11)
    assert len(law.parameters(factors)) == jacobian.shape[-1]
    scale = np.abs(jacobian).max()
    np.testing.assert_allclose(jacobian, numeric_jacobian, atol=1e-8 * scale, rtol=1e-6)


def test_the_jacobian_of_cell_means_is_an_indicator():
    fit = fit_law(table(("tokens",)), "cell_means", bootstrap=0)
    np.testing.assert_array_equal(fit.design, np.eye(7))


def test_the_printed_law_takes_the_factors_that_play_data_and_resolution():
    assert LAWS["printed"].used(("hours", "n_params", "res")) == ("hours", "res")
    assert LAWS["printed"].used(("resolution", "params", "images")) == ("images", "resolution")
    fit = fit_law(table(), "printed", bootstrap=0)
    assert fit.factors == ("tokens", "res")
    assert tuple(fit.to_json()["params"]) == ("level", "per_ln_tokens", "per_ln_res")


def test_roles_may_be_named_by_the_table():
    rows = frame("loss").rename(columns={"tokens": "shards", "n_params": "width"})
    rows = rows[(rows.res == 16) & (rows.epochs == 1)]
    roles = {"data": "shards", "parameters": "width"}
    named = check_table(rows, response="y", factors=("shards", "width"), kind="loss", roles=roles)
    assert fit_law(named, "overtrain", bootstrap=0).factors == ("width", "shards")


@pytest.mark.parametrize(
    ("name", "factors", "missing"),
    [
        ("printed", ("tokens", "n_params"), "resolution"),
        ("kaplan", ("tokens", "res"), "parameters"),
        ("overtrain", ("n_params", "res"), "data"),
        ("data_constrained", ("tokens", "n_params"), "epochs"),
    ],
)
def test_a_law_without_its_roles_stops_in_one_line(name, factors, missing):
    with pytest.raises(
        FitError, match=f"{name}: needs factors that play .*none for {missing}"
    ) as e:
        fit_law(table(factors), name, bootstrap=0)
    assert "\n" not in str(e.value)


def test_laws_that_do_not_apply_are_left_out_with_a_reason():
    names, reasons = usable_laws(table(("tokens", "n_params")))
    assert "power_sum" in names
    assert "bnsl" in names
    left = {reason.split(":")[0] for reason in reasons}
    assert left == {"printed", "data_constrained", "cell_means"}
    assert set(names) | left >= set(SHIPPED)
    two = frame().query("n_params < 1e8 and res == 16 and epochs == 1")
    few = check_table(two, response="y", factors=("tokens", "n_params"))
    assert why_not(LAWS["power_sum"], few) == "power_sum: needs 3 levels of n_params, got 2"
    assert why_not(LAWS["log_product"], few) is None
    assert "needs a fraction" in why_not(LAWS["logit_additive"], table(("tokens",), "loss"))


def test_a_logistic_law_refuses_a_loss():
    with pytest.raises(FitError, match="logit_additive: needs a fraction, got a loss"):
        fit_law(table(("tokens",), "loss"), "logit_additive", bootstrap=0)


def test_an_accuracy_law_on_errors_is_fitted_to_accuracies_and_answers_in_errors():
    rows = frame().query("res == 16 and epochs == 1").drop(columns=["res", "epochs"])
    factors = ("tokens", "n_params")
    right = check_table(rows, response="y", factors=factors, kind="accuracy")
    wrong = check_table(rows.assign(y=1 - rows.y), response="y", factors=factors, kind="error")
    for name in ("logit_ceiling", "power_sum", "m4"):
        one, two = (fit_law(t, name, bootstrap=50, seed=1) for t in (right, wrong))
        at = [[3e8, 3e7], [1e11, 1e9]]
        np.testing.assert_allclose(one.predict(at), 1 - two.predict(at), rtol=1e-6)
        np.testing.assert_allclose(one.gradient(at), -two.gradient(at), rtol=1e-4, atol=1e-9)
        assert one.draws_at(at).shape == (len(one.draws), 2)


def test_chance_is_the_floor_of_a_logistic_law():
    rows = frame().query("n_params == 1e6 and res == 16 and epochs == 1")
    rows = rows.assign(y=0.1 + 0.9 / (1 + np.exp(-(np.log(rows.tokens / 1e9) * 0.5 - 1))))
    fit = fit_law(
        check_table(rows, response="y", factors=("tokens",)), "logit_additive",
        chance=0.1, bootstrap=0,
    )  # fmt: skip
    np.testing.assert_allclose(fit.fitted(), rows.y, rtol=1e-10)
    assert fit.predict([[1e-9]])[0] == pytest.approx(0.1, abs=1e-6)


def test_a_user_adds_a_law_in_ten_lines():
    law = Law(
        name="square_root",
        formula="c + b (x / centre)^(1/2)",
        source="a test",
        evaluate=numeric(lambda p, z: p[..., :1] + p[..., 1:] * np.exp(z[:, 0] / 2)),
        parameters=lambda factors: ("level", "per_root"),
    )
    try:
        register(law)
        rows = frame().query("n_params == 1e6 and res == 16 and epochs == 1")
        z = np.log(rows.tokens) - np.log(rows.tokens).mean()
        rows = rows.assign(y=0.2 + 0.01 * np.exp(z / 2))
        fit = fit_law(check_table(rows, response="y", factors=("tokens",)), "square_root")
        assert fit.params == pytest.approx([0.2, 0.01], rel=1e-6)
        with pytest.raises(FitError, match="square_root: is registered already"):
            register(law)
    finally:
        LAWS.pop("square_root", None)


def test_an_unknown_law_is_refused_with_the_known_ones():
    with pytest.raises(FitError, match="one of printed, log_product"):
        law_named("log_prodct")


def test_a_law_of_ones_own_with_other_shapes_says_what_is_expected():
    from law_tables import FACTORS, law_grid

    def evaluate(params, z):
        return params[0] + params[7] * z[:, 0], np.ones((len(z), 2))

    LAWS["mine"] = Law("mine", "?", "a test", evaluate)
    try:
        table = check_table(law_grid(0.003), response="top1", factors=FACTORS)
        with pytest.raises(FitError, match=r"mine: evaluate must take parameters \[\.\.\., 4\]"):
            fit_law(table, "mine", bootstrap=0)
    finally:
        del LAWS["mine"]
