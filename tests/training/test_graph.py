"""A step with images on the device is the ordinary step, captured or not."""

import dataclasses

import numpy as np
import pytest
import torch

from mae_lib.images.store import build_store
from mae_lib.study.definition import Cell, Data, Evaluation, Recipe, Source, Task
from mae_lib.training import loop
from mae_lib.training.batches import batches
from mae_lib.training.graph import WholeStep, prepare_cuda, whole_step
from mae_lib.training.loop import build_model
from mae_lib.training.recipe import build_optimizer, learning_rate
from mae_lib.training.resident import resident_images
from mae_lib.training.step import Step

DATA = Data("procedural", 60, 24, 0, (Source("objects", 1.0),), (Task("shapes", None, None, None,
            None, 60, 50),))  # fmt: skip
CELL = Cell("vit_pico", 50, 16, 4, 0.8, 3, Recipe(steps=24, batch_size=8, warmup_steps=4),
            Evaluation(), DATA)  # fmt: skip
CPU = torch.device("cpu")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, needs_cuda])]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return build_store(DATA, tmp_path_factory.mktemp("store") / "s", data_root=None)


def changed(**recipe):
    return dataclasses.replace(CELL, recipe=dataclasses.replace(CELL.recipe, **recipe))


def resident(cell, store, device=CPU, **options):
    images, why = resident_images(store, device)
    assert images is not None, why
    return WholeStep(
        cell, store, step_of(cell, device, options.pop("micro", None)), images, **options
    )


def step_of(cell, device=CPU, micro_batch=None):
    dtype = torch.float64 if cell.recipe.precision == "fp64" else torch.float32
    model = build_model(cell).to(device, dtype)
    optimizer = build_optimizer(model, cell.recipe)
    return Step(model, optimizer, clip_grad=cell.recipe.clip_grad, micro_batch=micro_batch)


def run(whole, steps, start=0):
    recipe = whole.cell.recipe
    found = []
    for number, draws in enumerate(whole.tables(start, start + steps), start):
        loss, norm = whole(draws, learning_rate(recipe, number, recipe.steps))
        found.append((loss.item(), norm.item()))
    return found


def ordinary(cell, store, steps, device=CPU):
    """The loop's own step over its own batches: what the resident one must equal."""
    step, found = step_of(cell, device), []
    dtype = step.parameters[0].dtype
    source = batches(cell, store, start=0, stop=steps, device=device, dtype=dtype)
    for number, batch in enumerate(source):
        for group in step.optimizer.param_groups:
            group["lr"] = learning_rate(cell.recipe, number, cell.recipe.steps)
        loss, norm = step(batch)
        found.append((loss.item(), norm.item()))
    return found, step.model


@pytest.mark.parametrize(
    "recipe",
    [
        {},
        {"precision": "bf16", "crop": "integer"},
        {"precision": "fp64", "clip_grad": 0.5},
    ],
)
def test_five_steps_have_the_losses_and_weights_of_the_ordinary_step(store, recipe):
    cell = changed(**recipe)
    expected, model = ordinary(cell, store, 5)
    whole = resident(cell, store)
    assert run(whole, 5) == expected
    found = dict(whole.step.model.named_parameters())
    assert all(torch.equal(p, found[name]) for name, p in model.named_parameters())


def test_patches_cut_in_one_go_give_the_bits_of_crops_cut_up_later(store):
    cell = changed(crop="integer")
    whole = resident(cell, store)
    whole._cuts_patches = True
    assert run(whole, 3) == ordinary(cell, store, 3)[0]


def test_micro_batches_give_the_same_update(store):
    cell = changed(precision="fp64")
    whole, parts = run(resident(cell, store), 3), run(resident(cell, store, micro=3), 3)
    np.testing.assert_allclose(parts, whole, rtol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
def test_an_update_that_is_not_finite_changes_nothing(store, device):
    whole = resident(changed(precision="bf16"), store, torch.device(device))
    # Enough steps for a replay where there is a graph.
    run(whole, 6)
    before = {name: value.clone() for name, value in state(whole).items()}
    whole._mean.fill_(float("nan"))
    [(loss, _)] = run(whole, 1, start=6)
    assert np.isnan(loss)
    assert all(torch.equal(before[name], value) for name, value in state(whole).items())
    assert (whole.step.failed.item(), whole.step.applied.item()) == (1, 6)


def test_a_capture_that_fails_is_said_in_one_line_and_the_step_is_done(store, monkeypatch):
    def fails(self):
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    monkeypatch.setattr(WholeStep, "_recorded", fails)
    said = []
    whole = resident(CELL, store, say=said.append)
    whole._capture = True
    assert run(whole, 5) == ordinary(CELL, store, 5)[0]
    assert said == [
        f"{CELL.id}: steps are not captured as a CUDA graph: operation not permitted when stream "
        "is capturing"
    ]


def test_a_processor_takes_the_ordinary_step(store):
    assert whole_step(CELL, store, step_of(CELL)) is None


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize(
    "recipe", [{}, {"precision": "bf16", "crop": "integer"}, {"clip_grad": 0.5}]
)
def test_replays_have_the_bits_of_the_uncaptured_body(store, recipe):
    cell, cuda = changed(**recipe), torch.device("cuda")
    prepare_cuda()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        plain, whole = resident(cell, store, cuda, capture=False), resident(cell, store, cuda)
        assert run(whole, 10) == run(plain, 10)
        assert whole.captured
        assert not plain.captured
        assert all(torch.equal(value, state(whole)[name]) for name, value in state(plain).items())
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.gpu
@needs_cuda
def test_a_convolutional_stem_is_captured_too(store):
    cell = dataclasses.replace(
        changed(precision="bf16"), model="vit_hybrid_tiny", resolution=96, patch_size=32
    )
    plain = resident(cell, store, torch.device("cuda"), capture=False)
    whole = resident(cell, store, torch.device("cuda"))
    # Pooling adds its gradients in any order, so the bits may differ.
    expected = [loss for loss, _ in run(plain, 6)]
    np.testing.assert_allclose([loss for loss, _ in run(whole, 6)], expected, rtol=1e-2)
    assert whole.captured


@pytest.mark.gpu
@needs_cuda
def test_losses_on_the_device_are_those_of_the_processor(store):
    here, _ = ordinary(CELL, store, 10)
    found = run(resident(CELL, store, torch.device("cuda")), 10)
    # Products are summed in another order, and differences grow with the steps.
    np.testing.assert_allclose([x for x, _ in found], [x for x, _ in here], rtol=1e-4)


@pytest.mark.gpu
@needs_cuda
def test_a_cell_trained_on_the_device_ends_where_the_processor_ends(store, tmp_path, monkeypatch):
    there = loop.pretrain(CELL, store, tmp_path / "there", log_every=5)
    monkeypatch.setenv("MAE_DEVICE", "cpu")
    here = loop.pretrain(CELL, store, tmp_path / "here", log_every=5)
    assert there.loss == pytest.approx(here.loss, rel=0.01)


def state(whole):
    found = {name: p.detach() for name, p in whole.step.model.named_parameters()}
    for name, parameter in whole.step.model.named_parameters():
        for key, value in whole.step.optimizer.state.get(parameter, {}).items():
            found[f"{name}.{key}"] = value
    return found
