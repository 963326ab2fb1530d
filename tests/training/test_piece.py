"""A piece through its very command, on a machine that lacks the notebook stack, killed and run again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_worker
import pytest
import yaml

from mae_lib.errors import StudyError
from mae_lib.evaluation.saved_features import read_archive
from mae_lib.records.plan_file import write_plan
from mae_lib.records.sealed import read_sealed
from mae_lib.report.merge import merge_pieces
from mae_lib.report.order import measuring_plan
from mae_lib.study.definition import Cell
from mae_lib.study.load import load_study
from mae_lib.study.paths import root
from mae_lib.training import piece
from mae_lib.training.piece_files import cells_in, resume_files
from mae_lib.training.piece_time import Expected, memory_of

# What a GPU machine is not sure to have.
MISSING = "pydantic typer altair snakemake papermill beartype imagehash nbformat jupytext nbclient"
BLOCKER = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {set(MISSING.split())!r}:
            raise ImportError(name + ": blocked")
sys.meta_path.insert(0, Blocker())
"""
LAST = 5
STUDY = {
    "format": 1, "name": "tiny", "question": "Does a piece come back whole?",
    "data": {
        "kind": "procedural", "total": 60, "size": 16, "seed": 0,
        "sources": [{"name": "objects", "share": 0.5}, {"name": "faces", "share": 0.5}],
        "tasks": [{"name": "objects", "train_images": 60, "test_images": 50}],
    },
    "grid": {
        "patch_grid": 4,
        "blocks": [
            {"models": ["vit_pico"], "images": [20], "resolutions": [8], "seeds": [0, 1, 2]},
            {"models": ["vit_pico"], "images": [60], "resolutions": [8]},
        ],
    },
    "recipe": {"steps": 4, "batch_size": 8, "warmup_steps": 1},
    "evaluation": {"random_seeds": 1},
    "law": {"task": "objects", "laws": ["log_additive"]},
}  # fmt: skip


