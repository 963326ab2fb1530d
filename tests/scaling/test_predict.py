"""Every law side by side, the stack beside them, and no interval where none was ever tested."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from mae_lib.errors import FitError
from mae_lib.records import sidecar
from mae_lib.scaling.fit import fit_laws
from mae_lib.scaling.predict import OUTSIDE, aicc_weights, predict, predictions_frame
from mae_lib.scaling.read import read_table

ORHAN = "results/grids/orhan2023.csv"
OWN = {"hours": 20000, "n_params": 2.5e9, "res": 952}
CLAIM = {"hours": 5000, "n_params": 522e9, "res": 4096}
NAMES = ["log_product", "log_additive", "logit_additive", "power_product"]


@pytest.fixture(scope="module")
def orhan():
    table = read_table(ORHAN)
    return table, fit_laws(table, NAMES, bootstrap=300)


def test_laws_and_stack_answer_in_the_tables_own_unit(orhan):
    table, fits = orhan
    found = predict(table, OWN, fits=fits)
    values = {law["law"]: law["value"] for law in found["laws"]}
    # Fitted independently: least squares on the 78 runs, in percent.
    assert values["log_product"] == pytest.approx(60.9176, rel=2e-4)
    assert values["log_additive"] == pytest.approx(53.21, rel=2e-4)
    assert values["logit_additive"] == pytest.approx(58.8581, rel=2e-4)
    assert found["unit"] == "percent"
    stacked = found["stacked"]
    assert stacked["low"] < stacked["value"] < stacked["high"]
    assert stacked["spread"][0] < stacked["value"] < stacked["spread"][1]


def test_fractions_and_percent_give_the_same_answer(orhan):
    table, fits = orhan
    frame = table.frame.assign(acc1_max=table.y)
    fraction = replace(table, scale=1.0, frame=frame)
    same = predict(fraction, OWN, fits=[replace(fit, table=fraction) for fit in fits])
    percent = predict(table, OWN, fits=fits)
    for key in ("value", "low", "high"):
        assert 100 * same["stacked"][key] == pytest.approx(percent["stacked"][key])
        assert 100 * same["laws"][0][key] == pytest.approx(percent["laws"][0][key])


def test_the_parts_add_in_quadrature_to_the_half_width_in_logs(orhan):
    table, fits = orhan
    stacked = predict(table, OWN, fits=fits)["stacked"]
    error, ends = 100 - stacked["value"], 100 - np.array([stacked["high"], stacked["low"]])
    half = np.log(ends[1] / error)
    assert np.log(error / ends[0]) == pytest.approx(half)
    parts = np.array(list(stacked["parts"].values())) / error
    assert np.sqrt((parts**2).sum()) == pytest.approx(half)
    assert list(stacked["parts"]) == ["within_law", "between_laws", "held_out"]


def test_weights_sum_to_one_and_stand_beside_those_by_aicc(orhan):
    table, fits = orhan
    stacked = predict(table, OWN, fits=fits)["stacked"]
    assert sum(stacked["weights"].values()) == pytest.approx(1)
    assert sum(stacked["aicc_weights"].values()) == pytest.approx(1)
    assert max(stacked["aicc_weights"], key=stacked["aicc_weights"].get) == "logit_additive"
    assert aicc_weights([fits[0], replace(fits[1], objective="log")]) == {}


def test_beyond_one_range_there_is_a_spread_and_no_interval_unless_asked(orhan):
    table, fits = orhan
    stacked = predict(table, CLAIM, fits=fits)["stacked"]
    assert not stacked["calibrated"]
    assert stacked["low"] is None
    assert stacked["high"] is None
    assert any(OUTSIDE in note for note in stacked["notes"])
    assert stacked["spread"][1] == pytest.approx(97.4652, rel=2e-4)
    assert stacked["rho"]["res"] == pytest.approx(2.86, abs=0.01)
    asked = predict(table, CLAIM, fits=fits, uncalibrated=True)["stacked"]
    assert 0 <= asked["low"] < asked["value"] < asked["high"] <= 100
    assert asked["parts"]["between_laws"] > asked["parts"]["held_out"]


def test_a_law_that_leaves_the_possible_range_is_dropped_and_named(orhan):
    table, _ = orhan
    table = replace(table, response="acc5_max")
    fits = fit_laws(table, ["log_product", "logit_additive"], bootstrap=0)
    found = predict(table, CLAIM, fits=fits, stack=("log_product", "logit_additive"))
    law = found["laws"][0]
    assert law["value"] == pytest.approx(132, abs=1)
    assert not law["inside_unit_interval"]
    stacked = found["stacked"]
    assert stacked["dropped"] == ["log_product"]
    assert stacked["weights"]["log_product"] == 0
    assert stacked["spread"][1] <= 100


def test_a_higher_level_is_a_wider_interval(orhan):
    table, fits = orhan
    widths = []
    for level in (0.5, 0.8, 0.95):
        stacked = predict(table, OWN, fits=fits, level=level)["stacked"]
        widths.append(stacked["high"] - stacked["low"])
    assert widths == sorted(widths)
    with pytest.raises(FitError, match="level: must lie between 0 and 1, got 95"):
        predict(table, OWN, fits=fits, level=95)


def test_a_loss_is_answered_as_a_loss_and_can_be_above_one():
    table = read_table(
        "results/grids/gadre2024_overtraining.csv", response="loss_c4_val",
        factors=["n_params", "tokens"],
    )  # fmt: skip
    fits = fit_laws(table, ["power_sum", "log_product"], bootstrap=0)
    found = predict(table, {"n_params": 1e10, "tokens": 3e11}, fits=fits)
    assert all(law["inside_unit_interval"] for law in found["laws"])
    assert 1.5 < found["stacked"]["low"] < found["stacked"]["high"] < 4
    assert found["stacked"]["dropped"] == []


def test_bad_points_are_one_line_that_names_the_factor(orhan):
    table, fits = orhan
    for at, says in (
        ({"hours": 1, "n_params": 1e9}, "at: res: must be a number above 0, got nothing"),
        (OWN | {"res": -5}, "at: res: must be a number above 0, got -5"),
        (OWN | {"width": 3}, "at: width: is no factor of the table"),
    ):
        with pytest.raises(FitError, match=says):
            predict(table, at, fits=fits)


def test_the_command_prints_json_with_laws_and_stack():
    from mae_lib.cli.main import _register, app

    if not app.registered_commands:
        _register()
    at = ",".join(f"{name}={value}" for name, value in OWN.items())
    command = ["predict", ORHAN, "--at", at, "--level", "0.95", "--bootstrap", "50", "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert {"law", "value", "low", "high", "rho", "leverage", "inside_unit_interval"} <= set(
        found["laws"][0]
    )
    assert found["stacked"]["low"] < found["stacked"]["value"] < found["stacked"]["high"]
    # A page reads this; NaN is no JSON.
    assert "NaN" not in result.output


def test_fit_and_predict_come_without_torch():
    code = (
        "import sys, mae_lib.scaling.fit, mae_lib.scaling.predict; "
        "sys.exit(any(n in sys.modules for n in ('torch', 'timm', 'altair')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_a_target_there_is_a_table_without_rows_and_it_can_be_read_back(tmp_path):
    sidecar.write_table(tmp_path / "predictions.csv", predictions_frame((), {}))
    assert list(sidecar.read_table(tmp_path / "predictions.csv").columns) == ["target", "law"]
