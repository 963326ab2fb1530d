"""`mae fit` on any table: JSON and text, options over the YAML, and one line for what is wrong."""

import json

import numpy as np
import pandas as pd
import pytest
from law_tables import FACTORS, law_grid

from mae_lib.cli import main

GIVEN = ("--response", "top1", "--factors", ",".join(FACTORS), "--bootstrap", "50")
KEYS = {
    *("law", "n", "k", "sse", "rmse", "aicc", "bic", "params", "intervals", "status", "starts"),
    *("lack_of_fit", "identifiability", "notes", "standard_errors", "pure_error"),
    *("cluster_effect", "unit", "left_out"),
}


@pytest.fixture
def mae(monkeypatch, capsys):
    """Run the command line in this process; return exit code, stdout and stderr."""

    def run(*args) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["mae", *map(str, args)])
        with pytest.raises(SystemExit) as caught:
            main.main()
        shown = capsys.readouterr()
        return caught.value.code or 0, shown.out, shown.err

    return run


@pytest.fixture
def runs(tmp_path):
    path = tmp_path / "runs.csv"
    law_grid(0.003, repeats=2).to_csv(path, index=False)
    return path


def test_json_is_a_list_with_one_object_a_law(mae, runs):
    code, out, _ = mae("fit", runs, *GIVEN, "--law", "log_product,log_additive", "--json")
    found = json.loads(out)
    assert code == 0
    assert [one["law"] for one in found] == ["log_product", "log_additive"]
    for one in found:
        assert set(one) >= KEYS
        assert {"tried", "converged", "agreeing"} <= set(one["starts"])
        assert {"f", "df", "p"} == set(one["lack_of_fit"])
        assert one["unit"] == {"kind": "accuracy", "response": "fraction", "scale": 1.0}


def test_all_laws_are_fitted_and_those_left_out_say_why(mae, runs):
    code, out, _ = mae("fit", runs, *GIVEN, "--all", "--json")
    found = json.loads(out)
    assert code == 0
    assert {"log_product", "logit_additive"} <= {one["law"] for one in found}
    assert any("data_constrained: needs" in line for line in found[0]["left_out"])
    assert not any(one["law"] == "data_constrained" for one in found)


def test_percent_gives_the_same_fit_as_fractions_and_is_answered_in_percent(mae, runs, tmp_path):
    frame = pd.read_csv(runs)
    percent = tmp_path / "percent.csv"
    frame.assign(top1=100 * frame.top1).to_csv(percent, index=False)
    _, out, _ = mae("fit", runs, *GIVEN, "--law", "log_additive", "--json")
    _, other, _ = mae("fit", percent, *GIVEN, "--law", "log_additive", "--json")
    a, b = json.loads(out)[0], json.loads(other)[0]
    assert a["params"] == pytest.approx(b["params"])
    assert b["unit"]["response"] == "percent"
    at = ("--at", "images=8000,params_encoder=1e5,resolution=64")
    _, text, _ = mae("fit", percent, *GIVEN, "--law", "log_additive", *at)
    assert "RMSE (points)" in text
    value = float(text.split("log_additive       ")[1].split(",")[0])
    assert value == pytest.approx(100 * json.loads(out)[0]["params"]["level"], rel=0.9)
    assert value > 1.5


def test_chance_is_given_in_the_tables_own_unit(mae, runs, tmp_path):
    frame = pd.read_csv(runs)
    percent = tmp_path / "percent.csv"
    frame.assign(top1=100 * frame.top1).to_csv(percent, index=False)
    fits = [
        json.loads(mae("fit", path, *GIVEN, "--law", "logit_additive", "--chance", c, "--json")[1])
        for path, c in ((runs, 0.1), (percent, 10), (runs, 0))
    ]
    same, other, none = (fit[0]["params"] for fit in fits)
    assert same == pytest.approx(other, rel=1e-6)
    assert same["level"] < none["level"]


def test_a_yaml_beside_the_table_is_enough_and_options_override_it(mae, runs):
    (runs.with_suffix(".yaml")).write_text(
        "response: top1\nfactors: [images, params_encoder, resolution]\nkind: error\n"
    )
    code, out, _ = mae("fit", runs, "--law", "log_additive", "--bootstrap", 50, "--json")
    assert code == 0
    assert json.loads(out)[0]["unit"]["kind"] == "error"
    options = ("--kind", "accuracy", "--factors", "images")
    _, out, _ = mae("fit", runs, *options, "--law", "log_additive", "--bootstrap", 50, "--json")
    found = json.loads(out)[0]
    assert found["unit"]["kind"] == "accuracy"
    assert list(found["params"]) == ["level", "per_ln_images"]


