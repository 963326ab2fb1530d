"""The page of the measured grid says what there is: a measurement, a rehearsal, or nothing."""

import re
import shutil

import pytest
from measured_pieces import foretold, quick

from mae_lib.report import measured
from mae_lib.report.measured import levels_frame, measured_substitutions, read_grid
from mae_lib.study.load import load_study
from mae_lib.study.paths import root

NAMES = set(re.findall(r"{{ (\w+) }}", (root() / "book" / "measured.md").read_text()))


@pytest.fixture(scope="module")
def book():
    """A book whose grid is measured in part, its largest cells foretold and measured."""
    return foretold()[1]


@pytest.fixture
def filled(book, monkeypatch):
    monkeypatch.setattr(measured, "load_study", lambda name: quick(load_study(name)))
    return measured_substitutions(book)


def test_a_measured_grid_is_shown_with_its_holes_law_and_prediction(filled):
    assert set(filled) >= NAMES
    assert filled["measured_status"].startswith("Measured in 2 pieces")
    assert "51 of 92 planned cells are measured (41 holes)" in filled["measured_answer"]
    assert re.search(r"\d+ of 11 lie inside their 95 % interval", filled["measured_registered"])
    assert "errs least" in filled["measured_heldout"]
    assert "The laws of the public grid spread from" in filled["measured_claim"]
    assert "51 cells in 18.0 minutes on NVIDIA H100" in filled["measured_pieces"]
    assert "Not measured yet: 40 cells over 1,400 images" in filled["measured_second"]
    assert "6 % of the 200,000" in filled["measured_limits"]
    assert all(isinstance(text, str) and text for text in filled.values())


def test_holes_are_rows_of_their_own(book):
    grid = read_grid(book / "results")
    frame = levels_frame(grid)
    assert len(frame) == 5 * 5 * 5
    assert frame.seeds.sum() == grid.scored.cell.nunique() == 51
    hole = frame[(frame.model == "vit_hybrid") & (frame.resolution == 16)]
    assert (hole.planned == 0).all()
    assert hole.top1.isna().all()


def test_a_book_without_any_piece_says_so(tmp_path):
    for name in ("measured", "measured-128"):
        (tmp_path / "results" / name).mkdir(parents=True)
        shutil.copy(root() / "results" / name / "plan.json", tmp_path / "results" / name)
    filled = measured_substitutions(tmp_path)
    assert set(filled) >= NAMES
    assert filled["measured_status"] == "Nothing is measured and nothing is rehearsed yet."


def test_the_committed_page_calls_a_rehearsal_a_rehearsal():
    filled = measured_substitutions(root())
    assert set(filled) >= NAMES
    measured_one = (root() / "results" / "measured" / "runs.csv").exists()
    assert filled["measured_status"].startswith("**Rehearsal, not evidence.**") != measured_one


def test_no_number_of_a_result_is_typed_into_the_prose():
    text = (root() / "book" / "measured.md").read_text()
    prose = re.sub(r"`[^`]*`|{{ \w+ }}", "", text)
    # Top-1, 95 %, 64 and 128 pixels are names, not results.
    assert set(re.findall(r"\d+(?:\.\d+)?", prose)) <= {"1", "64", "95", "128"}
