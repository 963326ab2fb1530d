"""One cell on several processes: the same losses however it is spread, cut, or gone on with."""

import itertools
import json
import os
import shutil
import signal
import time

import numpy as np
import pytest
import torch
import yaml
from forked_ranks import Ranks, cell_of, launched, ranks_of, train_alone
from safetensors.torch import load_file
from tiny_cell import CELL, DATA, losses

from mae_lib.errors import StudyError
from mae_lib.images.store import build_store
from mae_lib.records.atomic import write_text
from mae_lib.study.execution import Execution
from mae_lib.study.load import load_study
from mae_lib.study.paths import RunPaths, root
from mae_lib.training.assess import train_cell
from mae_lib.training.finished import completed
from mae_lib.training.loop import pretrain
from mae_lib.training.world import World

# Relative, over 12 steps. Ranks add gradients in another order than one process does: 2e-7 in fp32,
# 3e-16 in fp64 were seen, 3e-4 in bf16, whose products round to 8 bits.
SPREAD = {"fp32": 1e-5, "fp64": 1e-12, "bf16": 3e-3}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("MAE_THREADS", "1")
    monkeypatch.setenv("MAE_DEVICE", "cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return build_store(DATA, tmp_path_factory.mktemp("store") / "s", data_root=None)


@pytest.fixture(scope="module")
def calm(store, tmp_path_factory):
    """The folder of an undisturbed training on one process, by precision."""
    folder = tmp_path_factory.mktemp("calm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAE_THREADS", "1")
        patch.setenv("MAE_DEVICE", "cpu")
        for precision in SPREAD:
            train_alone(clipped(precision), store, folder / precision)
    return folder


def clipped(precision):
    return cell_of(CELL, precision=precision, clip_grad=0.7, steps=12)


def require_equal_curves(folder, reference, rtol):
    ours, theirs = losses(folder), losses(reference)
    assert [row[0] for row in ours] == [row[0] for row in theirs]
    np.testing.assert_allclose([r[1:] for r in ours], [r[1:] for r in theirs], rtol=rtol)


@pytest.mark.parametrize(
    ("precision", "execution"),
    [
        ("fp64", {"sharding": "ddp", "micro_batch": 2}),
        ("fp64", {"sharding": "fsdp2", "micro_batch": 2, "checkpoint_activations": True}),
        ("fp32", {"sharding": "ddp"}),
        ("fp32", {"sharding": "fsdp2"}),
        ("bf16", {"sharding": "fsdp2"}),
    ],
)
def test_two_processes_train_to_the_losses_of_one(precision, execution, store, calm, tmp_path):
    cell = clipped(precision)
    assert Ranks(2, cell, store, tmp_path, **execution).wait() == [0, 0]
    rtol = SPREAD[precision]
    # The norms are clipped, so this also holds that the norm is the whole model's.
    require_equal_curves(tmp_path, calm / precision, 10 * rtol if precision == "bf16" else rtol)
    assert all(norm > 0.7 for _, _, norm in losses(tmp_path))
    trained = completed(cell, tmp_path)
    assert trained.status == "complete"
    ours, theirs = (load_file(f / "weights.safetensors") for f in (tmp_path, calm / precision))
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
    if precision == "fp64":
        worst = max((ours[name] - theirs[name]).abs().max() for name in ours)
        assert worst < 1e-11
    assert json.loads((tmp_path / "training.json").read_text())["devices"] == 2


def test_four_processes_are_killed_and_two_or_one_go_on(store, calm, tmp_path):
    cell, cut = clipped("fp32"), tmp_path / "four"
    killed = Ranks(4, cell, store, cut, seconds=0, fault="step:kill:5", sharding="fsdp2")
    assert killed.wait() == [-signal.SIGKILL] * 4
    shutil.copytree(cut, tmp_path / "one")

    assert Ranks(2, cell, store, cut, sharding="fsdp2").wait() == [0, 0]
    require_equal_curves(cut, calm / "fp32", SPREAD["fp32"])
    assert not list((cut / "state").glob("*"))

    state = tmp_path / "one" / "state"
    newest = sorted(state.glob("step-*.json"))[-1].with_suffix("")
    assert [p.suffix for p in newest.iterdir()] == [".safetensors"] * 4, "and no pickle beside them"
    shard = sorted(newest.iterdir())[2]
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    train_alone(cell, store, tmp_path / "one")
    require_equal_curves(tmp_path / "one", calm / "fp32", SPREAD["fp32"])
    assert (state / f"{newest.name}.corrupt").is_dir()


def test_features_scored_on_the_way_leave_checkpoint_and_curve_as_they_are(store, calm, tmp_path):
    # Encoding gathers the model; step 7 ends the first epoch, and is saved right after.
    cell, options = clipped("fp64"), {"sharding": "fsdp2", "knn_every": 1}
    Ranks(2, cell, store, tmp_path, seconds=0, fault="step:kill:8", **options).wait()
    assert max((tmp_path / "state").glob("step-*.json")).name == "step-00000007.json"
    assert Ranks(2, cell, store, tmp_path, **options).wait() == [0, 0]
    require_equal_curves(tmp_path, calm / "fp64", SPREAD["fp64"])
    assert len((tmp_path / "knn.jsonl").read_text().splitlines()) == 2


def test_a_gradient_that_is_no_number_on_one_rank_is_applied_on_none(store, calm, tmp_path):
    cell = clipped("fp64")
    assert Ranks(2, cell, store, tmp_path, last_fault="step:nan:5", sharding="fsdp2").wait() == [
        0,
        0,
    ]
    assert completed(cell, tmp_path).status == "diverged"
    assert json.loads((tmp_path / "training.json").read_text())["diverged"]["step"] == 5
    # What was kept is the state after step 4, from which an undisturbed run ends as ever.
    (tmp_path / "training.json").unlink()
    train_alone(cell, store, tmp_path)
    require_equal_curves(tmp_path, calm / "fp64", SPREAD["fp64"])


def test_one_process_is_killed_and_two_go_on_though_the_disk_of_one_was_full(store, calm, tmp_path):
    cell, state = clipped("fp64"), tmp_path / "state"
    Ranks(1, cell, store, tmp_path, seconds=0, fault="step:kill:3").wait()
    kept = {p: p.read_bytes() for p in state.glob("step-*")}
    names = [f"step-0000000{step}.{kind}" for step in (1, 2) for kind in ("json", "safetensors")]
    assert sorted(path.name for path in kept) == names

    full = Ranks(2, cell, store, tmp_path, seconds=0, file_limit=20_000)
    assert full.wait() == [1, 1]
    said = dict(full.said.get(timeout=5) for _ in range(2))
    assert all("cannot be written, got File too large; free space" in said[r] for r in (0, 1))
    assert {p: p.read_bytes() for p in state.glob("step-*")} == kept

    Ranks(2, cell, store, tmp_path, seconds=0, fault="step:kill:6").wait()
    assert [path.name for path in sorted(state.glob("step-*.json"))][-1] == "step-00000005.json"
    assert Ranks(2, cell, store, tmp_path, sharding="fsdp2").wait() == [0, 0]
    require_equal_curves(tmp_path, calm / "fp64", SPREAD["fp64"])


@pytest.fixture
def study(runs_folder):
    """A study of one tiny cell that asks for two devices, as its run folder keeps it."""
    content = yaml.safe_load((root() / "studies" / "pocket.yaml").read_text())
    content["name"] = "two"
    content["data"] |= {"total": 60, "size": 16}
    content["data"]["tasks"][0] |= {"train_images": 60, "test_images": 50}
    content["grid"] |= {"models": ["vit_pico"], "images": [50], "resolutions": [16]}
    content["recipe"] |= {"steps": 300, "batch_size": 8, "warmup_steps": 4, "precision": "fp64"}
    content["execution"] = {"devices": 2, "checkpoint_activations": True}
    copy = RunPaths.of("two").folder / "study.yaml"
    write_text(copy, yaml.safe_dump(content))
    return load_study(copy)


def test_a_cell_that_asks_for_two_devices_gets_them_and_outlives_its_launchers(study, runs_folder):
    cell = study.cells[0]
    folder = RunPaths.of("two").cell(cell.id)
    environment = {"MAE_RUNS": str(runs_folder), "MAE_DEVICE": "cpu", "MAE_THREADS": "2"}

    first = launched(cell, "two", **environment)
    torchrun, *ranks = under_way(folder, runs_folder, after=0)
    assert len(ranks) == 2
    os.kill(torchrun, signal.SIGKILL)
    first.join(20)
    assert first.exitcode == 1
    wait_until(lambda: not ranks_of(runs_folder))
    saved = newest_step(folder)

    second = launched(cell, "two", **environment)
    under_way(folder, runs_folder, after=saved)
    told = time.monotonic()
    os.kill(second.pid, signal.SIGTERM)
    second.join(20)
    assert second.exitcode == 143
    assert time.monotonic() - told < 10
    assert not ranks_of(runs_folder)
    assert newest_step(folder) > saved > 0
    assert len(list((folder / "state" / f"step-{newest_step(folder):08d}").iterdir())) == 2

    trained = train_cell(cell, "two", log_every=5)
    assert (trained.status, trained.steps) == ("complete", 300)
    assert train_cell(cell, "two") == trained
    store = build_store(cell.data, RunPaths.of("two").store(cell.data.digest), data_root=None)
    pretrain(cell, store, runs_folder / "alone", log_every=5)
    require_equal_curves(folder, runs_folder / "alone", 1e-9)


def under_way(folder, runs_folder, *, after) -> list[int]:
    """Wait for a line of the loss curve beyond a step; return torchrun and its ranks."""
    wait_until(lambda: any(step > after for step, *_ in losses(folder)))
    return ranks_of(runs_folder)


def newest_step(folder) -> int:
    return max(int(path.stem[-8:]) for path in (folder / "state").glob("step-*.json"))


def wait_until(is_so) -> None:
    deadline = time.monotonic() + 90
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_devices_that_are_not_there_or_do_not_divide_the_batch_are_one_line(store, tmp_path):
    with pytest.raises(StudyError, match="devices: 3 must divide the batch of 8 images"):
        pretrain(CELL, store, tmp_path, execution=Execution(devices=3))


def test_ranks_take_equal_parts_of_a_batch_or_none():
    worlds = [World(torch.device("cpu"), rank, 4) for rank in range(4)]
    rows = [list(range(12))[world.rows(12)] for world in worlds]
    assert list(itertools.chain(*rows)) == list(range(12))
    assert {len(each) for each in rows} == {3}
    with pytest.raises(StudyError, match="4 must divide the batch of 10 images"):
        worlds[0].rows(10)