def test_clusters_cells_and_ways_of_resampling_are_said(mae, runs):
    frame = pd.read_csv(runs).assign(subset=np.arange(24) % 5)
    frame.to_csv(runs, index=False)
    given = (*GIVEN, "--law", "log_additive", "--clusters", "subset", "--json")
    _, out, _ = mae("fit", runs, *given)
    found = json.loads(out)[0]
    assert found["bootstrap"]["unit"] == "clusters (subset)"
    assert found["standard_errors"]["cr1"].keys() == found["params"].keys()
    assert found["cluster_effect"]["df"][1] > 0
    assert any("5 clusters are fewer than 8" in note for note in found["notes"])
    for how, said in (("cells", "cells"), ("residual", "residuals"), ("wild", "wild, one sign")):
        _, out, _ = mae("fit", runs, *given, "--resample", how)
        assert json.loads(out)[0]["bootstrap"]["unit"].startswith(said)


def test_text_shows_laws_parameters_target_profiles_and_notes(mae, runs):
    at = "images=80000,params_encoder=1e6,resolution=64"
    code, out, _ = mae("fit", runs, *GIVEN, "--law", "log_additive", "--profile", "--at", at)
    assert code == 0
    for said in ("log_additive", "4 of 4", "per_ln_resolution", "pure error: SD", "leverage",
                 "rho images 0.50", "profile", "note: resolution: two levels"):  # fmt: skip
        assert said in out


def rows(change):
    def write(path):
        change(law_grid(0.003)).to_csv(path, index=False)

    return write


def text(content: str):
    return lambda path: path.write_text(content)


def one_cell(column: str, row: int, value: object):
    def change(frame):
        frame = frame.astype({column: object})
        frame.loc[row, column] = value
        return frame

    return rows(change)


def large(path):
    with path.open("wb") as file:
        file.write(b"images,top1\n")
        file.truncate(200 * 2**20)


BAD = {
    "constant factor": (rows(lambda f: f.assign(resolution=32)), "resolution: never varies (32)"),
    "zero under a log": (one_cell("images", 3, 0), "images: row 5: must be a number above 0"),
    "negative under a log": (one_cell("images", 3, -1), "images: row 5: must be a number above 0"),
    "above 100 %": (one_cell("top1", 2, 120), "top1: row 4: as percent an accuracy lies in 0 to"),
    "mixed percent and fraction": (
        rows(lambda f: f.assign(top1=np.where(f.index == 4, f.top1, 100 * f.top1))),
        "top1: row 6: 0.",
    ),
    "NaN": (one_cell("top1", 0, None), "top1: row 2: must be a number, got an empty value (NaN)"),
    "missing column": (rows(lambda f: f.drop(columns="images")), "no column 'images'"),
    "duplicate rows": (
        rows(lambda f: pd.concat([f, f.iloc[[2]]])),
        "row 14 repeats row 4 in every column",
    ),
    "text column": (one_cell("resolution", 1, "big"), "resolution: row 3: must be a number above"),
    "empty file": (text(""), "is empty"),
    "header only": (text("top1,images,params_encoder,resolution\n"), "at least 2 rows are needed"),
    "200 MB": (large, "209,715,200 bytes; a table of runs has at most 10,000 rows and 64 MiB"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_with_file_column_and_row_and_exit_code_2(mae, tmp_path, name):
    write, says = BAD[name]
    path = tmp_path / "runs.csv"
    write(path)
    code, out, err = mae("fit", path, *GIVEN)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert says in err
    assert "runs.csv" in err


def test_five_rows_for_a_nine_parameter_law_are_refused(mae, tmp_path):
    path = tmp_path / "runs.csv"
    law_grid(0.003).iloc[[0, 3, 5, 9, 10]].to_csv(path, index=False)
    code, _, err = mae("fit", path, *GIVEN, "--law", "power_sum")
    assert code == 2
    assert err == "mae: power_sum: 7 parameters need at least 7 rows, got 5\n"


def test_a_response_without_a_log_names_its_row(mae, tmp_path):
    path = tmp_path / "runs.csv"
    one_cell("top1", 6, 0)(path)
    code, _, err = mae("fit", path, *GIVEN, "--law", "log_additive", "--objective", "log")
    assert code == 2
    assert "top1: row 8: objective log takes the log and needs it above 0, got 0" in err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--law", "log_prodct"), "law: one of printed, log_product"),
        (("--law", "log_product", "--all"), "--law and --all: give one of them"),
        (("--objective", "least"), "objective: one of ls, log, huber, binomial, got 'least'"),
        (("--objective", "binomial", "--law", "log_additive"), "needs a column of trials"),
        (("--resample", "rows", "--law", "log_additive"), "resample: one of clusters, cells"),
        (("--kind", "accurate"), "kind: one of accuracy, error, loss, got 'accurate'"),
        (("--unit", "promille"), "unit: one of percent, fraction, got 'promille'"),
        (("--roles", "data"), "--roles: role=column was expected, got 'data'"),
        (("--roles", "data=nothing"), "no column 'nothing'"),
        (("--at", "images=many"), "--at: images: must be a number, got 'many'"),
        (("--at", "images=5"), "at: params_encoder: must be a number above 0, got nothing"),
    ],
)
def test_wrong_options_are_one_line(mae, runs, options, says):
    code, _, err = mae("fit", runs, *GIVEN, *options)
    assert code == 2
    assert says in err
    assert err.count("\n") == 1


