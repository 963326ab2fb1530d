"""Streamed batches are those of the store in memory, and its thread ends with them."""

import threading

import numpy as np
import pytest
import torch

from mae_lib.images.store import build_store
from mae_lib.images.streaming import (
    AHEAD,
    image_batches,
    needs_streaming,
    prefetched,
    resident,
    streamed,
)
from mae_lib.study.definition import Cell, Data, Evaluation, Recipe, Source, Task

CPU = torch.device("cpu")
DATA = Data(
    "procedural",
    300,
    8,
    0,
    (Source("objects", 1.0),),
    (Task("t", train_images=50, test_images=50),),
)


CELL = Cell("vit_pico", 200, 8, 2, 0.8, 3, Recipe(batch_size=8), Evaluation(), DATA)


def batches(count=20):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 300, 7 if step == count - 1 else 16) for step in range(count)]


def threads():
    return [t for t in threading.enumerate() if t.name == "images-ahead"]


@pytest.fixture
def images(tmp_path):
    return build_store(DATA, tmp_path / "store", data_root=None).images


def test_streamed_batches_equal_those_in_memory(images):
    held = [batch.clone() for batch in resident(images, batches(), device=CPU)]
    read = [batch.clone() for batch in streamed(images, batches(), device=CPU)]
    assert len(held) == len(read) == 20
    for one, two, items in zip(held, read, batches(), strict=True):
        assert torch.equal(one, two)
        assert np.array_equal(one.numpy(), images[items])


def test_a_store_larger_than_its_share_of_memory_is_streamed(images):
    assert needs_streaming(images.nbytes, CPU, share=1e-9)
    assert not needs_streaming(images.nbytes, CPU)
    small = image_batches(images, batches(), device=CPU, share=1e-9)
    first = next(small)
    assert threads()
    assert torch.equal(first, torch.from_numpy(images[batches()[0]]))
    small.close()
    assert not threads()


def test_memory_stays_at_a_few_buffers(images):
    places = {batch.data_ptr() for batch in streamed(images, batches()[:-1], device=CPU)}
    assert len(places) == AHEAD + 2


def test_what_goes_wrong_while_reading_ahead_is_raised_in_its_place(images):
    def failing():
        yield np.arange(4)
        raise OSError("the disk is gone")

    found = streamed(images, failing(), device=CPU)
    assert len(next(found)) == 4
    with pytest.raises(OSError, match="the disk is gone"):
        next(found)
    assert not threads()


def test_prefetching_keeps_order_and_stops_when_left():
    assert list(prefetched(range(50))) == list(range(50))
    endless = prefetched(iter(int, 1))
    assert next(endless) == 0
    endless.close()
    assert not threads()


def test_training_sees_the_same_batches_of_a_store_that_is_streamed(tmp_path, monkeypatch):
    from mae_lib.training import batches as training

    store = build_store(DATA, tmp_path / "store", data_root=None)
    given = {"start": 3, "stop": 8, "device": CPU, "dtype": torch.float32}
    plain = list(training.batches(CELL, store, **given))
    asked = []
    monkeypatch.setattr(training, "needs_streaming", lambda *size: asked.append(size) or True)
    streamed_ = list(training.batches(CELL, store, **given))
    assert asked == [(store.images.nbytes, CPU)]
    for one, two in zip(plain, streamed_, strict=True):
        assert torch.equal(one.pixels, two.pixels)
        assert torch.equal(one.order, two.order)
    assert not threads()


def test_for_a_cuda_device_the_thread_pins_all_that_travels(tmp_path, monkeypatch):
    from mae_lib.training import batches as training

    store = build_store(DATA, tmp_path / "store", data_root=None)
    given = {"start": 3, "stop": 8, "dtype": torch.float32}
    plain = list(training.batches(CELL, store, device=CPU, **given))
    where = []

    def pinned(tensor):
        where.append(threading.current_thread().name)
        return tensor.clone()

    monkeypatch.setattr(torch.Tensor, "pin_memory", pinned)
    monkeypatch.setattr(training, "needs_streaming", lambda *size: True)
    # No such device here: what would be sent stays.
    monkeypatch.setattr(training, "_sent", lambda tensor, device: tensor)
    streamed_ = list(training.batches(CELL, store, device=torch.device("cuda"), **given))
    assert where == ["images-ahead"] * 4 * len(plain)
    for one, two in zip(plain, streamed_, strict=True):
        assert torch.equal(one.pixels, two.pixels)
        assert torch.equal(one.order, two.order)
