"""A piece of a study: the next cells that fit into some minutes, several at once, each kept at once.

The parent hands cells to workers (processes that import torch, open the store and hold a context on
the device once), in the order of the study's plan. It writes every finished cell into the piece's
files before it hands out another, so that a piece cut off loses what is in flight and no more: one
cell where cells run one at a time, as on a processor.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from mae_lib.study.definition import Cell, Study
from mae_lib.study.paths import RunPaths
from mae_lib.training.piece_files import PieceFiles
from mae_lib.training.piece_time import USABLE, Answer, Expected, memory_of
from mae_lib.training.piece_worker import serve

# When time is up, workers get so long to save and leave.
GRACE_SECONDS = 10.0


@dataclass
class Worker:
    """One process, the pipe to it, and the cell it is at."""

    process: BaseProcess
    link: Connection
    cell: Cell | None = None


@dataclass
class Piece:
    """A running piece. `ends` is on the monotonic clock; `memory_bytes` None is no limit."""

    study: Study
    study_file: str
    files: PieceFiles
    expected: Expected
    ends: float
    together: int
    memory_bytes: float | None = None
    extras: dict[str, str] = field(default_factory=dict)
    say: Callable[[str], None] = print
    workers: list[Worker] = field(default_factory=list)

    def run(self, cells: Sequence[Cell]) -> None:
        """Measure as many of `cells`, in their order, as fit."""
        queue = list(cells)
        try:
            while True:
                self._hand_out(queue)
                busy = [worker for worker in self.workers if worker.cell]
                if not busy:
                    return
                if self._left() <= 0:
                    self.say(f"time is up; {len(busy)} in flight are given up")
                    return
                timeout = max(0.05, min(self._left(), 5.0))
                for link in wait([w.link for w in busy], timeout=timeout):
                    self._take(next(w for w in busy if w.link is link), queue)
        finally:
            self._close()

    def _left(self) -> float:
        return self.ends - GRACE_SECONDS - time.monotonic()

    def _hand_out(self, queue: list[Cell]) -> None:
        """Give every free worker the next cell that fits into time and memory."""
        while (cell := self._next(queue)) is not None:
            worker = next((w for w in self.workers if w.cell is None), None) or self._start()
            queue.remove(cell)
            worker.cell = cell
            worker.link.send(cell.id)

    def _next(self, queue: list[Cell]) -> Cell | None:
        running = [w.cell for w in self.workers if w.cell]
        if len(running) >= self.together:
            return None
        room = None
        if self.memory_bytes is not None and running:
            room = USABLE * self.memory_bytes - sum(map(memory_of, running))
        for cell in queue:
            if self.expected.fits(cell, self._left()) and (room is None or memory_of(cell) <= room):
                return cell
        return None

    def _start(self) -> Worker:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        arguments = (there, self.study_file, self.study.name, self.extras)
        process = context.Process(target=serve, args=arguments, daemon=True)
        process.start()
        there.close()
        worker = Worker(process, here)
        self.workers.append(worker)
        return worker

    def _take(self, worker: Worker, queue: list[Cell]) -> None:
        """Take a worker's answer, or note that it died."""
        cell = worker.cell
        try:
            answer = worker.link.recv()
        except (EOFError, ConnectionError):
            worker.process.join(5)
            self.workers.remove(worker)
            code = worker.process.exitcode
            self._failed(
                cell, f"its process ended with {code}; a kill (-9) is mostly memory", queue
            )
            return
        worker.cell = None
        if answer.error is not None:
            self._failed(cell, answer.error, queue, memory=answer.memory)
            return
        paths = RunPaths.of(self.study.name)
        self.expected.learn(cell, answer.seconds["total"] - answer.seconds["baselines"])
        record = self.files.add(cell, paths.cell(cell.id), paths.baselines, answer.seconds)
        self.say(said_of(cell, record, answer))

    def _failed(self, cell: Cell, message: str, queue: list[Cell], *, memory: bool = False) -> None:
        """Keep the line; a cell that shared the device's memory is tried again alone."""
        if memory and self.together > 1:
            self.together = max(1, self.together // 2)
            self.say(f"{cell.id}: {message}; from here on {self.together} at once")
            queue.insert(0, cell)
            return
        self.files.fail(cell, message)
        self.say(f"{cell.id}: failed: {message}")

    def _close(self) -> None:
        for worker in self.workers:
            worker.link.close()
            # One that trains saves its state first; one that waits holds nothing.
            worker.process.terminate()
        until = time.monotonic() + 0.8 * GRACE_SECONDS
        for worker in self.workers:
            worker.process.join(max(0.1, until - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join(2)
        self.files.write()


def said_of(cell: Cell, record: dict, answer: Answer) -> str:
    """Say in one line what came out of a cell and how long it took."""
    scores = [
        f"{row['task']} {row['protocol']} {100 * row['top1']:.1f} %"
        for row in record["rows"]
        if row.get("top1") is not None
    ]
    seen = record["rows"][0]["images_seen"]
    rate = seen / max(answer.seconds["train"] or 1e-9, 1e-9)
    return (
        f"{cell.id}: {record['status']}; {', '.join(scores)}; {answer.seconds['train']:.1f} s to "
        f"train ({rate:,.0f} images/s), {answer.seconds['total']:.1f} s in all"
    )


def prepare_threads(together: int, cores: int) -> None:
    """Share the cores among workers, before any of them starts and reads these."""
    threads = str(max(1, cores // together))
    for name in ("MAE_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, threads)


def stop_on_signal() -> None:
    """Let SIGTERM end a piece as Ctrl-C does: workers save, files are whole, exit 143."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