def test_things_that_do_not_stop_a_fit_are_notes(mae, tmp_path):
    frame = law_grid(0.003).rename(columns={"top1": "top1_max"})
    frame["resolution"] = frame.params_encoder / 1e4 * (1 + 0.01 * np.arange(12))
    frame["lr"] = np.where(frame.params_encoder > 2e5, 1e-4, 3e-4)
    path = tmp_path / "runs.csv"
    frame.to_csv(path, index=False)
    given = ("--response", "top1_max", *GIVEN[2:], "--law", "log_additive")
    code, out, _ = mae("fit", path, *given, "--json")
    assert code == 0
    notes = "\n".join(json.loads(out)[0]["notes"])
    _, shown, _ = mae("fit", path, *given)
    for said in (
        "params_encoder: two levels",
        "params_encoder and resolution vary together",
        "one run a cell",
        "top1_max: the best of several epochs",
        "lr changes with params_encoder",
    ):
        assert said in notes
        assert said in shown.replace("\n", " ")


@pytest.mark.parametrize("objective", ["log", "huber"])
def test_linear_laws_are_fitted_in_logs_too(mae, runs, objective):
    code, out, _ = mae(
        "fit", runs, *GIVEN, "--law", "log_additive", "--objective", objective, "--json"
    )
    assert code == 0
    assert json.loads(out)[0]["starts"]["converged"] >= 10


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--bootstrap", "-1"), "bootstrap: must be 0 (none), or 20 to 100,000 refits, got -1"),
        (("--bootstrap", "1"), "bootstrap: must be 0 (none), or 20 to 100,000 refits, got 1"),
        (("--chance", "2"), "chance: must lie from 0 to below the largest accuracy"),
        (("--report", "."), "--report: must name a new .html file"),
        (("--report", "no/such/folder/x.html"), "no such folder to write x.html into"),
        (("--roles", "params=images"), "--roles: unknown role, got 'params'; did you mean"),
        (("--roles", "data=images,resolution=images"), "images: cannot play two roles"),
    ],
)
def test_options_that_cannot_be_are_refused_before_any_fit(mae, runs, options, says):
    code, _, err = mae("fit", runs, *GIVEN[:4], "--law", "log_additive", *options)
    assert code == 2
    assert says in err


def test_a_report_never_replaces_the_table_it_is_made_from(mae, runs):
    before = runs.read_bytes()
    code, _, err = mae("fit", runs, *GIVEN, "--report", runs)
    assert (code, runs.read_bytes()) == (2, before)
    assert "--report: must name a new .html file" in err


def test_tables_and_sidecars_that_hide_their_shape_are_one_line(mae, tmp_path):
    nested = tmp_path / "nested.parquet"
    pd.DataFrame({"top1": [0.1, 0.2], "images": [1.0, 2.0], "more": [[1], [2]]}).to_parquet(nested)
    dated = tmp_path / "dated.parquet"
    pd.DataFrame({"top1": [0.1, 0.2], "images": pd.date_range("2026-01-01", periods=2)}).to_parquet(
        dated
    )
    keyed = tmp_path / "keyed.csv"
    keyed.write_text("top1,images\n0.1,1\n0.2,2\n")
    (tmp_path / "keyed.yaml").write_text("? [a, b]\n: c\n")
    for path, says in (
        (nested, "more: holds lists or structs"),
        (dated, "images: row 1: must be a number, got a date"),
        (keyed, "line 1: a key must be a plain word"),
    ):
        code, _, err = mae("fit", path, "--response", "top1", "--factors", "images")
        assert code == 2
        assert says in err
