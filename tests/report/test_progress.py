"""What the status of a cell says, from its files alone."""

import json
import re

import pytest

from mae_lib.cli.engine import Meter
from mae_lib.records.locks import CELL_LOCK, RANKS_LOCK, locked
from mae_lib.records.sealed import write_sealed
from mae_lib.report.anchors import ANCHORS, anchors_of
from mae_lib.report.progress import cell_state, cell_work, clock, last_metrics
from mae_lib.study.load import load_study
from mae_lib.study.paths import RunPaths

HEADER = {"steps": 400, "batch": 64, "predict_mean_loss": 0.98, "gemm_flops_per_s": 2.1e11}
ROW = {"step": 100, "images_seen": 6400, "loss": 0.71, "lr": 1e-3, "grad_norm": 1.0,
       "images_per_s": 1234.0, "bound": "compute", "mfu": 0.41}  # fmt: skip


def write_curve(folder, *lines, header=HEADER):
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join(json.dumps(line) for line in ({"header": header}, *lines))
    (folder / "metrics.jsonl").write_text(text + "\n")


def test_a_cell_that_trains_says_how_far_how_fast_and_what_holds_it_up(tmp_path):
    assert cell_state(tmp_path) == "not begun"
    event = {"event": "out of memory", "after_step": 101, "micro_batch": 4}
    write_curve(tmp_path, ROW, event)
    with locked(tmp_path / CELL_LOCK):
        assert cell_state(tmp_path) == (
            "training, step 100 of 400, loss 0.710 (the mean: 0.980), 1,234 images/s, "
            "41 % of 210 GFLOP/s, bound by compute, about 16 s left"
        )


def test_a_curve_written_before_there_was_more_to_say_is_read(tmp_path):
    old = {k: ROW[k] for k in ("step", "images_seen", "loss", "lr", "grad_norm", "images_per_s")}
    write_curve(tmp_path, old, header={"cell": "x", "digest": "y", "steps": 400, "batch": 64})
    with locked(tmp_path / CELL_LOCK):
        assert cell_state(tmp_path) == (
            "training, step 100 of 400, loss 0.710, 1,234 images/s, about 16 s left"
        )
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 120, "images_se')
    assert last_metrics(tmp_path) == old


def test_a_cell_that_nobody_holds_says_from_where_it_would_go_on(tmp_path):
    nowhere = "interrupted, it would begin again: no step is saved"
    write_curve(tmp_path)
    write_sealed(tmp_path / "cell.json", {"id": "x"})
    assert cell_state(tmp_path) == nowhere
    with locked(tmp_path / CELL_LOCK):
        assert cell_state(tmp_path) == "training, no step is logged yet"
    write_curve(tmp_path, ROW)
    assert cell_state(tmp_path) == nowhere
    (tmp_path / "state").mkdir()
    for step in (80, 90):
        write_sealed(tmp_path / "state" / f"step-{step:08d}.json", {"step": step})
    assert cell_state(tmp_path) == "interrupted, it would go on from step 90 of 400"
    (tmp_path / "state" / "step-00000090.json").write_text("{")
    assert cell_state(tmp_path) == "interrupted, it would go on from step 80 of 400"
    # Ranks that their launcher's death has left may still be saving.
    with locked(tmp_path / RANKS_LOCK):
        assert cell_state(tmp_path).startswith("training, step 100 of 400")


def test_a_run_that_diverged_or_did_not_fit_says_where_and_what_to_do(tmp_path):
    write_curve(tmp_path, ROW)
    failed = {"status": "failed: gpu memory", "message": "gpu memory: take less"}
    write_sealed(tmp_path / "failed.json", failed)
    assert cell_state(tmp_path) == "failed: gpu memory: take less"
    where = {"status": "diverged", "diverged": {"step": 12, "lr": 1.5e-3}}
    write_sealed(tmp_path / "training.json", where)
    assert cell_state(tmp_path) == "diverged in step 12 at learning rate 0.0015, not evaluated"
    write_sealed(tmp_path / "record.json", {"status": "diverged"})
    assert cell_state(tmp_path) == "diverged in step 12 at learning rate 0.0015"
    (tmp_path / "record.json").write_text("{")
    assert cell_state(tmp_path).startswith("damaged: ")


def test_the_meter_counts_work_in_flops_and_shows_every_column(tmp_path, monkeypatch):
    monkeypatch.setenv("MAE_RUNS", str(tmp_path))
    study, paths = load_study("pocket"), RunPaths.of("here")
    meter = Meter(study, paths)
    assert meter.line() == f"cells 0/{len(study.cells)}"
    assert meter.left_s() is None
    cell = study.cells[0]
    write_curve(paths.cell(cell.id), ROW)
    share = cell_work(cell, 6400) / sum(cell_work(c) for c in study.cells)
    meter.started -= 10
    assert meter.left_s() == pytest.approx(10 * (1 - share) / share, rel=0.05)
    assert re.match(rf"cells 0/{len(study.cells)}, 1,234 images/s, about .* left", meter.line())
    shown = [next(iter(column.cells)) for column in meter.table().columns]
    assert shown == [cell.id, "100/400", "0.710", "0.980", "1,234", "41%", "compute", "16 s"]


def test_times_and_published_speeds_are_read_off():
    assert [clock(s) for s in (9.4, 65, 3_725)] == ["9 s", "1 min 05 s", "1 h 02 min"]
    cell = load_study("pocket").cells[0]
    assert anchors_of(cell) == ()
    assert {anchor.model for anchor in ANCHORS} == {"vit_base", "vit_large"}
