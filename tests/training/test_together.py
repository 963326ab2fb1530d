"""Cells trained at once are the cells trained alone."""

import dataclasses

from mae_lib.images.store import build_store
from mae_lib.training.loop import pretrain
from mae_lib.training.together import Job, train_together

from tiny_cell import CELL, DATA, weights  # isort: skip


def test_cells_trained_at_once_have_the_bits_of_cells_trained_alone(tmp_path, monkeypatch):
    # The plain ways: which is faster here would be timed first, in every process.
    for name, value in (("DEVICE", "cpu"), ("THREADS", "1"), ("KERNELS", "reference")):
        monkeypatch.setenv(f"MAE_{name}", value)
    store = build_store(DATA, tmp_path / "store", data_root=None)
    cells = [dataclasses.replace(CELL, seed=seed) for seed in (0, 1)]
    jobs = [Job(cell, store.folder, tmp_path / f"at-once-{cell.seed}") for cell in cells]
    found = {job.cell.seed: trained for job, trained in train_together(jobs, at_once=2)}
    for cell in cells:
        alone = pretrain(cell, store, tmp_path / f"alone-{cell.seed}")
        assert found[cell.seed].loss == alone.loss
        assert weights(found[cell.seed].folder) == weights(alone.folder)
