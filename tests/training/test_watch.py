"""What a user sees of a run while it trains, none of which moves a bit of it."""

import dataclasses
import sys
import time

import pytest
import torch
from tiny_cell import CELL, DATA, losses, weights

from mae_lib.cost import cost_of
from mae_lib.errors import MaeError
from mae_lib.evaluation.evaluate import evaluate
from mae_lib.images.store import build_store
from mae_lib.model.masking import patch_order
from mae_lib.study.execution import Execution
from mae_lib.training import pace
from mae_lib.training.anchor_loss import predict_mean_loss
from mae_lib.training.assess import trained_model
from mae_lib.training.batches import Batch, batches
from mae_lib.training.loop import build_model, pretrain
from mae_lib.training.metrics import KNN_KEYS, read_header, read_metrics
from mae_lib.training.monitor import knn_is_due
from mae_lib.training.pace import Pace, gemm_ceiling

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAE_THREADS", "1")
        patch.setenv("MAE_DEVICE", "cpu")
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return build_store(DATA, tmp_path_factory.mktemp("store") / "s", data_root=None)


@pytest.fixture(scope="module")
def calm(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("calm")
    return pretrain(CELL, store, folder, log_every=5)


@pytest.fixture(scope="module")
def watched(store, tmp_path_factory):
    """The same cell with k-NN every two epochs of 50 images and TensorBoard events."""
    folder = tmp_path_factory.mktemp("watched")
    execution = Execution(knn_every=2, tensorboard=True)
    return pretrain(CELL, store, folder, execution=execution, log_every=5)


def test_watching_changes_no_bit_of_the_training(calm, watched):
    assert weights(watched.folder) == weights(calm.folder)
    assert losses(watched.folder) == losses(calm.folder)


def test_the_knn_curve_has_a_row_every_two_epochs(watched):
    rows = read_metrics(watched.folder / "knn.jsonl", KNN_KEYS)
    # 192 images of 50: a multiple of 100 is passed in step 13.
    assert [(row["step"], row["epoch"]) for row in rows] == [(13, 2.08)]
    assert not knn_is_due(CELL, 13, every=0)


def test_the_scores_of_the_last_step_are_those_of_evaluation(store, tmp_path, calm):
    # 24 steps of 8 images: with 48 distinct images the last step ends the fourth epoch.
    cell = dataclasses.replace(CELL, images=48)
    trained = pretrain(cell, store, tmp_path, execution=Execution(knn_every=4), log_every=5)
    row = read_metrics(tmp_path / "knn.jsonl", KNN_KEYS)[-1]
    assert row["step"] == 24
    tasks = {"shapes": store.task("shapes")}
    scores = evaluate(trained_model(cell, trained).encode, tasks, cell.evaluation, pixels=16)
    expected = next(s for s in scores if s["protocol"] == "knn")
    # One image may fall to the other side, as training's kernels are not evaluation's.
    assert abs(row["top1"] - expected["top1"]) <= 1 / row["n_eval"]


def test_tensorboard_reads_the_curves(watched):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(watched.folder / "events"))
    events.Reload()
    written = [(e.step, e.value) for e in events.Scalars("training/loss")]
    rows = read_metrics(watched.folder / "metrics.jsonl")
    assert [step for step, _ in written] == [row["step"] for row in rows]
    assert [v for _, v in written] == pytest.approx([row["loss"] for row in rows])
    assert [e.step for e in events.Scalars("knn/shapes")] == [13]


def test_tensorboard_that_is_not_installed_is_one_line_before_any_work(
    store, tmp_path, monkeypatch
):
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MaeError, match="the package tensorboard is missing; install") as caught:
        pretrain(CELL, store, tmp_path, execution=Execution(tensorboard=True))
    assert caught.value.exit_code == 2
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_row_says_what_bounds_the_run_and_how_near_it_is_to_the_ceiling(calm):
    header = read_header(calm.folder / "metrics.jsonl")
    assert header["steps"] == 24
    assert 0.9 < header["predict_mean_loss"] < 1
    for row in read_metrics(calm.folder / "metrics.jsonl"):
        assert row["bound"] in ("data", "compute")
        assert row["data_share"] + row["compute_share"] == pytest.approx(1, abs=2e-4)
        assert row["launch_share"] == 0
        # The counted FLOPs at the row's own speed, which holds the time of writes as well.
        flops = cost_of(CELL).flops_per_image * row["images_per_s"]
        assert row["mfu"] >= 0.9 * flops / header["gemm_flops_per_s"] - 1e-4
        assert 0 < row["mfu"] < 1


