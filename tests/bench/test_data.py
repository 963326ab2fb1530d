"""The benchmark of the data path runs, and its numbers are of what it says; no speed is asserted."""

import contextlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from mae_lib.bench import data, training_data
from mae_lib.bench.data import bench_data, project, timed
from mae_lib.bench.jpegs import SIZE, drawn, encode, photographs


def test_the_data_path_is_measured_end_to_end(monkeypatch):
    for module, name, small in (
        (data, "READ_BATCH", 16), (data, "READ_COUNT", 2),
        (training_data, "MODEL", "vit_pico"), (training_data, "BATCH", 4),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, small)
    monkeypatch.setenv("MAE_KERNELS", "reference")
    # Pools are tested where stores are built; here their start would be most of the time.
    monkeypatch.setattr(
        data, "started", lambda *_: contextlib.nullcontext(SimpleNamespace(map=map))
    )
    found = bench_data(images=12, stored=80, rounds=1, threads=1, dtype="fp32")
    assert json.loads(json.dumps(found)) == found
    pack = found["pack"]
    assert set(pack["images_per_s"]) >= {"fast", "pillow", "plain loop"}
    assert pack["error"]["mean"] < 0.1
    assert set(found["scale"]["images_per_s"]) == {"1", "2"}
    assert found["projection"]["seconds_by_one_core_rate"] > 0
    assert set(found["read"]["images_per_s"]) == {"store", "loader"}
    assert all(row["peer"].endswith("JPEG folder") for row in found["train"])
    assert found["train"][0]["ours_images_per_s"] > 0


def test_the_command_refuses_what_it_cannot_measure():
    from mae_lib.cli.main import _register, app

    _register()
    found = CliRunner().invoke(app, ["bench", "data", "--part", "pak"])
    assert "part: unknown name, got 'pak'" in str(found.exception)


def test_rounds_turn_and_every_contender_is_timed():
    order = []
    seconds = timed({n: lambda n=n: order.append(n) for n in "abc"}, rounds=3)
    assert order == list("abc") + list("abc") + list("bca") + list("cab")
    assert all(len(values) == 3 for values in seconds.values())


def test_the_projection_is_arithmetic_on_what_was_measured():
    found = project({"images_per_s": {"fast": 1000.0}}, {"ratio": {"median": 2.0}})
    assert found["seconds_by_one_core_rate"] == found["seconds_with_measured_scaling"] == 12.5
    slower = project({"images_per_s": {"fast": 1000.0}}, {"ratio": {"median": 1.8}})
    assert slower["seconds_with_measured_scaling"] == pytest.approx(12.5 / 0.9**4, abs=0.1)


def test_pictures_are_as_large_and_rough_as_photographs(monkeypatch):
    monkeypatch.delenv("MAE_DATA", raising=False)
    jpegs, origin = photographs(4)
    assert origin == "drawn"
    assert len({bytes(j) for j in jpegs}) == 4
    assert 15_000 < np.mean([len(j) for j in jpegs]) < 150_000
    assert drawn(0, SIZE).size == SIZE
    assert encode(drawn(1, SIZE)) == jpegs[1]
