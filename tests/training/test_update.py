"""An update is the same however it is split, is not applied when it is not finite, and fits."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from tiny_cell import CELL, DATA, losses, weights

from mae_lib.images.store import build_store
from mae_lib.kernels import choose
from mae_lib.records import faults
from mae_lib.records.sealed import read_sealed
from mae_lib.study.execution import Execution
from mae_lib.training.batches import batches
from mae_lib.training.checkpoint import restore_checkpoint
from mae_lib.training.loop import build_model, completed, pretrain
from mae_lib.training.memory import OutOfMemory, memory_lacking
from mae_lib.training.metrics import read_events, read_metrics
from mae_lib.training.recipe import build_optimizer, learning_rate
from mae_lib.training.step import Step


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("MAE_THREADS", "1")
    monkeypatch.setenv("MAE_DEVICE", "cpu")
    torch.set_num_threads(1)


@pytest.fixture
def fault(monkeypatch):
    """Let a run break where the test asks for it."""
    monkeypatch.setattr(faults, "_tried", set())
    return lambda wish: monkeypatch.setenv("MAE_FAULT_AT", wish)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return build_store(DATA, tmp_path_factory.mktemp("store") / "s", data_root=None)


@pytest.fixture(scope="module")
def calm(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("calm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAE_THREADS", "1")
        patch.setenv("MAE_DEVICE", "cpu")
        pretrain(CELL, store, folder, log_every=5)
    return folder


def steps_of(store, count):
    device, dtype = torch.device("cpu"), torch.float32
    return list(batches(CELL, store, start=0, stop=count, device=device, dtype=dtype))


def state_of(model, optimizer):
    states = [optimizer.state[p] for p in model.parameters() if p in optimizer.state]
    names = ("step", "exp_avg", "exp_avg_sq")
    moments = [tuple(state[name].clone() for name in names) for state in states]
    return [p.detach().clone() for p in model.parameters()], moments


def require_equal(before, after):
    torch.testing.assert_close(before, after, rtol=0, atol=0)


# fp32: rounding of a mean over 64 images, carried through 12 updates; float64 the same.
@pytest.mark.parametrize(("precision", "rtol"), [("fp64", 1e-12), ("fp32", 2e-6)])
@pytest.mark.parametrize("micro_batch", [32, 24])
def test_a_batch_in_parts_has_the_loss_curve_of_the_whole(
    store, tmp_path, precision, rtol, micro_batch
):
    recipe = dataclasses.replace(CELL.recipe, batch_size=64, steps=12, precision=precision)
    cell = dataclasses.replace(CELL, recipe=recipe)
    curves = []
    for parts in (None, micro_batch):
        folder = tmp_path / str(parts)
        pretrain(cell, store, folder, execution=Execution(micro_batch=parts), log_every=1)
        curves.append(losses(folder))
    np.testing.assert_allclose(curves[1], curves[0], rtol=rtol)
    assert weights(tmp_path / "None") != weights(tmp_path / str(micro_batch))


def test_an_update_that_is_not_finite_moves_neither_weights_nor_moments_by_one_bit(store, fault):
    model = build_model(CELL)
    optimizer = build_optimizer(model, CELL.recipe)
    step = Step(model, optimizer, clip_grad=1.0)
    first, second, third, fourth = steps_of(store, 4)
    step(first)
    step(second)
    before = state_of(model, optimizer)
    fault("step:nan:3")
    loss, norm = step(third)
    assert not math.isfinite(loss)
    assert not math.isfinite(norm)
    require_equal(before, state_of(model, optimizer))
    # Nor does any update after it: the state that is left is the one before the failure.
    loss, _ = step(fourth)
    assert math.isfinite(loss)
    require_equal(before, state_of(model, optimizer))
    assert (step.applied.item(), step.failed.item()) == (2, 1)


def test_the_guard_of_an_update_does_not_change_the_bits_of_a_good_one(store):
    states = []
    for guarded in (True, False):
        model = build_model(CELL)
        optimizer = build_optimizer(model, CELL.recipe)
        step = Step(model, optimizer)
        for batch in steps_of(store, 3):
            if guarded:
                step(batch)
                continue
            model(batch.pixels, batch.order).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), math.inf, foreach=True)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        states.append(state_of(model, optimizer))
    require_equal(*states)


def test_a_run_that_diverges_says_where_and_keeps_the_last_good_state(
    store, tmp_path, fault, capfd
):
    fault("step:nan:12")
    trained = pretrain(CELL, store, tmp_path / "a", log_every=5)
    assert (trained.status, trained.steps, trained.loss) == ("diverged", 15, None)
    lr = learning_rate(CELL.recipe, 11, 24)
    assert read_sealed(tmp_path / "a" / "training.json")["diverged"] == {"step": 12, "lr": lr}
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1
    assert f"diverged: the gradient of step 12 is not finite, at learning rate {lr:.3g}" in said[0]
    assert not (tmp_path / "a" / "weights.safetensors").exists()
    assert completed(CELL, tmp_path / "a") == trained
    # The state kept is bit for bit that of a run without the fault after 11 steps.
    kept = [build_model(CELL) for _ in range(2)]
    optimizers = [build_optimizer(model, CELL.recipe) for model in kept]
    meta = restore_checkpoint(tmp_path / "a" / "state", kept[0], optimizers[0])
    assert meta["step"] == 11
    step = Step(kept[1], optimizers[1])
    with choose.using(choose.best()):
        for number, batch in enumerate(steps_of(store, 11)):
            for group in optimizers[1].param_groups:
                group["lr"] = learning_rate(CELL.recipe, number, 24)
            step(batch)
    require_equal(*(state_of(*pair) for pair in zip(kept, optimizers, strict=True)))


def test_a_checkpoint_due_after_a_failure_is_not_written_but_logged(store, tmp_path, fault):
    fault("step:nan:12")
    trained = pretrain(CELL, store, tmp_path, log_every=24, checkpoint_seconds=0)
    assert (trained.status, trained.steps) == ("diverged", 12)
    assert read_metrics(tmp_path / "metrics.jsonl")[-1]["loss"] is None
    assert [p.name for p in sorted((tmp_path / "state").glob("*.json"))] == [
        "step-00000010.json",
        "step-00000011.json",
    ]


@pytest.mark.parametrize(("wish", "micro_batches"), [("step:oom:7", [4]), ("step:oom:7:1", [1])])
def test_out_of_memory_halves_the_images_at_once_and_keeps_the_result(
    store, calm, tmp_path, fault, capfd, wish, micro_batches
):
    fault(wish)
    trained = pretrain(CELL, store, tmp_path, log_every=5)
    assert trained.status == "complete"
    np.testing.assert_allclose(losses(tmp_path), losses(calm), rtol=1e-5)
    told = read_events(tmp_path / "metrics.jsonl")
    assert [e["micro_batch"] for e in told] == micro_batches
    assert [e["after_step"] for e in told] == [6]
    assert read_sealed(tmp_path / "training.json")["micro_batch"] == micro_batches[-1]
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1
    assert f"out of memory in step 7: {micro_batches[-1]} images at once from here on" in said[0]


def test_where_not_one_image_fits_it_is_one_line_with_the_remedy(store, calm, tmp_path, fault):
    fault("step:oom:7:0")
    with pytest.raises(OutOfMemory, match="gpu memory: step 7 does not fit with one image") as said:
        pretrain(CELL, store, tmp_path, log_every=5)
    assert said.value.exit_code == 1
    assert "checkpoint_activations" in str(said.value)
    assert read_sealed(tmp_path / "failed.json")["status"] == "failed: gpu memory"
    fault("")
    pretrain(CELL, store, tmp_path, log_every=5)
    assert weights(tmp_path) == weights(calm)
    assert not (tmp_path / "failed.json").exists()


def test_memory_that_ends_outside_of_a_step_is_the_same_one_line(store, tmp_path, monkeypatch):
    def no_room(*_, **__):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes")

    monkeypatch.setattr("mae_lib.training.batches.crop_way", lambda way: no_room)
    with pytest.raises(OutOfMemory, match=r"^memory: .*can't allocate memory: 9 bytes; take"):
        pretrain(CELL, store, tmp_path)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "gpu memory"),
        (RuntimeError("CUDA error: out of memory"), "gpu memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "memory"),
        (MemoryError(), "memory"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
    ],
)
def test_only_a_lack_of_memory_is_taken_for_one(error, kind):
    assert memory_lacking(error) == kind


def test_a_resumed_run_keeps_to_the_images_at_once_that_fitted(store, tmp_path, fault):
    fault("step:oom:7")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Step, "__call__", _killed_at(Step.__call__, 10))
        with pytest.raises(KeyboardInterrupt):
            pretrain(CELL, store, tmp_path / "cut", log_every=5, checkpoint_seconds=0)
    pretrain(CELL, store, tmp_path / "cut", log_every=5)
    fault("step:oom:7:4")
    pretrain(CELL, store, tmp_path / "whole", log_every=5)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


def _killed_at(real, number):
    def step(self, batch):
        if self.number == number:
            raise KeyboardInterrupt
        return real(self, batch)

    return step