def slow_batches():
    for _ in range(2):
        deadline = time.perf_counter() + 0.01
        while time.perf_counter() < deadline:
            pass
        yield None


def test_the_bound_is_told_from_times_alone():
    meter = Pace(CPU, flops_per_image=1e6, ceiling=1e9)
    for _ in meter.waiting(slow_batches()):
        meter.worked(0.001)
    assert meter.row(100)["bound"] == "data"
    for _ in meter.waiting(iter(range(3))):
        meter.worked(0.1)
    row = meter.row(100)
    assert (row["bound"], row["launch_share"]) == ("compute", 0)
    # On a GPU steps that are issued as slowly as they run wait for no device at the log line.
    meter = Pace(GPU, flops_per_image=1e6, ceiling=1e9)
    for _ in range(10):
        meter.worked(0.1)
    meter.worked(0.001, waited=True)
    row = meter.row(100)
    assert row["bound"] == "launch"
    assert row["mfu"] == pytest.approx(1e8 / 1.001 / 1e9, rel=1e-3)
    # A full queue: the first step returns at once, later ones when the device has room.
    for number in range(10):
        meter.worked(0.004 if number == 0 else 0.1)
    meter.worked(0.05, waited=True)
    row = meter.row(100)
    assert row["bound"] == "compute"
    assert row["launch_share"] == pytest.approx(0.04 / 0.954, abs=1e-3)


def test_the_ceiling_is_the_fastest_of_some_products_and_is_measured_once(monkeypatch):
    rate = gemm_ceiling(CPU, torch.float32)
    assert rate > 1e8
    assert gemm_ceiling(CPU, torch.float32) == rate
    seconds = iter([9.0, 0.05, 0.02, 0.04])
    monkeypatch.setattr(pace, "_timed", lambda *_: next(seconds))
    pace._ceiling.cache_clear()
    # The first one warms up; the others fill a tenth of a second.
    assert gemm_ceiling(CPU, torch.float32) == pytest.approx(2 * 1024**3 / 0.02)
    pace._ceiling.cache_clear()


def test_predicting_the_mean_costs_one_less_the_bias_of_the_variance(store):
    model = build_model(CELL)
    pixels = torch.randn(32, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    batch = Batch(pixels, patch_order(0, torch.arange(32).numpy(), 0, 16))
    assert predict_mean_loss(model, batch) == pytest.approx(1 - 1 / 48, abs=1e-5)
    flat = Batch(torch.ones(32, 16, 16, 3), batch.order)
    assert predict_mean_loss(model, flat) < 1e-6
    model.norm_pix = False
    assert predict_mean_loss(model, batch) == pytest.approx(1, abs=0.02)
    real = next(batches(CELL, store, start=0, stop=1, device=CPU, dtype=torch.float32))
    zero = dataclasses.replace(CELL.recipe, norm_pix=True)
    normed = build_model(dataclasses.replace(CELL, recipe=zero))
    # A model whose head is 0 predicts each patch's mean: its loss is that number exactly.
    torch.nn.init.zeros_(normed.decoder_pred.weight)
    loss = normed(real.pixels, real.order).item()
    assert predict_mean_loss(normed, real) == pytest.approx(loss, rel=1e-6)


def test_workers_hand_over_the_same_batches_in_order(store):
    drawn = [
        list(batches(CELL, store, start=3, stop=9, device=CPU, dtype=torch.float32, workers=n))
        for n in (0, 1, 2)
    ]
    for several in drawn[1:]:
        assert len(several) == 6
        for ours, theirs in zip(drawn[0], several, strict=True):
            assert torch.equal(ours.pixels, theirs.pixels)
            assert torch.equal(ours.order, theirs.order)
