"""The step bench times whole training steps in turn, and says in one line what it cannot run."""

import importlib.util
import json
import os
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from mae_lib.bench import step as bench
from mae_lib.bench.apart import apart
from mae_lib.cli.main import app
from mae_lib.errors import KernelError, MaeError
from mae_lib.kernels import choose

TINY = {"model": "vit_pico", "patch_size": 4, "resolution": 16, "batch": 2}
KEYS = {"model", "dtype", "ours_images_per_s", "peer", "peer_images_per_s", "ratio"}


def test_every_form_of_the_peer_gets_a_row_with_its_band():
    rows = bench.bench_step(**TINY, against="textbook", rounds=3, threads=1)
    assert [row["peer"] for row in rows] == ["textbook"]
    assert rows[0].keys() >= KEYS
    assert rows[0]["ratio_p20"] <= rows[0]["ratio"] <= rows[0]["ratio_p80"]
    assert rows[0]["versions"]["torch"]
    json.dumps(rows)


@pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)
@pytest.mark.parametrize(("dtype", "forms"), [("fp32", 3), ("bf16", 2)])
def test_transformers_is_timed_as_it_comes_and_tuned(dtype, forms):
    rows = bench.bench_step(**TINY, dtype=dtype, rounds=1, threads=1)
    assert rows[0]["peer"] == "transformers"
    assert rows[0]["peer_settings"] == "as it comes"
    assert len({row["peer_settings"] for row in rows}) == forms


def test_rounds_interleave_and_each_contender_begins_in_turn():
    calls: list[int] = []
    steps = [lambda i=i: calls.append(i) for i in range(3)]
    seconds = bench.interleave(steps, rounds=4)
    assert seconds.shape == (3, 4)
    measured = calls[3 * bench.WARMUP_ROUNDS :]
    assert measured == [0, 1, 2, 1, 2, 0, 2, 0, 1, 0, 1, 2]


def broken_step():
    raise RuntimeError("no such weights")


def dying_step():
    return lambda: os._exit(9)


def test_a_contender_that_fails_is_named_in_one_line():
    said = "stopped: RuntimeError: no such weights"
    with pytest.raises(KernelError, match=said), apart([broken_step], threads=1):
        pass
    with (
        pytest.raises(KernelError, match="its process died"),
        apart([dying_step], threads=1) as (run,),
    ):
        run()


def test_the_ratio_is_the_median_of_paired_ratios():
    contender = bench.Contender("peer", "as it comes", lambda: None)
    # Load that hits one round hits both: the pairs are steady where the single times are not.
    row = bench._compare(8, contender, np.array([1.0, 10.0, 1.0]), np.array([2.0, 20.0, 2.0]))
    assert row["ratio"] == row["ratio_p20"] == row["ratio_p80"] == 2
    assert row["ours_images_per_s"] == 8


def test_our_step_trains():
    setting = bench.Setting(bench.model_shape("vit_pico"), 16, 4, 2)
    seen = []
    original = bench.build_optimizer

    def watch(model, recipe):
        seen.append(model)
        return original(model, recipe)

    bench.build_optimizer = watch
    try:
        step = bench.our_step(setting, "fp32", choose.REFERENCE).build()
    finally:
        bench.build_optimizer = original
    before = {name: p.detach().clone() for name, p in seen[0].named_parameters()}
    step()
    still = [n for n, p in seen[0].named_parameters() if p.requires_grad and (p == before[n]).all()]
    assert still == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dtype": "fp8"}, "dtype: one of fp32, bf16, got 'fp8'"),
        ({"against": "nobody"}, "against: one of transformers, textbook, got 'nobody'"),
        ({"resolution": 18}, "a patch that divides the resolution"),
        ({"model": "vit_pcio"}, "vit_pico"),
    ],
)
def test_what_cannot_be_timed_is_said_in_one_line(change, said):
    with pytest.raises(MaeError) as caught:
        bench.bench_step(**TINY | change)
    assert said in str(caught.value)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_a_missing_peer_names_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setattr(bench.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MaeError, match=r'pip install "mae-lib\[peers\]"'):
        bench.bench_step(**TINY)


def test_the_command_prints_a_json_list():
    from mae_lib.cli import bench as command

    if not any(group.name == "bench" for group in app.registered_groups):
        command.register(app)
    words = ["bench", "step", "--against", "textbook", "--model", "vit_pico", "--patch-size", "4"]
    words += ["--resolution", "16", "--batch", "2", "--rounds", "1", "--threads", "1", "--json"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert rows[0].keys() >= KEYS
