"""The packed images of a study: one uint8 array on disk, memory-mapped, with proof of its content.

images.npy `[N, S, S, 3]`, index.parquet (a row an image), tasks/ (labelled images for the probes),
manifest.json last: where it is, the store is complete.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mae_lib.errors import RecordError, StoreError, StudyError
from mae_lib.images.blocks import JOURNAL
from mae_lib.images.build import build
from mae_lib.images.pack import Progress, clear
from mae_lib.images.subsets import name_key, subset_order
from mae_lib.records.locks import locked
from mae_lib.records.sealed import read_sealed
from mae_lib.study.definition import Data

MANIFEST = "manifest.json"


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

    @property
    def sides(self) -> tuple[int, ...]:
        """The stored sides in pixels, the largest first."""
        return (self.images.shape[1], *self.manifest["recipe"].get("smaller", ()))

    def at(self, side: int) -> np.ndarray:
        """Open the images at one of `sides`, memory-mapped: uint8 `[N, side, side, 3]`.

        Raises: StudyError for a side that is not stored.
        """
        if side == self.images.shape[1]:
            return self.images
        if side not in self.sides:
            known = ", ".join(map(str, self.sides))
            raise StudyError(f"side: the store holds {known} pixels, got {side}")
        return self.array(f"images-{side}.npy")

    def array(self, file: str) -> np.ndarray:
        """Open one of the store's arrays by its file, memory-mapped.

        Raises: StoreError when it is missing or cut.
        """
        return _mapped(self.folder, file)

    def subset(self, images: int, seed: int) -> np.ndarray:
        """Return the indices of the first `images` of family `seed`: int64 `[images]`.

        Raises: StudyError when there are fewer.
        """
        if not 0 < images <= len(self.images):
            raise StudyError(f"images: the store holds {len(self.images):,}, got {images:,}")
        codes = pd.factorize(self.index["source"])[0]
        kind = self.manifest["recipe"]["kind"]
        return subset_order(kind, codes, self._keys(kind), seed)[:images]

    def _keys(self, kind: str) -> list[str]:
        """What decides which images come first: pixels, or names where pixels do not choose."""
        if kind == "sources":
            return [
                name_key(source, name)
                for source, name in zip(self.index["source"], self.index["name"], strict=True)
            ]
        return list(self.index["sha256"])

    def task(self, name: str) -> TaskImages:
        """Open the labelled images of a task, memory-mapped.

        Raises: StoreError when a file of it is missing or cut.
        """
        parts = [
            self.array(f"tasks/{name}-{part}.npy")
            for part in ("train", "train-labels", "test", "test-labels")
        ]
        return TaskImages(*parts, classes=int(max(parts[1].max(), parts[3].max())) + 1)


def build_store(
    data: Data,
    folder: Path,
    *,
    data_root: Path | None,
    progress: Progress | None = None,
    workers: int | None = None,
) -> Store:
    """Build the store of a recipe in `folder`, or open it when it is complete.

    A build that was cut goes on from its finished blocks. One command builds, others wait; it uses
    `workers` processes (None: one a core, where that pays), and the bytes do not depend on them.
    Raises: StudyError for images that are missing or too few; StoreError for damaged ones.
    """
    require_images(data)
    # A complete store needs no lock, so that it may lie where only others write.
    if not (folder / MANIFEST).exists() or (folder / JOURNAL).exists():
        with locked(folder.with_name(folder.name + ".lock")):
            if not (folder / MANIFEST).exists():
                build(data, folder, data_root=data_root, progress=progress, workers=workers)
            clear(folder)
    return open_store(folder)


def require_images(data: Data) -> None:
    """Refuse a study that is planned only; raises StudyError."""
    if data.kind == "planned":
        raise StudyError("data.kind: planned, this study names no images that could be packed")


def open_store(folder: Path) -> Store:
    """Open a complete store.

    Raises: StoreError when it is not complete or its manifest is damaged.
    """
    try:
        manifest = read_sealed(folder / MANIFEST)
    except RecordError as error:
        raise StoreError(str(error)) from None
    images = _mapped(folder, "images.npy")
    try:
        index = pd.read_parquet(folder / "index.parquet")
    except (OSError, ValueError) as error:
        raise _broken(folder, error) from None
    return Store(folder, manifest, images, index)


def _mapped(folder: Path, file: str) -> np.ndarray:
    """Open an array of a store, memory-mapped; raises StoreError when it is missing or cut."""
    try:
        return np.load(folder / file, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise _broken(folder, error) from None


def _broken(folder: Path, error: Exception) -> StoreError:
    return StoreError(f"{folder}: cut or changed, got {error}; delete it, it is built anew")
