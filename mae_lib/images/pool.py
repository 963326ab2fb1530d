"""Blocks through a pool of processes: dying with who started them, bounded in number and memory.

On Linux a fork server imports what the workers need, once, and does nothing with it: its children
share those pages, so that sixteen of them hold little more memory than one. Elsewhere each worker
is started afresh and imports for itself.
"""

import contextlib
import functools
import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from mae_lib.errors import StoreError
from mae_lib.kernels.allocator import keep_freed_memory
from mae_lib.records.orphans import die_with_parent
from mae_lib.records.provenance import available_cores

# Tasks in the pool a worker: enough that none waits, few enough that arguments stay few.
_AHEAD = 3
# Elsewhere system libraries do not bear a fork.
_METHOD = "forkserver" if sys.platform == "linux" else "spawn"


def run_all(
    work: Callable, tasks: Iterable, *, workers: int, what: str = "packing"
) -> Iterator[object]:
    """Yield `work(task)` of every task as it ends, in any order; one worker means this process.

    No thread or lock of this process is copied into the workers; as with any process that Python
    starts so, a script keeps its work under `if __name__ == "__main__"`. Arguments bound to `work`
    say by their `modules` what the workers need loaded.
    Raises: what `work` raises; StoreError when a worker was killed.
    """
    if workers <= 1:
        yield from map(work, tasks)
        return
    modules = [
        name for bound in getattr(work, "args", ()) for name in getattr(bound, "modules", ())
    ]
    with started(workers, modules) as pool:
        try:
            yield from _windowed(pool, work, iter(tasks), workers * _AHEAD)
        except BrokenProcessPool:
            raise StoreError(
                f"{what}: a worker was killed, by a signal or for want of memory; the same "
                "command goes on from the blocks that are finished",
                exit_code=1,
            ) from None


@contextlib.contextmanager
def started(workers: int, modules: Sequence[str] = ()) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of processes that leave signals to this one and die with it.

    `modules` are loaded once for all. Where a fork server runs already, started by someone else, it
    keeps what it has loaded, and workers load the rest each for itself.
    """
    context = multiprocessing.get_context(_METHOD)
    # A server keeps the environment that it was started in, and this one may have changed since.
    start = functools.partial(_begin, dict(os.environ))
    with (
        _server(context, modules),
        ProcessPoolExecutor(workers, mp_context=context, initializer=start) as pool,
    ):
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


@contextlib.contextmanager
def _server(context, modules: Sequence[str]) -> Iterator[None]:
    """Let a fork server that starts now load `modules`, and end it with the pool that it served.

    What a process starts through a fork server later, loaders of batches, wants other modules.
    """
    if _METHOD != "forkserver":
        yield
        return
    from multiprocessing import resource_tracker
    from multiprocessing.forkserver import _forkserver as server  # it has no public end

    ours = server._forkserver_pid is None
    context.set_forkserver_preload(["mae_lib.images.pool_server", __name__, *modules])
    # The server ignores Ctrl-C only once it has loaded them, and would tell of it until then. Its
    # tracker is started first, since that unblocks the signal.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        server.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        yield
    except KeyboardInterrupt:
        # A worker that was just being started is on no list; it ends when this process does.
        ours = False
        raise
    finally:
        # It ends after its last child, and would be waited for till then.
        if ours and not multiprocessing.active_children():
            server._stop()


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


def _begin(environment: dict[str, str]) -> None:
    """Leave Ctrl-C to the one who started the pool, and die when it dies, be it killed outright."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent(signal.SIGKILL)
    # A fork server outlives the one who started it for as long as it has children.
    threading.Thread(target=_end_with_starter, daemon=True).start()
    os.environ.clear()
    os.environ.update(environment)
    # What is loaded stays: looking through it for garbage would copy the pages that workers share.
    gc.freeze()
    # A worker makes one block after the other: each takes the memory that the last one left.
    keep_freed_memory()
    # The pool is the parallelism: a library that starts threads of its own would fight it.
    os.environ["OMP_NUM_THREADS"] = "1"
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _end_with_starter() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
