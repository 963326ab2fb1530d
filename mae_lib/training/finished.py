"""What a training leaves when it has ended, and whether what lies there is whole."""

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from mae_lib.errors import RecordError
from mae_lib.records.atomic import sha256_of
from mae_lib.records.quarantine import quarantine
from mae_lib.records.sealed import read_sealed, write_sealed
from mae_lib.study.definition import Cell
from mae_lib.training.checkpoint import drop_checkpoints, write_tensors
from mae_lib.training.memory import OutOfMemory, as_out_of_memory


@dataclass(frozen=True)
class Trained:
    """What training left: where, how it ended, and what it took."""

    folder: Path
    status: str
    steps: int
    images_seen: int
    loss: float | None
    wall_s: float
    environment: dict


def completed(cell: Cell, folder: Path) -> Trained | None:
    """Return the result of a finished training, after checking its hash; None when there is none.

    Damaged files are moved aside, so that the training is done again.
    """
    path, weights = folder / "training.json", folder / "weights.safetensors"
    if not path.exists():
        return None
    try:
        result = read_sealed(path)
        if result["digest"] != cell.digest:
            raise RecordError(f"{path}: belongs to cell {result['digest']}, not {cell.digest}")
        if result["weights_sha256"] and (
            not weights.exists() or sha256_of(weights) != result["weights_sha256"]
        ):
            raise RecordError(f"{weights}: cut or changed")
    except RecordError:
        for damaged in (path, weights):
            if damaged.exists():
                quarantine(damaged)
        return None
    names = [field.name for field in dataclasses.fields(Trained) if field.name != "folder"]
    return Trained(folder=folder, **{name: result[name] for name in names})


def finish(cell: Cell, trained: Trained, tensors: dict[str, Tensor], *, notes: dict) -> Trained:
    """Write the weights `tensors`, then the sealed result that makes the training count as done.

    `notes` are further fields of training.json; the checkpoints of a complete run are dropped.
    """
    folder = trained.folder
    weights = folder / "weights.safetensors"
    sha256 = None
    if trained.status == "complete":
        write_tensors(weights, tensors)
        sha256 = sha256_of(weights)
    result = dataclasses.asdict(trained) | {"digest": cell.digest, "weights_sha256": sha256}
    result["metrics_sha256"] = sha256_of(folder / "metrics.jsonl")
    del result["folder"]
    write_sealed(folder / "training.json", result | notes)
    sweep(folder, complete=trained.status == "complete")
    return trained


def sweep(folder: Path, *, complete: bool) -> None:
    """Remove what a killed process left half-written and, of a complete run, the checkpoints.

    For the holder of the cell's lock only: every temporary file in there is a dead process's.
    """
    for left in folder.rglob(".*.tmp"):
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()
    if complete:
        drop_checkpoints(folder / "state")


@contextlib.contextmanager
def noting_failure(folder: Path) -> Iterator[None]:
    """Keep failed.json beside a run that ended for want of memory, until it is begun again."""
    path = folder / "failed.json"
    path.unlink(missing_ok=True)
    try:
        yield
    except (RuntimeError, MemoryError, OutOfMemory) as error:
        failure = as_out_of_memory(error)
        if failure is None:
            raise
        write_sealed(path, {"status": failure.status, "message": str(failure)})
        raise failure from None
