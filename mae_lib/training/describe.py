"""What a notebook says about one cell: its settings, what training did, what it predicts."""

import numpy as np
import pandas as pd
import torch

from mae_lib.cost import cost_of
from mae_lib.evaluation.intervals import standard_errors_apart
from mae_lib.kernels.crop import crop_resize, denormalise, normalise
from mae_lib.model.mae import MaskedAutoencoder
from mae_lib.model.masking import patch_order
from mae_lib.study.definition import Cell
from mae_lib.study.paths import RunPaths
from mae_lib.training.assess import open_images, trained_model
from mae_lib.training.loop import Trained
from mae_lib.training.metrics import read_metrics
from mae_lib.training.recipe import planned_steps


def describe_cell(cell: Cell) -> pd.DataFrame:
    """Return the settings of a cell and their consequences, one row each."""
    cost = cost_of(cell)
    steps = planned_steps(cell)
    cut = "" if steps == cell.recipe.steps else f" (of {cell.recipe.steps:,}: max_flops)"
    rows = {
        "model": cell.model,
        "parameters, encoder": f"{cost.params_encoder:,}",
        "parameters, with decoder": f"{cost.params_total:,}",
        "distinct images": f"{cell.images:,}",
        "pixels a side": str(cell.pixels),
        "patch": f"{cell.patch_size} pixels, {cell.tokens} patches",
        "visible patches": f"{cost.kept} of {cell.tokens}",
        "steps": f"{steps:,}{cut}",
        "batch": f"{cell.recipe.batch_size} images",
        "images seen": f"{steps * cell.recipe.batch_size:,}",
        "training FLOP": f"{cost.flops_per_image * steps * cell.recipe.batch_size:.3g}",
    }
    return pd.DataFrame({"setting": rows.keys(), "value": rows.values()})


def learned(cell: Cell, trained: Trained) -> str:
    """Say in three bullets what training did, from its own loss curve."""
    rows = read_metrics(trained.folder / "metrics.jsonl")
    first, last = rows[0]["loss"], rows[-1]["loss"]
    passes = trained.images_seen / cell.images
    return "\n".join(
        (
            f"- The loss fell from {first:.3g} to {last:.3g}; predicting each patch's mean "
            "scores 1.",
            f"- The run saw {trained.images_seen:,} images: {passes:.3g} passes over "
            f"{cell.images:,} distinct ones.",
            f"- It took {trained.wall_s:.0f} s on {trained.environment['threads']} thread(s) of "
            f"{trained.environment['processor']}.",
        )
    )


def what_it_knows(rows: pd.DataFrame) -> str:
    """Say for each task and protocol how far the features are above the better baseline."""
    bullets = []
    for row in rows.itertuples():
        random = max(getattr(row, name) for name in rows.columns if name.startswith("random"))
        best, name = max((row.pixels_top1, "raw pixels"), (random, "random initialisation"))
        apart = standard_errors_apart(row.top1, best, row.n_eval)
        bullets.append(
            f"- {row.task}, {row.protocol}: {100 * row.top1:.1f} % against {100 * best:.1f} % for "
            f"{name}, {abs(apart):.1f} standard errors {'above' if apart > 0 else 'below'} it."
        )
    return "\n".join(bullets)


def reconstructions(cell: Cell, trained: Trained, *, count: int) -> np.ndarray:
    """Return held-out images beside their masked and predicted versions: uint8 `[H, W, 3]`."""
    store = open_images(cell, RunPaths(trained.folder.parents[1]))
    images = store.task(cell.data.tasks[0].name).test_images[:count]
    return reconstruction_picture(cell, trained_model(cell, trained), images)


def reconstruction_picture(cell: Cell, model: MaskedAutoencoder, images: np.ndarray) -> np.ndarray:
    """Return stored images `[n, S, S, 3]`, a row each: as given, their masked patches greyed out,
    and those predicted in grey levels with the visible ones pasted: uint8 `[H, W, 3]`."""
    images, count = torch.from_numpy(np.array(images)), len(images)
    side = images.shape[1]
    boxes = torch.tensor([[0, 0, side, side]] * count)
    pixels = crop_resize(images, boxes, torch.zeros(count, dtype=torch.bool), cell.pixels)
    order = patch_order(cell.seed, np.arange(count), 0, cell.tokens)
    with torch.no_grad():
        predicted = denormalise(model.reconstruct(normalise(pixels), order))
    masked = _grey_out(pixels, order, model.keep, cell.patch_size)
    columns = (pixels, masked, predicted)
    rows = torch.cat([torch.cat(list(column), dim=0) for column in columns], dim=1)
    return _enlarge(rows.clamp(0, 255).round().to(torch.uint8).numpy(), to_width=384)


def _grey_out(pixels, order, keep: int, patch: int):
    count, side = pixels.shape[:2]
    grid = side // patch
    hidden = torch.zeros(count, grid * grid, dtype=torch.bool)
    hidden.scatter_(1, order[:, keep:], True)
    hidden = hidden.view(count, grid, grid).repeat_interleave(patch, 1).repeat_interleave(patch, 2)
    return torch.where(hidden[..., None], torch.full_like(pixels, 160.0), pixels)


def _enlarge(image: np.ndarray, *, to_width: int) -> np.ndarray:
    """Repeat pixels, so that a small picture shows its true pixels."""
    factor = max(1, to_width // image.shape[1])
    return image.repeat(factor, 0).repeat(factor, 1)
