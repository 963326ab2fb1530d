"""What a score stands beside: raw pixels, and the same encoder at random initialisations.

They depend on encoder shape, resolution and task alone, so the cells of a study share them: the
first to ask computes them, the others wait and read.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from mae_lib.errors import RecordError
from mae_lib.evaluation.evaluate import score, score_columns
from mae_lib.evaluation.features import PIXEL_SIDE, Features, encoder_on, extract, raw_pixels
from mae_lib.images.store import TaskImages
from mae_lib.model.mae import MaskedAutoencoder, compute_dtype, residual_dtype
from mae_lib.model.masking import keep_count
from mae_lib.records.locks import locked
from mae_lib.records.quarantine import quarantine
from mae_lib.records.sealed import read_sealed, write_sealed
from mae_lib.study.definition import Cell, digest_of, settings_of
from mae_lib.study.models import model_shape

# Far from the seeds of cells, so that a baseline is no cell's own starting point.
_FIRST_SEED = 1_000_000
_HOST = torch.device("cpu")


def ensure_baselines(
    cell: Cell,
    tasks: Mapping[str, TaskImages],
    folder: Path,
    *,
    where: torch.device = _HOST,
) -> dict[tuple[str, str], dict]:
    """Return for each (task, protocol) the columns `pixels_top1` and `random<k>_top1`."""
    common = {"evaluation": settings_of(cell.evaluation), "data": cell.data.digest}
    pixels = pixel_baseline(cell, tasks, folder)
    encoder = {
        "model": cell.model,
        "pixels": cell.pixels,
        "patch_size": cell.patch_size,
        "precision": cell.recipe.precision,
    }
    if cell.recipe.residual != "compute":
        encoder["residual"] = cell.recipe.residual
    name = f"random-{cell.model}-p{cell.patch_size}-r{cell.resolution}"
    random = _shared(folder, name, common | encoder, lambda: _random_weights(cell, tasks, where))
    beside: dict[tuple[str, str], dict] = {}
    for row in (*pixels, *random):
        columns = beside.setdefault((row["task"], row["protocol"]), {})
        columns[row["column"]] = row["top1"]
    return beside


def pixel_baseline(cell: Cell, tasks: Mapping[str, TaskImages], folder: Path) -> list[dict]:
    """Return the rows of the raw pixels at a cell's side, at most 32: no device has a say in them."""
    side = min(cell.pixels, PIXEL_SIDE)
    about = {"evaluation": settings_of(cell.evaluation), "data": cell.data.digest, "side": side}
    return _shared(folder, f"pixels-{side}", about, lambda: _raw_pixels(cell, tasks))


def _shared(folder: Path, name: str, about: dict, compute: Callable[[], list[dict]]) -> list[dict]:
    """Read rows that another cell has computed from the same settings, or compute and keep them."""
    path = folder / f"{name}-{digest_of(about)}.json"
    with locked(path.with_suffix(".lock")):
        if path.exists():
            try:
                return read_sealed(path)["rows"]
            except RecordError:
                quarantine(path)
        rows = compute()
        write_sealed(path, {"about": about, "rows": rows})
        return rows


def _raw_pixels(cell: Cell, tasks: Mapping[str, TaskImages]) -> list[dict]:
    rows = []
    for name, task in tasks.items():
        parts = (raw_pixels(part, pixels=cell.pixels) for part in _parts(task))
        features = [Features(flat, flat) for flat in parts]
        rows += _rows(cell, name, task, features, "pixels_top1")
    return rows


def _random_weights(cell: Cell, tasks: Mapping[str, TaskImages], where: torch.device) -> list[dict]:
    rows = []
    for number in range(cell.evaluation.random_seeds):
        encoder = _random_encoder(cell, _FIRST_SEED + number).to(where)
        encode = encoder_on(encoder.encode, where)
        for name, task in tasks.items():
            features = [extract(encode, part, pixels=cell.pixels) for part in _parts(task)]
            rows += _rows(cell, name, task, features, f"random{number}_top1")
    return rows


def _parts(task: TaskImages):
    return task.train_images, task.test_images


def _rows(cell: Cell, name: str, task: TaskImages, features, column: str) -> list[dict]:
    return [
        {"task": name, "protocol": protocol, "column": column}
        | {"top1": score_columns(scored, task)["top1"]}
        for protocol, scored in score(*features, task, cell.evaluation).items()
    ]


def _random_encoder(cell: Cell, seed: int) -> MaskedAutoencoder:
    model = MaskedAutoencoder(
        model_shape(cell.model),
        pixels=cell.pixels,
        patch_size=cell.patch_size,
        keep=keep_count(cell.tokens, cell.mask_ratio, rule=cell.recipe.keep_rule),
        compute_dtype=compute_dtype(cell.recipe.precision),
        residual_dtype=residual_dtype(cell.recipe.residual, cell.recipe.precision),
    )
    return model.initialise(seed).eval()
