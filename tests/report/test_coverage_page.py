"""The coverage table of notebook 07 is the published measurement, or says that there is none."""

import json

import pytest

from mae_lib.report import coverage


@pytest.fixture
def published():
    return json.loads(coverage.coverage_path().read_text())


def test_the_table_has_a_row_a_method_with_the_measured_coverage(published):
    frame = coverage.coverage_frame().set_index("method")
    assert set(frame.index) == set(published["methods"])
    for name, method in published["methods"].items():
        assert frame.loc[name, "coverage"] == method["raw"]["coverage"]["0.95"]
    assert frame["interval score"].is_monotonic_increasing


def test_coverage_by_distance_counts_every_point_of_the_stack_once(published):
    frame = coverage.coverage_by_distance()
    assert frame.points.sum() == published["points"]
    assert frame.rho.iloc[-1] == "> 1"
    assert {"log_product", "plain stack", "stacked"} <= set(frame.columns)


def test_the_sentence_says_what_was_measured(published):
    text = coverage.coverage_sentence()
    assert f"{published['grids']} grids of {len(published['studies'])} studies" in text
    assert f"{100 * published['methods']['stacked']['raw']['coverage']['0.95']:.1f} %" in text
    assert f"of {published['points']:,} points lie beyond one range" in text


def test_without_a_measurement_table_and_sentence_say_so(monkeypatch, tmp_path):
    monkeypatch.setattr(coverage, "coverage_path", lambda: tmp_path / "coverage.json")
    assert "not measured yet" in coverage.coverage_frame().method.tolist()
    assert "not measured yet" in coverage.coverage_by_distance().method.tolist()
    assert coverage.coverage_sentence().startswith("- Not measured here")
