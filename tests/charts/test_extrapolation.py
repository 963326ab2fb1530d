"""Charts of laws beyond their data draw what the frames say, and their text states the finding."""

import pandas as pd
import pytest

from mae_lib.charts.extrapolation import factor_map, heldout_by_rho, isoquants, law_fan
from mae_lib.charts.parts import interval_parts
from mae_lib.charts.renderer import Figure


def curves(values=(0.2, 0.4, 0.4, 0.9)):
    frame = pd.DataFrame({"x": [1e6, 1e8, 1e8, 1e10], "value": values})
    frame["low"], frame["high"] = frame.value - 0.05, frame.value + 0.05
    frame["part"] = ["inside", "inside", "beyond", "beyond"]
    return pd.concat([frame.assign(law=law) for law in ("log_product", "power_sum")])


MEASURED = pd.DataFrame({"x": [1e6, 1e8], "value": [0.21, 0.38]})


def rows_of(chart):
    spec = chart.to_dict()
    return [row for rows in spec["datasets"].values() for row in rows]


def test_a_fan_has_each_law_inside_beyond_its_runs_and_a_shaded_region():
    chart = law_fan(curves(), MEASURED, factor="Parameters (N)")
    kinds = {(row["law"], row["part"]) for row in rows_of(chart)}
    for law in ("log_product", "power_sum"):
        assert {(law, part) for part in ("inside", "beyond", "region", "run")} <= kinds
    region = next(row for row in rows_of(chart) if row["part"] == "region")
    assert (region["x"], region["x2"]) == (1e8, 1e10)
    assert "log_product 90%" in chart.to_dict()["description"]


def test_a_fan_without_runs_on_that_line_is_drawn_and_a_loss_is_no_percent():
    chart = law_fan(curves((3.0, 2.5, 2.5, 2.1)), MEASURED.iloc[:0], factor="N", percent=False)
    text = chart.to_dict()["description"]
    assert "log_product 2.1" in text
    assert "%" not in text
    assert "<img" in Figure(chart, curves(), "fan")._repr_mimebundle_()["text/html"]


def test_held_out_errors_name_the_worst_and_shade_what_is_not_calibrated():
    errors = pd.DataFrame(
        {"law": ["a", "a", "b"], "split": ["x", "y", "x"], "rho": [0.2, 0.9, 0.2]}
    ).assign(rmse=[1.0, 2.0, 9.1])
    chart = heldout_by_rho(errors)
    assert "9.1 of b" in chart.to_dict()["description"]
    assert {"low": 1.0, "high": 1.2} in rows_of(chart)


def test_where_nothing_was_held_out_the_chart_says_so():
    errors = pd.DataFrame(columns=["law", "split", "rho", "rmse"])
    assert heldout_by_rho(errors).to_dict()["description"] == "No split leaves enough runs to fit."


def test_isoquants_show_runs_and_target_in_every_panel():
    lines = pd.DataFrame({"law": ["a", "a", "b"], "level": [0.5, 0.9, 0.9]}).assign(
        x=[1e8, 1e9, 1e10], y=[224.0, 224.0, 448.0]
    )
    design = pd.DataFrame({"x": [1e7, 1e7], "y": [224.0, 224.0]})
    chart = isoquants(lines, design, (5e11, 4096.0), names=("N", "R"))
    rows = rows_of(chart)
    for law in ("a", "b"):
        assert [r["label"] for r in rows if r["law"] == law and r["label"] in ("run", "target")] == [
            "run", "target",
        ]  # fmt: skip
    assert "reach 90 %, by N: a from 1e+09, b from 1e+10" in chart.to_dict()["description"]


def test_a_design_map_counts_its_holes():
    cells = pd.DataFrame(
        {"n": ["1", "1", "2", "2"], "r": ["a", "b", "a", "b"], "runs": [3, 0, 1, 0]}
    )
    text = factor_map(cells, across="n", factors=("n", "r")).to_dict()["description"]
    assert "2 of 4 combinations of levels have runs; 2 are holes" in text


@pytest.mark.parametrize("targets", [["one"], ["one", "two"]])
def test_interval_parts_name_the_largest(targets):
    parts = pd.DataFrame(
        [{"target": t, "part": p, "half_width": w} for t in targets
         for p, w in (("within laws", 1.0), ("between laws", 8.6), ("held-out error", 2.1))]
    )  # fmt: skip
    text = interval_parts(parts).to_dict()["description"]
    assert text == "Largest part: between laws at one, 8.6 points."
