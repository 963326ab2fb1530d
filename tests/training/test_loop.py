"""Training gives the same bits however it is cut, counts once, and says when it diverges."""

import dataclasses
import os
import signal

import numpy as np
import pytest
import torch
from tiny_cell import CELL, DATA, losses, weights

from mae_lib.cost import cost_of
from mae_lib.errors import Interrupted, RecordError
from mae_lib.images.store import build_store
from mae_lib.study.definition import Recipe
from mae_lib.training import loop
from mae_lib.training.assess import record_cell, train_cell
from mae_lib.training.batches import Sampler, batches
from mae_lib.training.describe import reconstructions
from mae_lib.training.loop import completed, pretrain
from mae_lib.training.recipe import build_optimizer, learning_rate, planned_steps
from mae_lib.training.step import Step


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("MAE_THREADS", "1")
    monkeypatch.setenv("MAE_DEVICE", "cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return build_store(DATA, tmp_path_factory.mktemp("store") / "s", data_root=None)


def test_two_runs_give_the_same_bytes_and_the_second_call_does_nothing(store, tmp_path):
    first = pretrain(CELL, store, tmp_path / "a", log_every=5)
    pretrain(CELL, store, tmp_path / "b", log_every=5)
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    assert first.steps == 24
    before = (tmp_path / "a" / "weights.safetensors").stat().st_mtime_ns
    assert pretrain(CELL, store, tmp_path / "a", log_every=5) == first
    assert (tmp_path / "a" / "weights.safetensors").stat().st_mtime_ns == before


def test_sigterm_saves_and_the_same_call_goes_on_with_the_same_bits(store, tmp_path, monkeypatch):
    pretrain(CELL, store, tmp_path / "calm", log_every=5)
    steps = iter(range(100))
    real = Step.__call__

    def signalled(*arguments):
        if next(steps) == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    monkeypatch.setattr(Step, "__call__", signalled)
    with pytest.raises(Interrupted, match="after step 8 of 24") as caught:
        pretrain(CELL, store, tmp_path / "cut", log_every=5)
    assert caught.value.exit_code == 143
    pretrain(CELL, store, tmp_path / "cut", log_every=5)
    assert weights(tmp_path / "cut") == weights(tmp_path / "calm")
    assert losses(tmp_path / "cut") == losses(tmp_path / "calm")


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_is_used(
    store, tmp_path, monkeypatch
):
    pretrain(CELL, store, tmp_path / "calm", log_every=5)
    real, seen = Step.__call__, []

    def stopped(*arguments):
        seen.append(0)
        if len(seen) == 12:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(Step, "__call__", stopped)
    with pytest.raises(KeyboardInterrupt):
        pretrain(CELL, store, tmp_path / "cut", log_every=5, checkpoint_seconds=0)
    newest = sorted((tmp_path / "cut" / "state").glob("*.safetensors"))[-1]
    content = bytearray(newest.read_bytes())
    content[-9] ^= 1
    newest.write_bytes(content)
    pretrain(CELL, store, tmp_path / "cut", log_every=5)
    assert weights(tmp_path / "cut") == weights(tmp_path / "calm")
    assert (tmp_path / "cut" / "state" / f"{newest.name}.corrupt").exists()


def test_damaged_weights_are_set_aside_and_trained_again(store, tmp_path):
    pretrain(CELL, store, tmp_path / "a", log_every=5)
    whole = weights(tmp_path / "a")
    (tmp_path / "a" / "weights.safetensors").write_bytes(whole[:-1] + b"x")
    assert completed(CELL, tmp_path / "a") is None
    pretrain(CELL, store, tmp_path / "a", log_every=5)
    assert weights(tmp_path / "a") == whole


def test_a_folder_of_another_cell_is_refused(store, tmp_path):
    pretrain(CELL, store, tmp_path / "a", log_every=5)
    other = dataclasses.replace(CELL, seed=4)
    (tmp_path / "a" / "training.json").unlink()
    with pytest.raises(RecordError, match="belongs to cell"):
        pretrain(other, store, tmp_path / "a")


def test_batches_cross_epochs_and_do_not_depend_on_where_they_start(store):
    sampler = Sampler(np.arange(100, 110), 4, 0)
    seen = np.concatenate([sampler.batch(step)[0] for step in range(5)])
    assert sorted(seen[:10]) == sorted(seen[10:20]) == list(range(100, 110))
    options = {"device": torch.device("cpu"), "dtype": torch.float32}
    whole = list(batches(CELL, store, start=0, stop=6, **options))
    late = list(batches(CELL, store, start=4, stop=6, **options))
    assert torch.equal(whole[4].pixels, late[0].pixels)
    assert torch.equal(whole[5].order, late[1].order)


def test_the_rate_warms_up_linearly_and_ends_near_zero():
    recipe = Recipe(steps=100, warmup_steps=10, base_lr=1e-3, batch_size=512)
    rates = [learning_rate(recipe, step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([2e-3 * (i + 1) / 10 for i in range(10)])
    assert max(rates) == pytest.approx(2e-3)
    assert rates[-1] < 1e-5
    assert len([learning_rate(recipe, step, 5) for step in range(5)]) == 5


def test_biases_norms_and_tokens_are_not_decayed():
    model = loop.build_model(CELL)
    groups = build_optimizer(model, CELL.recipe).param_groups
    names = {id(p): n for n, p in model.named_parameters()}
    plain = {names[id(p)] for p in groups[1]["params"]}
    assert {"encoder.cls_token", "mask_token", "encoder.norm.weight"} <= plain
    assert all("weight" in names[id(p)] for p in groups[0]["params"])


def test_a_costly_cell_is_trained_for_fewer_steps():
    cost = cost_of(CELL).flops_per_image * 8
    short = dataclasses.replace(CELL.recipe, max_flops=cost * 7.5)
    assert planned_steps(CELL) == 24
    assert planned_steps(dataclasses.replace(CELL, recipe=short)) == 7


def test_a_record_has_every_column_and_is_computed_once(runs_folder):
    first = record_cell(CELL, "here")
    assert {row["protocol"] for row in first["rows"]} == {"linear", "knn"}
    for row in first["rows"]:
        assert 0 <= row["top1_low"] <= row["top1"] <= row["top1_high"] <= 1
        assert {"pixels_top1", "random0_top1", "random2_top1", "chance"} <= set(row)
    picture = reconstructions(CELL, train_cell(CELL, "here"), count=2)
    original, _, predicted = np.split(picture.astype(float), 3, axis=1)
    # Grey levels again, with each patch's own mean: near the original, far from black.
    assert abs(predicted - original).mean() < 40
    assert predicted.std() > 10
    path = runs_folder / "here" / "cells" / CELL.id / "record.json"
    before = path.stat().st_mtime_ns
    assert record_cell(CELL, "here") == first
    assert path.stat().st_mtime_ns == before
