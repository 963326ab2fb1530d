"""Decode the tars of a study, each file once, in threads."""

import functools
import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mae_lib.errors import StoreError, StudyError
from mae_lib.images.decode import TRANSFORM, decode_square
from mae_lib.images.sources import Photograph, read_tar, require_file
from mae_lib.records.provenance import available_cores
from mae_lib.study.definition import Source, Task


@dataclass(frozen=True)
class Decoded:
    """A source in memory: pixels uint8 `[n, S, S, 3]`, labels, names, hashes, native sizes."""

    images: np.ndarray
    labels: np.ndarray
    names: list[str]
    hashes: list[str]
    native: np.ndarray
    file: str
    transform: str = TRANSFORM


def read_source(folder: Path | None, source: Source, size: int) -> Decoded:
    """Decode every image of a source's tar."""
    return _decode(require_file(folder, source.file, source.sha256), size)


def read_task(
    folder: Path | None, task: Task, part: str, opened: Mapping[str, Decoded], size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return images and labels of a task's part, reusing a source that is already decoded.

    Raises: StudyError when an image has no label.
    """
    name, sha256 = getattr(task, part), getattr(task, f"{part}_sha256")
    decoded = next((d for d in opened.values() if d.file == name), None)
    if decoded is None:
        decoded = _decode(require_file(folder, name, sha256), size)
    if (unlabelled := np.flatnonzero(decoded.labels < 0)).size:
        raise StudyError(
            f"data.tasks.{task.name}.{part}: {name}: {unlabelled.size} images have no label, "
            f"{decoded.names[unlabelled[0]]} first"
        )
    return decoded.images, decoded.labels


def _decode(path: Path, size: int) -> Decoded:
    photographs = list(read_tar(path))
    if not photographs:
        raise StoreError(f"{path}: holds no image", exit_code=2)
    decode = functools.partial(_decode_one, size=size, where=str(path))
    # Threads are enough: Pillow lets go of the interpreter while it decodes and resizes.
    with ThreadPoolExecutor(min(available_cores(), 16)) as pool:
        squares = list(pool.map(decode, photographs))
    images = np.stack([square for square, _ in squares])
    native = [p.native or size for p, (_, size) in zip(photographs, squares, strict=True)]
    return Decoded(
        images=images,
        labels=np.array([p.label for p in photographs], np.int64),
        names=[p.name for p in photographs],
        hashes=[hashlib.sha256(image.tobytes()).hexdigest() for image in images],
        native=np.array(native, np.int64),
        file=path.name,
    )


def _decode_one(photograph: Photograph, *, size: int, where: str):
    return decode_square(photograph.encoded, size, where=f"{where}: {photograph.name}")
