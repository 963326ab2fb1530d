"""k-NN accuracy while a training runs: what the features know already, every few epochs."""

import numpy as np
import torch

from mae_lib.evaluation.evaluate import score_columns
from mae_lib.evaluation.features import extract
from mae_lib.evaluation.neighbours import nearest_neighbours
from mae_lib.images.store import Store
from mae_lib.model.mae import MaskedAutoencoder
from mae_lib.study.definition import Cell


def knn_is_due(cell: Cell, step: int, *, every: int) -> bool:
    """Whether step `step` (from 1) ends a multiple of `every` epochs over the cell's images."""
    if every == 0:
        return False
    period, batch = every * cell.images, cell.recipe.batch_size
    return step * batch // period > (step - 1) * batch // period


def knn_row(cell: Cell, store: Store, model: MaskedAutoencoder, step: int) -> dict:
    """Score the features of the first task by k-NN; the training's numbers are not touched.

    The protocol is that of evaluation, on the test part of the task: a curve to watch, and nothing
    to choose a stopping point by.
    """
    task, where = store.task(cell.data.tasks[0].name), next(model.parameters())

    def encode(images: torch.Tensor) -> torch.Tensor:
        return model.encode(images.to(where.device, where.dtype))

    model.eval()
    train, test = (
        extract(encode, images, pixels=cell.pixels).pooled
        for images in (task.train_images, task.test_images)
    )
    model.train()
    scored = nearest_neighbours(
        train,
        np.asarray(task.train_labels),
        test,
        np.asarray(task.test_labels),
        neighbours=cell.evaluation.neighbours,
        temperature=cell.evaluation.temperature,
    )
    columns = score_columns(scored, task)
    epoch = step * cell.recipe.batch_size / cell.images
    return {
        "step": step,
        "epoch": round(epoch, 3),
        "task": cell.data.tasks[0].name,
        "protocol": "knn",
    } | {name: columns[name] for name in ("top1", "top1_low", "top1_high", "n_eval", "chance")}
