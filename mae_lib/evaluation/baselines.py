"""What a score stands beside: raw pixels, and the same encoder at random initialisations.

They depend on encoder shape, resolution and task alone, so the cells of a study share them: the
first to ask computes them, the others wait and read.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from mae_lib.errors import RecordError
from mae_lib.evaluation.evaluate import score, score_columns
from mae_lib.evaluation.features import Features, extract, raw_pixels
from mae_lib.images.store import TaskImages
from mae_lib.model.mae import MaskedAutoencoder
from mae_lib.model.masking import keep_count
from mae_lib.records.locks import locked
from mae_lib.records.quarantine import quarantine
from mae_lib.records.sealed import read_sealed, write_sealed
from mae_lib.study.definition import Cell, digest_of
from mae_lib.study.models import model_shape

# Far from the seeds of cells, so that a baseline is no cell's own starting point.
_FIRST_SEED = 1_000_000


def ensure_baselines(
    cell: Cell, tasks: Mapping[str, TaskImages], folder: Path
) -> dict[tuple[str, str], dict]:
    """Return for each (task, protocol) the columns `pixels_top1` and `random<k>_top1`."""
    about = {
        "model": cell.model,
        "pixels": cell.pixels,
        "patch_size": cell.patch_size,
        "evaluation": asdict(cell.evaluation),
        "data": cell.data.digest,
    }
    path = folder / f"{cell.model}-p{cell.patch_size}-r{cell.resolution}-{digest_of(about)}.json"
    with locked(path.with_suffix(".lock")):
        rows = _read(path)
        if rows is None:
            rows = _compute(cell, tasks)
            write_sealed(path, {"about": about, "rows": rows})
    return {
        (row["task"], row["protocol"]): {k: v for k, v in row.items() if k.endswith("_top1")}
        for row in rows
    }


def _read(path: Path) -> list[dict] | None:
    if not path.exists():
        return None
    try:
        return read_sealed(path)["rows"]
    except RecordError:
        quarantine(path)
        return None


def _compute(cell: Cell, tasks: Mapping[str, TaskImages]) -> list[dict]:
    rows = {}
    for name, task in tasks.items():
        pixels = [
            Features(flat, flat)
            for flat in (
                raw_pixels(images, pixels=cell.pixels)
                for images in (task.train_images, task.test_images)
            )
        ]
        for protocol, scored in score(*pixels, task, cell.evaluation).items():
            row = {"task": name, "protocol": protocol}
            rows[name, protocol] = row | {"pixels_top1": score_columns(scored, task)["top1"]}
        for number in range(cell.evaluation.random_seeds):
            encode = _random_encoder(cell, _FIRST_SEED + number).encode
            features = [
                extract(encode, images, pixels=cell.pixels)
                for images in (task.train_images, task.test_images)
            ]
            for protocol, scored in score(*features, task, cell.evaluation).items():
                rows[name, protocol][f"random{number}_top1"] = score_columns(scored, task)["top1"]
    return list(rows.values())


def _random_encoder(cell: Cell, seed: int) -> MaskedAutoencoder:
    model = MaskedAutoencoder(
        model_shape(cell.model),
        pixels=cell.pixels,
        patch_size=cell.patch_size,
        keep=keep_count(cell.tokens, cell.mask_ratio, rule=cell.recipe.keep_rule),
    )
    return model.initialise(seed).eval()
