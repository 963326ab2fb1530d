"""Any published row can be made again: the smallest rehearsed cell, trained here."""

import numpy as np
import pytest

from mae_lib.evaluation.evaluate import evaluate
from mae_lib.images.store import build_store
from mae_lib.records.sidecar import read_table
from mae_lib.study.load import load_study
from mae_lib.study.paths import root
from mae_lib.training.assess import trained_model
from mae_lib.training.loop import pretrain

pytestmark = pytest.mark.pocket


def test_the_smallest_published_cell_is_trained_again_within_the_noise_of_seeds(
    photographs, tmp_path, monkeypatch
):
    monkeypatch.setenv("MAE_THREADS", "1")
    study = load_study("measured-rehearsal")
    runs = read_table(root() / "results" / study.name / "runs.csv")
    smallest = runs.sort_values(["params_encoder", "images", "seed"]).iloc[0]
    cell = study.cell(smallest.cell)
    store = build_store(study.data, tmp_path / "store", data_root=photographs, workers=1)
    trained = pretrain(cell, store, tmp_path / "cell")
    assert trained.loss == pytest.approx(smallest.loss, rel=0.01)
    tasks = {task.name: store.task(task.name) for task in study.data.tasks}
    encode = trained_model(cell, trained).encode
    again = evaluate(encode, tasks, cell.evaluation, pixels=cell.pixels)
    published = runs[runs.cell == cell.id].set_index("protocol")
    seeds = runs[(runs.model == cell.model) & (runs.images == cell.images)]
    assert seeds.seed.nunique() > 1, "a noise of seeds needs seeds"
    for row in again:
        before = published.loc[row["protocol"]]
        # Two standard errors of a difference between two proportions over the same test images.
        noise = 2 * np.sqrt(2 * before.top1 * (1 - before.top1) / before.n_eval)
        assert abs(row["top1"] - before.top1) < noise
