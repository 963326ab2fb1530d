"""The packed images of a study: one uint8 array on disk, memory-mapped, with proof of its content.

images.npy `[N, S, S, 3]`, index.parquet (a row an image), tasks/ (labelled images for the probes),
manifest.json last: where it is, the store is complete.
"""

import hashlib
import importlib.metadata
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mae_lib.errors import RecordError, StoreError, StudyError
from mae_lib.images.mixture import require_feasible
from mae_lib.images.procedural import CLASSES, draw
from mae_lib.images.subsets import family_order
from mae_lib.images.tars import read_source, read_task
from mae_lib.records.atomic import replacing, sha256_of
from mae_lib.records.locks import locked
from mae_lib.records.sealed import read_sealed, write_sealed
from mae_lib.study.definition import Data, settings_of

MANIFEST = "manifest.json"
# Items of the tasks start here, far beyond any pretraining item.
_TRAIN_ITEMS, _TEST_ITEMS = 1 << 32, 1 << 33

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class TaskImages:
    """Labelled images of one task: uint8 `[n, S, S, 3]` and int64 `[n]`, training and test."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: int


@dataclass(frozen=True)
class Store:
    """An open store. `images` is memory-mapped; `index` has a row an image."""

    folder: Path
    manifest: dict
    images: np.ndarray
    index: pd.DataFrame

    @property
    def native_sides(self) -> np.ndarray:
        """The shorter native side of each image, in pixels."""
        return self.index[["native_width", "native_height"]].min(axis=1).to_numpy()

    def subset(self, images: int, seed: int) -> np.ndarray:
        """Return the indices of the first `images` of family `seed`: int64 `[images]`.

        Raises: StudyError when there are fewer.
        """
        if not 0 < images <= len(self.images):
            raise StudyError(f"images: the store holds {len(self.images):,}, got {images:,}")
        codes = pd.factorize(self.index["source"])[0]
        return family_order(codes, list(self.index["sha256"]), seed)[:images]

    def task(self, name: str) -> TaskImages:
        """Open the labelled images of a task, memory-mapped."""
        parts = [
            np.load(self.folder / "tasks" / f"{name}-{part}.npy", mmap_mode="r")
            for part in ("train", "train-labels", "test", "test-labels")
        ]
        return TaskImages(*parts, classes=int(max(parts[1].max(), parts[3].max())) + 1)


def build_store(
    data: Data, folder: Path, *, data_root: Path | None, progress: Progress | None = None
) -> Store:
    """Build the store of a recipe in `folder`, or open it when it is complete.

    A cut build leaves no manifest and is done again. One process builds, others wait.
    Raises: StudyError for images that are missing or too few; StoreError for damaged ones.
    """
    if data.kind == "planned":
        raise StudyError("data.kind: planned, this study names no images that could be packed")
    with locked(folder.with_name(folder.name + ".lock")):
        if not (folder / MANIFEST).exists():
            shutil.rmtree(folder, ignore_errors=True)
            _build(data, folder, data_root, progress or (lambda done, total: None))
    return open_store(folder)


def open_store(folder: Path) -> Store:
    """Open a complete store.

    Raises: StoreError when it is not complete or its manifest is damaged.
    """
    try:
        manifest = read_sealed(folder / MANIFEST)
    except RecordError as error:
        raise StoreError(str(error)) from None
    try:
        images = np.load(folder / "images.npy", mmap_mode="r")
        index = pd.read_parquet(folder / "index.parquet")
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{folder}: cut or changed, got {error}; delete it, it is built anew"
        ) from None
    return Store(folder, manifest, images, index)


def verify_store(folder: Path) -> list[str]:
    """Compare every file with its hash; return one line for each that differs."""
    try:
        manifest = read_sealed(folder / MANIFEST)
    except RecordError as error:
        return [str(error)]
    problems = []
    for name, sha256 in manifest["files"].items():
        path = folder / name
        if not path.exists():
            problems.append(f"{path}: missing; delete {folder}, it is built anew")
        elif sha256_of(path) != sha256:
            problems.append(
                f"{path}: changed after it was written, its hash differs; "
                f"delete {folder}, it is built anew"
            )
    return problems


def _build(data: Data, folder: Path, data_root: Path | None, progress: Progress) -> None:
    index = (
        _pack_procedural(data, folder, progress)
        if data.kind == "procedural"
        else (_pack_tars(data, folder, data_root, progress))
    )
    with replacing(folder / "index.parquet") as temporary:
        index.to_parquet(temporary, index=False)
    names = sorted(p for p in folder.rglob("*") if p.is_file())
    counts = index.groupby("source", sort=False).size()
    libraries = ("numpy", "pandas", "pillow", "pyarrow")
    write_sealed(
        folder / MANIFEST,
        {
            "digest": data.digest,
            "recipe": settings_of(data),
            "counts": {name: int(count) for name, count in counts.items()},
            "transform": index.attrs["transform"],
            "versions": {name: importlib.metadata.version(name) for name in libraries},
            "files": {str(p.relative_to(folder)): sha256_of(p) for p in names},
        },
    )


def _pack_procedural(data: Data, folder: Path, progress: Progress) -> pd.DataFrame:
    available = {source.name: data.total for source in data.sources}
    counts = require_feasible(data.total, data.sources, available)
    frames = []
    with _array(folder / "images.npy", (data.total, data.size, data.size, 3)) as images:
        done = 0
        for name, count in counts.items():
            items = np.arange(count)
            images[done : done + count], labels = draw(name, items, size=data.size, seed=data.seed)
            native = data.size // 2 if name == "tiny" else data.size
            frames.append(_frame(name, [f"{name}-{i:06d}" for i in items], labels, native))
            done += count
            progress(done, data.total)
        index = pd.concat(frames, ignore_index=True)
        index["sha256"] = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
    for task in data.tasks:
        for part, first, count in (
            ("train", _TRAIN_ITEMS, task.train_images),
            ("test", _TEST_ITEMS, task.test_images),
        ):
            drawn = draw("objects", first + np.arange(count), size=data.size, seed=data.seed)
            _save_task(folder, task.name, part, *drawn)
    index.attrs["transform"] = f"drawn by code, {len(CLASSES)} classes of objects"
    return index


def _pack_tars(
    data: Data, folder: Path, data_root: Path | None, progress: Progress
) -> pd.DataFrame:
    opened = {s.name: read_source(data_root, s, data.size) for s in data.sources}
    available = {name: len(source.names) for name, source in opened.items()}
    counts = require_feasible(data.total, data.sources, available)
    frames = []
    with _array(folder / "images.npy", (data.total, data.size, data.size, 3)) as images:
        done = 0
        for name, count in counts.items():
            source = opened[name]
            # The nested order of seed 0 decides which images enter, not the order in the file.
            chosen = np.sort(
                family_order(np.zeros(len(source.names), int), source.hashes, data.seed)[:count]
            )
            images[done : done + count] = source.images[chosen]
            frame = _frame(name, [source.names[i] for i in chosen], source.labels[chosen], 0)
            frame[["native_width", "native_height"]] = source.native[chosen]
            frame["sha256"] = [source.hashes[i] for i in chosen]
            frames.append(frame)
            done += count
            progress(done, data.total)
    for task in data.tasks:
        for part in ("train", "test"):
            _save_task(
                folder, task.name, part, *read_task(data_root, task, part, opened, data.size)
            )
    index = pd.concat(frames, ignore_index=True)
    index.attrs["transform"] = next(iter(opened.values())).transform
    return index


def _frame(source: str, names: list[str], labels: np.ndarray, native: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "source": source,
            "name": names,
            "label": labels,
            "native_width": native,
            "native_height": native,
        }
    )


class _array:
    """A memory-mapped .npy that is written under a temporary name and renamed when complete."""

    def __init__(self, path: Path, shape: tuple[int, ...]):
        self._replacing = replacing(path)
        self._shape = shape

    def __enter__(self) -> np.ndarray:
        temporary = self._replacing.__enter__()
        self._array = np.lib.format.open_memmap(temporary, "w+", np.uint8, self._shape)
        # A hole in a mapped file kills the process when the disk fills; taken now, it is an error.
        with open(temporary, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, os.path.getsize(temporary))
        return self._array

    def __exit__(self, *error) -> None:
        self._array.flush()
        del self._array
        self._replacing.__exit__(*error)


def _save_task(folder: Path, name: str, part: str, images: np.ndarray, labels: np.ndarray) -> None:
    for suffix, array in ((part, images), (f"{part}-labels", labels.astype(np.int64))):
        path = folder / "tasks" / f"{name}-{suffix}.npy"
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.save(file, array)
