"""Jobs in processes of their own, some at a time: one that fails or is killed costs its job alone.

Imports nothing heavy, so that a process is as quick to start as its work.
"""

import multiprocessing
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

from mae_lib.errors import KernelError, MaeError
from mae_lib.records.orphans import die_with_parent

# A process that was told to stop saves its work first.
STOP_SECONDS = 10.0


def in_processes(
    work: Callable[[Any], Any], jobs: Iterable[Any], *, at_once: int
) -> Iterator[tuple[Any, Any]]:
    """Do `work(job)` for every job, `at_once` at a time, each in one of as many processes.

    `work` is a function of a module, so that a fresh process finds it. Jobs start in their order;
    pairs come as they end: a job with what `work` returned, or with a MaeError that says in one
    line what it raised or how its process died. `jobs` is asked for the next one only when a
    process is free. Left early, or interrupted, the processes are told to stop, as by SIGTERM.
    Raises: KernelError for at_once below 1.
    """
    if at_once < 1:
        raise KernelError(f"at_once: from 1, got {at_once}", exit_code=2)
    context = multiprocessing.get_context("spawn")
    queue, workers = iter(jobs), []
    try:
        for _ in range(at_once):
            if (worker := _next(_Worker(context, work), queue)) is not None:
                workers.append(worker)
        while workers:
            ready = wait([w.pipe for w in workers])
            for worker in [w for w in workers if w.pipe in ready]:
                job, found = worker.job, worker.receive()
                workers.remove(worker)
                fresh = worker if worker.process.is_alive() else _Worker(context, work)
                if _next(fresh, queue) is not None:
                    workers.append(fresh)
                yield job, found
    finally:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.stop()


class _Worker:
    """A process that does one job after another; it is started with its first one."""

    def __init__(self, context: multiprocessing.context.BaseContext, work: Callable):
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work), daemon=True)
        self._theirs: Connection | None = theirs
        self.job: Any = None

    def give(self, job: Any) -> None:
        self.job = job
        if self._theirs is not None:
            self.process.start()
            # Ours must be closed, or a dead process would not be seen at the other end.
            self._theirs.close()
            self._theirs = None
        self.pipe.send(job)

    def receive(self) -> Any:
        try:
            kind, found = self.pipe.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            code = self.process.exitcode
            how = f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
            return MaeError(f"process: ended by {how} before its work was done")
        return found if kind == "done" else MaeError(found[0], exit_code=found[1])

    def stop(self) -> None:
        self.pipe.close()
        if self._theirs is None:
            self.process.join(STOP_SECONDS)
            if self.process.is_alive():
                self.process.kill()
                self.process.join()


def _next(worker: _Worker, queue: Iterator[Any]) -> _Worker | None:
    """Give a worker the next job; without one it is stopped."""
    for job in queue:
        worker.give(job)
        return worker
    worker.stop()
    return None


def _serve(pipe: Connection, work: Callable[[Any], Any]) -> None:
    """Do jobs until the other end closes, or its process is gone."""
    die_with_parent(signal.SIGTERM)
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(("done", work(job)))
        except MaeError as error:
            pipe.send(("failed", (str(error), error.exit_code)))
        except Exception as error:
            traceback.print_exc()
            pipe.send(("failed", (f"{type(error).__name__}: {error}", 1)))
