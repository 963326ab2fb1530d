"""A rival is taken when it clearly pays, once for a processor, and a damaged cache is made anew."""

import sys
import time

import pytest

from mae_lib.errors import MaeError
from mae_lib.kernels import calibrate, choose
from mae_lib.records.locks import is_held


def waits(seconds: float):
    return lambda: time.sleep(seconds)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MAE_CACHE", str(tmp_path))
    monkeypatch.delenv("MAE_KERNELS", raising=False)
    monkeypatch.setenv("MAE_DEVICE", "cpu")
    calibrate.calibration.cache_clear()
    yield tmp_path
    calibrate.calibration.cache_clear()


def a_trial(taken: str) -> calibrate.Trial:
    ratio = 2.0 if taken == "onednn" else 0.9
    return calibrate.Trial("linear", "torch", "onednn", ratio, ratio, ratio, taken)


def the_rest() -> tuple[calibrate.Trial, ...]:
    return (
        calibrate.Trial("attention_fp32", "fused", "products", 0.9, 0.9, 0.9, "fused"),
        calibrate.Trial("attention_bf16", "products", "fused", 0.2, 0.2, 0.2, "products"),
        calibrate.Trial("precision", "fp32", "bf16", 3.0, 3.0, 3.0, "bf16", advice=True),
    )


def test_a_rival_must_win_by_the_margin_on_every_shape(monkeypatch):
    monkeypatch.setattr(calibrate, "_INNER_SECONDS", 0.0)
    fast, slow = waits(0.001), waits(0.003)
    assert calibrate._rival("x", "a", "b", [slow, slow], [fast, fast]).taken == "b"
    assert calibrate._rival("x", "a", "b", [slow, fast], [fast, fast]).taken == "a"
    lost = calibrate._rival("x", "a", "b", [fast], [slow])
    assert lost.taken == "a"
    assert lost.low <= lost.ratio <= lost.high < 1


@pytest.mark.parametrize("winner", ["torch", "onednn"])
def test_what_was_measured_is_taken_and_measured_once(cache, monkeypatch, winner):
    calls = []

    def measured(threads: int):
        calls.append(threads)
        return (a_trial(winner), *the_rest())

    monkeypatch.setattr(calibrate, "measure_apart", measured)
    assert choose.best()["linear"] == winner
    assert "precision" not in choose.best()
    calibrate.calibration.cache_clear()
    assert choose.best()["linear"] == winner
    assert len(calls) == 1
    with choose.using(choose.best()):
        assert choose.linear_now() is choose.LINEAR[winner]


def test_a_damaged_cache_is_measured_again(cache, monkeypatch):
    monkeypatch.setattr(calibrate, "measure_apart", lambda threads: (a_trial("torch"), *the_rest()))
    calibrate.calibration(2)
    path = calibrate.cache_path(2)
    path.write_text(path.read_text().replace("0.9", "9.0"))
    calibrate.calibration.cache_clear()
    assert calibrate.calibration(2)[0].ratio == 0.9


def test_a_cache_that_cannot_be_written_costs_nothing_else(cache, monkeypatch):
    (cache / "file").write_text("")
    monkeypatch.setenv("MAE_CACHE", str(cache / "file"))
    monkeypatch.setattr(calibrate, "measure_apart", lambda threads: (a_trial("torch"), *the_rest()))
    assert choose.best()["linear"] == "torch"


def test_where_numba_cannot_be_imported_torch_runs_the_blocks(cache, monkeypatch):
    """It is installed, but refuses the numpy beside it."""
    monkeypatch.setitem(sys.modules, "mae_lib.kernels.stack_native", None)
    assert calibrate._native_stack() is None
    monkeypatch.setattr(calibrate, "measure_apart", lambda threads: (a_trial("torch"), *the_rest()))
    assert choose.best()["blocks_bf16"] == "torch"


def test_a_measuring_process_that_fails_is_one_line(monkeypatch):
    monkeypatch.setattr(calibrate.sys, "executable", "/bin/false")
    with pytest.raises(MaeError, match="the measuring process failed, got 'no output'"):
        calibrate.measure_apart(1)


def test_the_real_measurement_names_every_choice_with_its_band():
    trials = {trial.choice: trial for trial in calibrate.calibration(1)}
    assert set(calibrate.DEFAULTS) | {"memory", "precision"} == set(trials)
    for trial in trials.values():
        assert 0 < trial.low <= trial.ratio <= trial.high
        assert trial.taken in (trial.default, trial.rival)
        assert trial.taken == trial.default or trial.ratio >= 1


def test_two_who_ask_at_once_measure_once(cache, monkeypatch):
    calls = []

    def measured(threads: int):
        calls.append(threads)
        # Meanwhile another process asks: it waits, and then finds what was kept.
        assert is_held(calibrate.cache_path(2).with_suffix(".lock"))
        return (a_trial("torch"), *the_rest())

    monkeypatch.setattr(calibrate, "measure_apart", measured)
    assert calibrate.calibration(2) == calibrate.calibration.__wrapped__(2)
    assert calls == [2]


def test_a_home_that_cannot_be_written_is_measured_anew_and_nothing_else(monkeypatch):
    monkeypatch.setenv("MAE_CACHE", "/proc/nowhere")
    monkeypatch.setattr(calibrate, "measure_apart", lambda threads: (a_trial("torch"), *the_rest()))
    assert calibrate.calibration.__wrapped__(2)[0].taken == "torch"
