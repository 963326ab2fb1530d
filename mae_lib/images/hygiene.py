"""Duplicates of a whole store, kept beside it, and the twins of evaluation that a build leaves out."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from mae_lib.errors import RecordError
from mae_lib.images.blocks import image_hashes, read_rows
from mae_lib.images.duplicates import (
    COLUMNS,
    DRAWN,
    PHOTOGRAPHS,
    Near,
    Prints,
    pairs_across,
    pairs_within,
)
from mae_lib.images.perceptual import perceptual_hashes
from mae_lib.images.plans import task_file
from mae_lib.images.pool import run_all, workers_for
from mae_lib.images.store import Store
from mae_lib.records.sidecar import read_table, write_table

FOLDER = "hygiene"
_ROWS = 1024


def duplicates(store: Store, *, workers: int | None = None) -> pd.DataFrame:
    """Return the pairs within a store's images and against every test part, found once and kept.

    Columns: `duplicates.COLUMNS`. The table lies in hygiene/duplicates.csv of the store.
    """
    path = store.folder / FOLDER / "duplicates.csv"
    try:
        return read_table(path)
    except RecordError:
        pass
    near = near_of(store.manifest["recipe"]["kind"])
    images = prints(store, "images.npy", workers=workers)
    found = [pairs_within(images, near)]
    for task in store.manifest["recipe"]["tasks"]:
        test = prints(store, task_file(task["name"], "test"), workers=workers)
        found.append(pairs_across(images, test, near))
    whole = pd.concat([f for f in found if len(f)] or [pd.DataFrame(columns=list(COLUMNS))])
    write_table(path, whole)
    return read_table(path)


def near_of(kind: str) -> Near:
    """Return what counts as near in stores of a kind."""
    return DRAWN if kind == "procedural" else PHOTOGRAPHS


def shared_with_training(store: Store) -> dict[str, int]:
    """Return how many images each task's training part shares with pretraining, pixel by pixel.

    That is by design where a source feeds both: the probe sees labels, pretraining does not.
    """
    known = set(store.index["sha256"])
    return {
        task["name"]: sum(
            sha256 in known for sha256 in image_hashes(store.task(task["name"]).train_images)
        )
        for task in store.manifest["recipe"]["tasks"]
    }


def prints(store: Store, file: str, *, workers: int | None = None) -> Prints:
    """Return the names and hashes of an array's images, perceptual ones computed in a pool."""
    path, images = store.folder / file, store.array(file)
    spans = [range(s, min(s + _ROWS, len(images))) for s in range(0, len(images), _ROWS)]
    work = partial(_hash_rows, path, images.shape[1])
    found = dict(run_all(work, spans, workers=workers_for(len(spans), workers), what="hashing"))
    hashes = [np.concatenate([found[s.start][i] for s in spans]) for i in (0, 1)]
    return Prints(file, images, *_about(store, file, images), *hashes)


def _about(store: Store, file: str, images: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return source, name, pixel hash and hash of the bytes of an array's images."""
    origins = store.folder / "origins.parquet"
    if origins.exists():
        rows = pd.read_parquet(origins, filters=[("array", "==", file)])
        names = ("source", "name", "sha256", "sha256_encoded")
        return tuple(rows[name].to_numpy(dtype=object) for name in names)
    none = np.full(len(images), "", object)
    if file == "images.npy":
        rows = store.index
        return (*(rows[n].to_numpy(dtype=object) for n in ("source", "name", "sha256")), none)
    task = Path(file).stem
    names = np.array([f"{task}-{row:06d}" for row in range(len(images))], object)
    return np.full(len(images), task, object), names, np.array(image_hashes(images), object), none


def _hash_rows(path: Path, side: int, rows: range) -> tuple[int, tuple[np.ndarray, np.ndarray]]:
    phash, dhash = perceptual_hashes(read_rows(path, side, rows))
    return rows.start, (np.array(phash, np.uint64), np.array(dhash, np.uint64))
