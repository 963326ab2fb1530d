"""One cell on several processes: the same losses however it is spread, cut, or gone on with."""

import itertools
import json
import shutil

import numpy as np
import pytest
import torch
from forked_ranks import Ranks, cell_of, train_alone
from safetensors.torch import load_file
from tiny_cell import CELL, DATA, losses

from mae_lib.errors import StudyError
from mae_lib.images.store import build_store
from mae_lib.training.finished import completed
from mae_lib.training.world import World

# Relative, over 24 steps. Ranks add gradients in another order than one process does: 2e-7 in fp32,
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
    return cell_of(CELL, precision=precision, clip_grad=0.7)


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


@pytest.mark.parametrize("sharding", ["ddp", "fsdp2"])
def test_four_processes_are_killed_and_two_or_one_go_on(sharding, store, calm, tmp_path):
    cell, cut = clipped("fp32"), tmp_path / "four"
    Ranks(4, cell, store, cut, seconds=0, sharding=sharding).kill_after(8)
    shutil.copytree(cut, tmp_path / "one")

    assert Ranks(2, cell, store, cut, sharding=sharding).wait() == [0, 0]
    require_equal_curves(cut, calm / "fp32", SPREAD["fp32"])
    assert not list((cut / "state").glob("*"))

    state = tmp_path / "one" / "state"
    newest = sorted(p for p in state.glob("step-*") if p.is_dir())[-1]
    assert {p.suffix for p in newest.iterdir()} == {".safetensors"}, "nothing that is unpickled"
    assert len(list(newest.iterdir())) == 4
    newest = newest if newest.with_suffix(".json").exists() else sorted(state.glob("step-*/"))[-2]
    shard = sorted(newest.iterdir())[2]
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    train_alone(cell, store, tmp_path / "one")
    require_equal_curves(tmp_path / "one", calm / "fp32", SPREAD["fp32"])
    assert (state / f"{newest.name}.corrupt").is_dir()


def test_what_one_process_saved_two_go_on_with(store, calm, tmp_path):
    cell = clipped("fp64")
    Ranks(1, cell, store, tmp_path, seconds=0).kill_after(5)
    assert list((tmp_path / "state").glob("step-*.safetensors"))
    assert Ranks(2, cell, store, tmp_path, sharding="fsdp2").wait() == [0, 0]
    require_equal_curves(tmp_path, calm / "fp64", SPREAD["fp64"])


def test_a_rank_whose_disk_is_full_ends_all_in_one_line_and_loses_nothing(store, calm, tmp_path):
    cell = clipped("fp64")
    Ranks(2, cell, store, tmp_path, seconds=0, sharding="fsdp2").kill_after(4)
    whole = {p: p.read_bytes() for p in (tmp_path / "state").glob("step-*.json")}
    full = Ranks(2, cell, store, tmp_path, seconds=0, sharding="fsdp2", file_limit=20_000)
    assert full.wait() == [1, 1]
    said = dict(full.said.get(timeout=5) for _ in range(2))
    assert all("cannot be written, got File too large; free space" in said[r] for r in (0, 1))
    assert {p: p.read_bytes() for p in (tmp_path / "state").glob("step-*.json")} == whole
    assert Ranks(2, cell, store, tmp_path, sharding="fsdp2").wait() == [0, 0]
    require_equal_curves(tmp_path, calm / "fp64", SPREAD["fp64"])


def test_ranks_take_equal_parts_of_a_batch_or_none():
    worlds = [World(torch.device("cpu"), rank, 4) for rank in range(4)]
    rows = [list(range(12))[world.rows(12)] for world in worlds]
    assert list(itertools.chain(*rows)) == list(range(12))
    assert {len(each) for each in rows} == {3}
    with pytest.raises(StudyError, match="4 must divide the batch of 10 images"):
        worlds[0].rows(10)
