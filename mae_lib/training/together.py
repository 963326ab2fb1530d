"""Several small cells on one device at once: a process each, the device slices its time.

A cell whose step is shorter than its launches, or whose batch fills a part of the device, leaves
room for others. Processes share nothing, so that one which fails or is killed costs its cell alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mae_lib.errors import MaeError
from mae_lib.images.store import open_store
from mae_lib.study.definition import Cell
from mae_lib.study.execution import Execution
from mae_lib.training.finished import Trained
from mae_lib.training.loop import pretrain
from mae_lib.training.processes import in_processes


@dataclass(frozen=True)
class Job:
    """One cell to train: from which store folder, into which folder, and how."""

    cell: Cell
    store: Path
    folder: Path
    execution: Execution = field(default_factory=Execution)


def train_together(
    jobs: Sequence[Job], *, at_once: int
) -> Iterator[tuple[Job, Trained | MaeError]]:
    """Train cells `at_once` at a time; yield each with what its training left, or its error, as it
    ends. Raises: KernelError for at_once below 1."""
    yield from in_processes(_train, jobs, at_once=at_once)


def _train(job: Job) -> Trained:
    store = open_store(job.store)
    return pretrain(job.cell, store, job.folder, execution=job.execution)
