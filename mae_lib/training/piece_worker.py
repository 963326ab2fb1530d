"""One process of a piece: it trains and reads out the cells that it is handed, one after the other."""

import gc
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

from mae_lib.errors import Interrupted, MaeError
from mae_lib.evaluation.features import Encode, Features, extract
from mae_lib.evaluation.saved_features import reduce_features, to_bytes
from mae_lib.images.card import png_bytes
from mae_lib.records.atomic import write_bytes
from mae_lib.records.orphans import die_with_parent
from mae_lib.study.definition import Cell
from mae_lib.study.paths import RunPaths
from mae_lib.study.plain import read_study
from mae_lib.training.assess import record_cell
from mae_lib.training.describe import reconstructions
from mae_lib.training.loop import completed, device
from mae_lib.training.piece_time import Answer

PICTURED = 4


def serve(link: Connection, study_file: str, out: str, extras: dict[str, str]) -> None:
    """Answer cell ids with `Answer`s until the other end closes.

    `extras` are arrays of images by name, whose features are kept beside those of the tasks.
    """
    die_with_parent(signal.SIGTERM)
    study = read_study(study_file)
    while True:
        try:
            cell = study.cell(link.recv())
        except EOFError:
            return
        try:
            link.send(measure_cell(cell, out, extras))
        except Interrupted as stopped:
            print(f"mae: {stopped}", file=sys.stderr)
            return
        except (torch.OutOfMemoryError, MemoryError) as error:
            link.send(Answer(cell.id, {}, f"out of memory: {_line(error)}", memory=True))
        except MaeError as error:
            link.send(Answer(cell.id, {}, _line(error)))
        except Exception as error:
            # Whatever one cell ends with, the others go on; the line is kept with the piece.
            traceback.print_exc()
            link.send(Answer(cell.id, {}, f"{type(error).__name__}: {_line(error)}"))
        gc.collect()
        if device().type == "cuda":
            torch.cuda.empty_cache()


def measure_cell(cell: Cell, out: str, extras: Mapping[str, str]) -> Answer:
    """Train a cell in `runs/<out>`, read it out, and leave features and a picture beside its record."""
    folder, started = RunPaths.of(out).cell(cell.id), time.monotonic()
    kept = started
    if device().type == "cuda":
        # Its statistics are not there before the device is.
        torch.cuda.init()
        torch.cuda.reset_peak_memory_stats()

    def keep(encode: Encode, features: dict[str, Features]) -> None:
        nonlocal kept
        means = {name: found.mean for name, found in features.items()}
        for name, file in extras.items():
            images = np.load(file, mmap_mode="r")
            means[name] = extract(encode, images, pixels=cell.pixels).mean
        saved = reduce_features(cell.id, cell.digest, means)
        write_bytes(folder / "features.safetensors", to_bytes(saved))
        kept = time.monotonic()

    record_cell(cell, out, keep=keep)
    beside = time.monotonic() - kept if kept > started else 0.0
    trained = completed(cell, folder)
    if trained is not None and trained.status == "complete":
        picture = reconstructions(cell, trained, count=PICTURED)
        write_bytes(folder / "reconstruction.png", png_bytes(picture))
    seconds = {
        "train": round(trained.wall_s, 3) if trained else None,
        "baselines": round(beside, 3),
        "total": round(time.monotonic() - started, 3),
        "peak_memory_bytes": _peak_memory(),
    }
    return Answer(cell.id, seconds)


def save_extra(path: Path, images: np.ndarray) -> None:
    """Keep an array of images for the workers, who map it."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp.npy")
        np.save(temporary, images)
        temporary.replace(path)


def _peak_memory() -> int | None:
    return int(torch.cuda.max_memory_allocated()) if device().type == "cuda" else None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
