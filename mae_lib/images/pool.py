"""Blocks through a pool of processes: started afresh, dying with their parent, bounded in number."""

import contextlib
import functools
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from mae_lib.errors import StoreError
from mae_lib.kernels.allocator import keep_freed_memory
from mae_lib.records.orphans import die_with_parent
from mae_lib.records.provenance import available_cores

# Tasks in the pool a worker: enough that none waits, few enough that arguments stay few.
_AHEAD = 3


def run_all(
    work: Callable, tasks: Iterable, *, workers: int, what: str = "packing"
) -> Iterator[object]:
    """Yield `work(task)` of every task as it ends, in any order; one worker means this process.

    Processes are spawned, so that no thread or lock of this one is copied into them; as with any
    process that Python starts so, a script keeps its work under `if __name__ == "__main__"`.
    Raises: what `work` raises; StoreError when a worker was killed.
    """
    if workers <= 1:
        yield from map(work, tasks)
        return
    with started(workers) as pool:
        try:
            yield from _windowed(pool, work, iter(tasks), workers * _AHEAD)
        except BrokenProcessPool:
            raise StoreError(
                f"{what}: a worker was killed, by a signal or for want of memory; the same "
                "command goes on from the blocks that are finished",
                exit_code=1,
            ) from None


@contextlib.contextmanager
def started(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of processes that leave signals to this one and die with it."""
    context = multiprocessing.get_context("spawn")
    start = functools.partial(_begin, os.getpid())
    with ProcessPoolExecutor(workers, mp_context=context, initializer=start) as pool:
        try:
            yield pool
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def workers_for(tasks: int, wish: int | None = None) -> int:
    """Return how many processes pay for `tasks` blocks: those asked for, else one a core."""
    if wish is not None:
        return max(1, wish)
    # A process takes as long to start as a few blocks take to make.
    return max(1, min(available_cores(), tasks // 4))


def _windowed(pool: ProcessPoolExecutor, work: Callable, tasks: Iterator, most: int) -> Iterator:
    waiting: set[Future] = set()
    for task in tasks:
        waiting.add(pool.submit(work, task))
        if len(waiting) >= most:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    while waiting:
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in done:
            yield future.result()


def _begin(parent: int) -> None:
    """Leave Ctrl-C to the parent, and die when it dies: it may have been killed outright."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    # A worker makes one block after the other: each takes the memory that the last one left.
    keep_freed_memory()
    # The pool is the parallelism: a library that starts threads of its own would fight it.
    os.environ["OMP_NUM_THREADS"] = "1"
