"""A step with images on the device is the ordinary step, captured or not."""

import dataclasses

import numpy as np
import pytest
import torch

from mae_lib.images.store import build_store
from mae_lib.model.masking import patch_order
from mae_lib.study.definition import Cell, Data, Evaluation, Recipe, Source, Task
from mae_lib.training import loop
from mae_lib.training.batches import batches
from mae_lib.training.graph import WholeStep
from mae_lib.training.loop import build_model
from mae_lib.training.recipe import build_optimizer, learning_rate
from mae_lib.training.resident import HostDraws, device_order, resident_images

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
    model = build_model(cell).to(device)
    if cell.recipe.precision == "fp64":
        model = model.double()
    optimizer = build_optimizer(model, cell.recipe)
    images, why = resident_images(store, device)
    assert images is not None, why
    return WholeStep(cell, model, optimizer, images, **options)


def run(step, cell, store, steps):
    draw = HostDraws(cell, store)
    found = []
    for number in range(steps):
        loss, norm = step(draw(number), learning_rate(cell.recipe, number, cell.recipe.steps))
        found.append((loss.item(), norm.item()))
    return found


@pytest.mark.parametrize("tokens", [4, 16, 64, 100])
def test_the_order_drawn_on_the_device_is_the_hosts(tokens):
    items = np.array([0, 7, 7, 2**31 + 5, 2**40 + 3])
    epochs = np.array([0, 1, 2, 3, 70000])
    found = device_order(11, torch.from_numpy(items), torch.from_numpy(epochs), tokens)
    assert torch.equal(found, patch_order(11, items, epochs, tokens))


def ordinary(cell, store, steps, device=CPU):
    """The loop's own step over its own batches: what the resident one must equal."""
    model = build_model(cell).to(device)
    dtype = torch.float32
    if cell.recipe.precision == "fp64":
        model, dtype = model.double(), torch.float64
    optimizer = build_optimizer(model, cell.recipe)
    parameters = [p for p in model.parameters() if p.requires_grad]
    found = []
    source = batches(cell, store, start=0, stop=steps, device=device, dtype=dtype)
    for number, batch in enumerate(source):
        loop._set_rate(optimizer, learning_rate(cell.recipe, number, cell.recipe.steps))
        loss, norm = loop._step(model, optimizer, parameters, batch, cell.recipe.clip_grad)
        found.append((loss.item(), norm.item()))
    return found, model


@pytest.mark.parametrize(
    "recipe", [{}, {"precision": "bf16"}, {"precision": "fp64", "clip_grad": 0.5}]
)
def test_five_steps_have_the_losses_and_weights_of_the_ordinary_step(store, recipe):
    cell = changed(**recipe)
    expected, model = ordinary(cell, store, 5)
    step = resident(cell, store)
    assert run(step, cell, store, 5) == expected
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, dict(step.model.named_parameters())[name]), name
    assert step.total.item() == pytest.approx(sum(loss for loss, _ in expected), rel=1e-6)


def test_micro_batches_give_the_same_update(store):
    cell = changed(precision="fp64")
    whole = run(resident(cell, store), cell, store, 3)
    parts = run(resident(cell, store, micro_batch=3), cell, store, 3)
    # The loss is kept in fp32, the norm in fp64.
    np.testing.assert_allclose([x for x, _ in parts], [x for x, _ in whole], rtol=2.0**-23)
    np.testing.assert_allclose([x for _, x in parts], [x for _, x in whole], rtol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
def test_an_update_that_is_not_finite_changes_nothing(store, device):
    cell = changed(precision="bf16")
    step = resident(cell, store, torch.device(device))
    # Enough steps for a replay where there is a graph.
    run(step, cell, store, 6)
    before = {k: v.clone() for k, v in state(step).items()}
    good = step._mean.clone()
    step._mean.fill_(float("nan"))
    draw = HostDraws(cell, store)
    loss, _ = step(draw(6), 1e-3)
    assert not torch.isfinite(loss)
    assert all(torch.equal(before[name], now) for name, now in state(step).items())
    step._mean.copy_(good)
    loss, _ = step(draw(6), 1e-3)
    assert torch.isfinite(loss)
    assert not torch.equal(before["mask_token"], step.model.mask_token)


def test_a_capture_that_fails_is_said_in_one_line_and_the_step_is_done(store, monkeypatch):
    def fails(self):
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    monkeypatch.setattr(WholeStep, "_recorded", fails)
    said = []
    step = resident(CELL, store, say=said.append)
    found = run(step, CELL, store, 3)
    step._capture, draw = True, HostDraws(CELL, store)
    for number in (3, 4):
        loss, norm = step(draw(number), learning_rate(CELL.recipe, number, CELL.recipe.steps))
        found.append((loss.item(), norm.item()))
    assert found == run(resident(CELL, store), CELL, store, 5)
    assert said == [
        f"{CELL.id}: steps are not captured as a CUDA graph: operation not permitted when stream "
        "is capturing"
    ]


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_replays_have_the_bits_of_the_uncaptured_body(store, precision):
    cell, cuda = changed(precision=precision), torch.device("cuda")
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        plain = resident(cell, store, cuda, capture=False)
        expected = run(plain, cell, store, 10)
        step = resident(cell, store, cuda)
        assert run(step, cell, store, 10) == expected
        assert step.captured
        assert all(torch.equal(value, state(step)[name]) for name, value in state(plain).items())
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.gpu
@needs_cuda
def test_losses_on_the_device_are_those_of_the_processor(store):
    step = resident(CELL, store, torch.device("cuda"))
    here, _ = ordinary(CELL, store, 10)
    # Products are summed in another order, and differences grow with the steps.
    found = run(step, CELL, store, 10)
    np.testing.assert_allclose([x for x, _ in found], [x for x, _ in here], rtol=1e-4)


def state(step):
    found = {name: p.detach() for name, p in step.model.named_parameters()}
    for name, parameter in step.model.named_parameters():
        for key, value in step.optimizer.state.get(parameter, {}).items():
            found[f"{name}.{key}"] = value
    return found
