import subprocess

import numpy as np
import pytest
from measured_pieces import foretold, planned_study, smaller_and_largest

from mae_lib.errors import RecordError
from mae_lib.records.plan_file import read_plan
from mae_lib.records.sealed import read_sealed
from mae_lib.records.sidecar import read_table
from mae_lib.report.registered import compare, read_registered, register
from mae_lib.report.results import law_table
from mae_lib.study.load import load_study
from mae_lib.study.paths import root


@pytest.fixture(scope="module")
def registered():
    study, folder, before = foretold()
    results = folder / "results" / "measured"
    return study, results, before, smaller_and_largest(study, results)[1]


def test_a_prediction_is_registered_once(registered):
    study, results, _, _ = registered
    with pytest.raises(RecordError, match="registered once"):
        register(study, results)


def test_the_largest_cells_of_a_true_law_are_hit(registered):
    _, results, before, largest = registered
    rows = compare(before, read_table(results / "runs.csv"))
    assert set(rows.cell) == {cell.id for cell in largest}
    assert rows.hit.notna().all()
    plain = rows[~rows.as_if_plain]
    # Eleven intervals of 95 %; the law that made the scores is one of those that are averaged.
    assert plain.hit.astype(bool).mean() >= 0.8
    assert np.isfinite(rows.predicted).all()


def test_a_prediction_keeps_what_it_was_made_from(registered):
    study, results, before, _ = registered
    assert read_registered(results)["rows_used"] == before["rows_used"]
    assert len(before["rows_used"]) < 40, "hybrids are no part of the plain encoders' laws"
    assert before["runs_sha256"] != read_sealed(results / "runs.csv.seal.json")["sha256"]
    assert {law["law"] for law in before["predictions"][0]["laws"]} == set(study.law.laws)


def test_laws_are_of_plain_encoders_and_runs_on_one_subset_are_one_cluster(registered):
    study, results, _, _ = registered
    table = law_table(study, read_table(results / "runs.csv"))
    assert not table.frame.model.str.contains("hybrid").any()
    assert table.clusters == "subset"
    assert table.frame.groupby("subset").images.nunique().eq(1).all()
    pocket = law_table(load_study("pocket"), read_table(root() / "results/pocket/runs.csv"))
    assert pocket.clusters is None


def test_without_a_merged_piece_nothing_can_be_predicted(tmp_path):
    study = planned_study(tmp_path)
    with pytest.raises(RecordError, match="merge a piece first: mae study merge DIR"):
        register(study, tmp_path)
    (tmp_path / "plan.json").unlink()
    with pytest.raises(RecordError, match="write it: mae study order measured"):
        register(study, tmp_path)


def test_what_is_measured_cannot_be_predicted(registered, tmp_path):
    study, results, _, largest = registered
    (results / "registered.json").rename(tmp_path / "aside.json")
    try:
        with pytest.raises(RecordError, match=r"measured already .*cannot be predicted") as found:
            register(study, results)
        assert any(cell.id in str(found.value) for cell in largest)
    finally:
        (tmp_path / "aside.json").rename(results / "registered.json")


@pytest.mark.parametrize("name", ["measured", "measured-128", "measured-rehearsal"])
def test_in_this_repository_a_prediction_was_committed_before_its_cells(name):
    folder = root() / "results" / name
    largest = set(largest_ids(name))
    holding = [
        path
        for path in sorted((folder / "pieces").glob("*.json"))
        if largest & set(read_sealed(path)["records"])
    ]
    if not (folder / "registered.json").exists():
        assert not holding, "largest cells were measured and no prediction was registered"
        return
    for piece in holding:
        assert read_sealed(piece)["started"] >= read_registered(folder)["created"]
    if not whole_history():
        pytest.skip("no git history here, or a shallow one: the order of commits is not known")
    added = first_commit(folder / "registered.json")
    for piece in holding:
        # What is not committed yet comes after everything that is.
        if (later := first_commit(piece)) is not None:
            assert later != added
            assert is_ancestor(added, later)


def largest_ids(name: str) -> tuple[str, ...]:
    return read_plan(root() / "results" / name / "plan.json", load_study(name)).largest


def whole_history() -> bool:
    return git("rev-parse", "--is-shallow-repository").stdout.strip() == "false"


def first_commit(path) -> str | None:
    lines = git("log", "--diff-filter=A", "--format=%H", "--", str(path)).stdout.split()
    return lines[-1] if lines else None


def is_ancestor(first: str, second: str) -> bool:
    return git("merge-base", "--is-ancestor", first, second).returncode == 0


def git(*arguments: str) -> subprocess.CompletedProcess:
    command = ["git", "-C", str(root()), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)