class Bare:
    """The folders of one bare machine, and its command."""

    def __init__(self, folder: Path):
        self.folder, self.out = folder, folder / "out"
        self.study_file = folder / "tiny.yaml"
        self.study_file.write_text(yaml.safe_dump(STUDY))
        self.study = load_study(self.study_file)
        write_plan(folder / "results" / "tiny" / "plan.json", measuring_plan(self.study))
        (folder / "bare").mkdir()
        (folder / "bare" / "sitecustomize.py").write_text(BLOCKER)

    def start(self, *more: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "mae_lib", "study", "piece", str(self.study_file)]
        env = os.environ | {
            "PYTHONPATH": f"{self.folder / 'bare'}:{root()}",
            "MAE_RUNS": str(self.folder / "runs"),
            "MAE_RESULTS": str(self.folder / "results"),
            "MAE_THREADS": "1",
            "OMP_NUM_THREADS": "1",
        }
        options = more if "--out" in more else ("--out", str(self.out), *more)
        return subprocess.Popen(
            [*command, *options], env=env, cwd=root(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *more: str) -> tuple[int, str, str]:
        process = self.start(*more)
        out, err = process.communicate(timeout=240)
        return process.returncode, out, err


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A piece that was killed when its first cell was said to be done, then run again."""
    machine = Bare(tmp_path_factory.mktemp("bare"))
    first = machine.start()
    for line in first.stdout:
        if ": complete;" in line:
            break
    children = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    machine.after_kill = cells_in(machine.out)
    machine.children = children
    machine.again = machine.run()
    return machine


def test_a_killed_piece_keeps_every_finished_cell_and_goes_on(bare):
    assert len(bare.after_kill) >= 1
    code, out, err = bare.again
    assert code == 0, err
    assert cells_in(bare.out) == {c.id for c in bare.study.cells if c.images == 20}
    kept = next(iter(bare.after_kill))
    assert not [line for line in out.splitlines() if line.split()[2:3] == [f"{kept}:"]]


def test_no_worker_outlives_a_killed_piece(bare):
    def alive(pid: str) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    deadline = time.monotonic() + 10
    while any(map(alive, bare.children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert bare.children
    assert not any(map(alive, bare.children))


def test_what_comes_back_fits_and_is_whole(bare):
    files = sorted(bare.out.rglob("*"))
    assert len(files) <= 8
    assert all(f.is_file() and f.stat().st_size <= 16 * 2**20 for f in files)
    given = read_sealed(bare.out / "piece.json")
    for name in ("device", "processor", "versions", "commit", "code_sha256", "started", "ended"):
        assert given[name]
    assert set(given["curves"]) == set(given["records"]) == set(given["seconds"])
    saved = read_archive(bare.out / "features-1.zip")
    assert set(saved) == set(given["records"])
    assert saved[next(iter(saved))].sets["objects-test"].shape == (50, 48)


def test_what_comes_back_is_merged_and_not_measured_again(bare, tmp_path):
    results = bare.folder / "results" / "tiny"
    merged = merge_pieces(bare.study, [bare.out], results)
    assert (merged.measured, merged.cells) == (3, 4)
    rows = read_sealed(bare.out / "piece.json")["records"]
    row = next(iter(rows.values()))["rows"][0]
    assert {"pixels_top1", "random0_top1", "top1", "images_seen"} <= set(row)
    code, out, _ = bare.run("--out", str(tmp_path / "other"), "--list")
    assert (code, out.strip()) == (0, "tiny: 0 cells are left, 0 s planned one at a time")


def test_the_largest_cells_wait_for_their_prediction(bare, tmp_path):
    largest = next(c.id for c in bare.study.cells if c.images == 60)
    code, _, err = bare.run("--out", str(tmp_path / "o"), "--cells", largest)
    assert (code, err.count("\n")) == (2, 1)
    assert "predicted before they are measured" in err


def test_options_that_cannot_be_are_refused_in_one_line(tmp_path):
    from mae_lib.cli import bare as door

    def refused(*options: str) -> str:
        import contextlib
        import io

        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            code = door.main(["study", "piece", *options, "--out", str(tmp_path / "o")])
        assert code == 2
        return said.getvalue()

    assert "--minutes: must lie between" in refused("measured", "--minutes", "0")
    assert "no such cell" in refused("measured", "--cells", "vit_tiny")
    assert "--done" in refused("measured", "--done", str(tmp_path / "none"))
    assert "no such study" in refused("mesured")


def test_one_cell_s_failure_is_its_own_and_time_is_kept(tmp_path, monkeypatch):
    content = STUDY | {"name": "hard", "grid": {
        "patch_grid": 4, "models": ["vit_pico"], "images": [20], "resolutions": [8],
        "seeds": [fake_worker.HUNGRY, fake_worker.WELL, fake_worker.DIES, fake_worker.WRONG, LAST,
                  fake_worker.SLOW],
    }}  # fmt: skip
    path = tmp_path / "hard.yaml"
    path.write_text(yaml.safe_dump(content))
    study = load_study(path)
    cells = {c.seed: c for c in study.cells}
    monkeypatch.setenv("MAE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(piece, "serve", fake_worker.serve)
    monkeypatch.setattr(piece, "GRACE_SECONDS", 1.0)
    expected, said = Expected(None), []
    expected.learn(study.cells[0], 0.01)
    files = resume_files(tmp_path / "out", study, {"study": "hard", "name": "p", "started": "now"})

    def say(line: str) -> None:
        said.append(line)
        if line.startswith(cells[LAST].id):
            # Only the slow cell is left: it may begin, and cannot end in time.
            running.ends = time.monotonic() + 3

    running = piece.Piece(
        study, str(path), files, expected, ends=time.monotonic() + 100, together=2,
        memory_bytes=80e9, say=say,
    )  # fmt: skip
    running.run(study.cells)
    assert time.monotonic() < running.ends + 1
    assert set(files.records) == {cells[s].id for s in (fake_worker.WELL, fake_worker.HUNGRY, LAST)}
    assert set(files.failed) == {cells[s].id for s in (fake_worker.DIES, fake_worker.WRONG)}
    assert "its process ended with 9" in files.failed[cells[fake_worker.DIES].id]
    assert any("from here on 1 at once" in line for line in said)
    assert said[-1] == "time is up; 1 in flight are given up"
    assert cells_in(tmp_path / "out") == set(files.records)


def cell(model: str) -> Cell:
    return next(c for c in load_study("measured").cells if c.model == model)


def test_expected_seconds_follow_what_is_met():
    expected = Expected(None)
    tiny, base = cell("vit_tiny"), cell("vit_base")
    planned = expected.seconds(base)
    assert expected.fits(base, 1.3 * planned)
    assert not expected.fits(base, 1.1 * planned)
    expected.learn(tiny, 2 * expected.seconds(tiny))
    assert expected.seconds(base) == pytest.approx(2 * planned)
    expected.learn(base, 3 * planned)
    assert expected.seconds(base) == pytest.approx(3 * planned)
    assert memory_of(tiny) < memory_of(base) < 80e9 / 2


def test_a_study_of_another_name_is_not_mixed_into_a_folder(bare, tmp_path):
    with pytest.raises(StudyError, match="holds a piece of tiny; name another folder"):
        resume_files(bare.out, load_study("measured"), {"study": "measured"})


def test_two_pieces_never_write_to_one_folder(tmp_path, monkeypatch, capsys):
    from mae_lib.cli import bare as door
    from mae_lib.cli.piece import _alone

    monkeypatch.setenv("MAE_RUNS", str(tmp_path / "runs"))
    study, out = load_study("measured"), tmp_path / "o"
    with _alone(study, out):
        assert (
            door.main(["study", "piece", "measured", "--out", str(tmp_path / "x" / ".." / "o")])
            == 3
        )
        assert "another `mae study piece` writes to it" in capsys.readouterr().err
        # To look is no writing.
        assert door.main(["study", "piece", "measured", "--out", str(out), "--list"]) == 0
    assert not out.exists()
    with _alone(study, out):
        pass
