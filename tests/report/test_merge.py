import dataclasses
import json

import pandas as pd
import pytest
from measured_pieces import planned_study, quick, smaller_and_largest, write_piece

from mae_lib.errors import MaeError, RecordError, StudyError
from mae_lib.records.sealed import read_sealed, write_sealed
from mae_lib.records.sidecar import read_table
from mae_lib.records.table import collect
from mae_lib.report.merge import PIECE, merge_pieces, merged_records
from mae_lib.study.load import load_study


@pytest.fixture
def grid(tmp_path):
    results = tmp_path / "results"
    study = quick(planned_study(results))
    return study, results, smaller_and_largest(study, results)[0]


def test_a_merged_cell_is_told_from_one_run_by_snakemake_by_nothing(grid, tmp_path):
    study, results, cells = grid
    piece = write_piece(tmp_path / "piece", study, cells[:14], "p1")
    merged = merge_pieces(study, [piece], results)
    assert sorted(merged.new) == sorted(cell.id for cell in cells[:14])
    assert (merged.measured, merged.cells) == (14, 92)
    for name, record in read_sealed(piece / PIECE)["records"].items():
        write_sealed(tmp_path / "cells" / name / "record.json", record)
    expected = collect(study.cells, tmp_path / "cells")
    path = tmp_path / "runs.csv"
    expected.to_csv(path, index=False)
    pd.testing.assert_frame_equal(read_table(results / "runs.csv"), pd.read_csv(path))
    assert (results / "metrics" / f"{cells[0].id}.jsonl").exists()
    provenance = json.loads((results / "provenance.json").read_text())
    assert provenance["pieces"][0]["device"].startswith("NVIDIA")
    assert provenance["pieces"][0]["returned_sha256"]
    assert read_sealed(results / "baselines.json")["files"]


def test_two_pieces_add_up_and_each_is_merged_once(grid, tmp_path):
    study, results, cells = grid
    first = write_piece(tmp_path / "a", study, cells[:3], "p1")
    assert "need at least 4 rows, got 3" in merge_pieces(study, [first], results).note
    assert not (results / "fit.json").exists()
    second = write_piece(tmp_path / "b", study, cells[3:14], "p2")
    assert merge_pieces(study, [second], results).note is None
    assert (results / "fit.json").exists()
    assert len(merged_records(results)) == 14
    with pytest.raises(RecordError, match="piece p2 is merged already"):
        merge_pieces(study, [second], results)
    again = write_piece(tmp_path / "c", study, cells[13:15], "p3")
    with pytest.raises(RecordError, match=r"measured already in piece p2 \(\+0 more\)"):
        merge_pieces(study, [again], results)


def test_what_is_refused_is_refused_in_one_line_and_nothing_is_written(grid, tmp_path):
    study, results, cells = grid
    good = write_piece(tmp_path / "good", study, cells[:2], "p1")
    record = read_sealed(good / PIECE)["records"][cells[0].id]
    foreign = {"records": {"vit_tiny-p4-n1-r32-m80-s0-000000": record}}
    other = {"records": {cells[0].id: record | {"digest": "0" * 12}}}
    row = {"records": {cells[0].id: record | {"rows": [record["rows"][0] | {"extra": 1}]}}}
    largest = smaller_and_largest(study, results)[1]
    cases = [
        (write_piece(tmp_path / "f", study, [], "f", **foreign), "none of measured's cells"),
        (write_piece(tmp_path / "o", study, [], "o", **other), "belongs to cell 000000000000"),
        (write_piece(tmp_path / "r", study, [], "r", **row), "of other columns"),
        (write_piece(tmp_path / "s", load_study("pocket"), [], "s"), "a piece of pocket"),
        (
            write_piece(tmp_path / "l", study, largest[:1], "l"),
            "predicted before they are measured",
        ),
        (tmp_path / "nowhere", "name a folder"),
    ]
    damaged = tmp_path / "d"
    text = (good / PIECE).read_text()
    damaged.mkdir()
    (damaged / PIECE).write_text(text.replace('"loss": 0.5', '"loss": 0.6', 1))
    cases.append((damaged, "its seal differs; copy it again from where it was measured"))
    for folder, problem in cases:
        with pytest.raises(MaeError, match=problem) as found:
            merge_pieces(study, [good, folder], results)
        assert "\n" not in str(found.value)
    assert sorted(p.name for p in results.iterdir()) == ["plan.json"]


def test_a_plan_of_another_study_is_refused(grid, tmp_path):
    study, results, cells = grid
    piece = write_piece(tmp_path / "piece", study, cells[:2], "p1")
    fewer = dataclasses.replace(study, cells=study.cells[:-1])
    with pytest.raises(RecordError, match="write the plan anew: mae study order measured"):
        merge_pieces(fewer, [piece], results)


def test_tables_that_a_run_published_are_not_replaced(grid, tmp_path):
    study, results, cells = grid
    piece = write_piece(tmp_path / "piece", study, cells[:2], "p1")
    with pytest.raises(StudyError, match="no piece of measured is merged; name a piece's folder"):
        merge_pieces(study, [], results)
    published = {"runs.csv": "of a run\n", "fit.json": "[]", "predictions.csv": "of a run\n"}
    for name, text in published.items():
        (results / name).write_text(text)
    for folders in ([], [piece]):
        with pytest.raises(StudyError, match=r"runs.csv: published by `mae study publish`"):
            merge_pieces(study, folders, results)
    assert {name: (results / name).read_text() for name in published} == published
