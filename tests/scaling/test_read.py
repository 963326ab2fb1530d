"""Tables come from CSV or Parquet with a YAML beside them; a bad file is one line."""

import numpy as np
import pandas as pd
import pytest
from law_tables import FACTORS, law_grid

from mae_lib.errors import FitError
from mae_lib.scaling.read import MAX_BYTES, MAX_ROWS, read_sheet, read_table

OPTIONS = {"response": "top1", "factors": FACTORS}


def written(tmp_path, text: str | bytes, name: str = "runs.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_csv_and_parquet_give_the_same_table(tmp_path):
    frame = law_grid(0.01)
    frame.to_csv(tmp_path / "runs.csv", index=False)
    frame.to_parquet(tmp_path / "runs.parquet")
    text, binary = (read_table(tmp_path / name, **OPTIONS) for name in ("runs.csv", "runs.parquet"))
    np.testing.assert_array_equal(text.y, binary.y)
    np.testing.assert_array_equal(text.logs, binary.logs)
    assert text.notes == binary.notes


def test_rows_are_those_that_a_person_sees_in_the_file(tmp_path):
    lines = law_grid(0.01).to_csv(index=False).splitlines()
    lines[5] = "0," + lines[5].split(",", 1)[1]
    path = written(tmp_path, "\n".join(lines))
    with pytest.raises(FitError, match=r"runs\.csv: images: row 6: must be a number above 0"):
        read_table(path, **OPTIONS)
    path = written(tmp_path, "\n".join([lines[0], "", " , , , ", *lines[1:]]))
    with pytest.raises(FitError, match="images: row 8:"):
        read_table(path, **OPTIONS)
    read_sheet(path).frame.to_parquet(tmp_path / "runs.parquet", index=False)
    with pytest.raises(FitError, match=r"runs\.parquet: images: row 5:"):
        read_table(tmp_path / "runs.parquet", **OPTIONS)


def test_a_byte_order_mark_spaces_and_blank_rows_change_nothing(tmp_path):
    text = law_grid(0.01).to_csv(index=False)
    plain = read_table(written(tmp_path, text), **OPTIONS)
    header, *rows = text.splitlines()
    spaced = "\r\n".join(["\ufeff" + header.replace(",", " , "), "", *rows, "", ""])
    other = read_table(written(tmp_path, spaced), **OPTIONS)
    np.testing.assert_array_equal(plain.y, other.y)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("\n\n", "row 1: is no header"),
        ("a,b\n", "at least 2 rows are needed, got 0"),
        ("a,b\n1,2\n1,2,3\n", "row 3: has 3 values, the header has 2"),
        ("a,b\n1,2,3\n1,2,3\n", "row 2: has 3 values, the header has 2"),
        ("a,b\n1\n", "row 2: has 1 values"),
        ("a,a\n1,2\n", "column 'a' is given twice"),
        ("a,\n1,2\n", "column 2 has no name"),
        ("a;b\n1;2\n", "semicolons between its columns"),
        ("a\tb\n1\t2\n", "tabs between its columns"),
        (b"a,b\n\xff\xfe,2\n", "is not UTF-8 text"),
        (b"PK\x03\x04 workbook", "neither CSV nor Parquet"),
        (b"a,b\n1,\0\n", "neither CSV nor Parquet"),
        (b"PAR1 cut", "cannot be read as Parquet"),
    ],
)
def test_a_file_that_is_no_table_is_one_line(tmp_path, text, says):
    with pytest.raises(FitError, match=says) as caught:
        read_table(written(tmp_path, text), response="a", factors=("b",))
    assert "\n" not in str(caught.value)
    assert "runs.csv" in str(caught.value)


def test_a_missing_file_names_the_nearest(tmp_path):
    written(tmp_path, "a,b\n")
    with pytest.raises(FitError, match=r"no such file; did you mean 'runs\.csv'"):
        read_sheet(tmp_path / "run.csv")
    with pytest.raises(FitError, match="is a folder"):
        read_sheet(tmp_path)


def test_large_files_are_refused_before_they_are_read_and_the_limit_is_stated(tmp_path):
    path = written(tmp_path, "a,b\n")
    with path.open("r+b") as file:
        file.truncate(200 * 2**20)  # sparse: takes no room on disk
    with pytest.raises(FitError, match=r"209,715,200 bytes; .* at most 10,000 rows and 64 MiB"):
        read_sheet(path)
    assert MAX_BYTES == 64 * 2**20
    rows = np.arange(1, MAX_ROWS + 2)
    frame = pd.DataFrame({"a": rows, "b": rows})
    frame.to_csv(path, index=False)
    with pytest.raises(FitError, match=r"row 10002: is too many; .* at most 10,000 rows"):
        read_sheet(path)
    frame.to_parquet(tmp_path / "long.parquet")
    with pytest.raises(FitError, match="has 10,001 rows"):
        read_sheet(tmp_path / "long.parquet")


SIDECAR = """
response: top1
factors: [images, params_encoder, resolution]
clusters: subset
kind: error
units: {top1: percent, images: images}
roles: {data: images, parameters: params_encoder}
source: example.org
licence: MIT
"""


def test_the_yaml_beside_a_table_says_what_is_what_and_options_override_it(tmp_path):
    frame = law_grid(0.01).assign(subset=list("abcabcabcabc"))
    frame.to_csv(tmp_path / "runs.csv", index=False)
    written(tmp_path, SIDECAR, "runs.yaml")
    table = read_table(tmp_path / "runs.csv")
    assert (table.response, table.factors, table.clusters) == ("top1", FACTORS, "subset")
    assert (table.kind, table.scale) == ("error", 100.0)
    assert table.roles == {"data": "images", "parameters": "params_encoder"}
    table = read_table(tmp_path / "runs.csv", kind="accuracy", unit="fraction", factors=["images"])
    assert (table.kind, table.scale, table.factors) == ("accuracy", 1.0, ("images",))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("respons: top1", r"runs\.yaml: respons: is no key here; did you mean 'response'"),
        ("factors: images", "factors: must be a list of columns, got 'images'"),
        ("factors: []", "factors: must be a list of columns"),
        ("response: 3", "response: must be text, got 3"),
        ("roles: {params: n}", "roles: params: is no role; did you mean 'parameters'"),
        ("units: percent", "units: must be a mapping of names"),
        ("kind: accurate", "kind: one of accuracy, error, loss, got 'accurate'"),
        ("clusters: subsett", "no column 'subsett'"),
        ("roles: {data: nothing}", "no column 'nothing'"),
        ("- a", "is a mapping of keys, got list"),
        ("a: [", "line 1: is not YAML"),
        ("kind: error\nkind: loss", "line 2: kind: given twice"),
    ],
)
def test_a_yaml_that_is_wrong_is_one_line(tmp_path, text, says):
    law_grid(0.01).to_csv(tmp_path / "runs.csv", index=False)
    written(tmp_path, text, "runs.yaml")
    with pytest.raises(FitError, match=says) as caught:
        read_table(tmp_path / "runs.csv", **({} if "factors: im" in text else OPTIONS))
    assert "\n" not in str(caught.value)


def test_what_neither_the_call_nor_the_yaml_gives_is_asked_for(tmp_path):
    law_grid(0.01).to_csv(tmp_path / "runs.csv", index=False)
    with pytest.raises(
        FitError, match=r"response: not given; use --response, or write .*runs\.yaml"
    ):
        read_table(tmp_path / "runs.csv", factors=FACTORS)
    with pytest.raises(FitError, match="factors: not given"):
        read_table(tmp_path / "runs.csv", response="top1")
