"""Run each contender of a benchmark in a process of its own, one step at a time.

What one of them changes for its process, threads, the allocator, precision flags, then favours no
other: a peer "as it comes" has the defaults that its user has.
"""

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection

import torch

from mae_lib.errors import KernelError, MaeError

Step = Callable[[], None]


@contextlib.contextmanager
def apart(builders: Sequence[Callable[[], Step]], *, threads: int) -> Iterator[list[Step]]:
    """Yield for each builder a function that runs one step in the builder's own process.

    A builder must be picklable (a module's function, or a partial of one). Between calls its
    process waits and takes no processor time.
    Raises: KernelError with the line of a builder or step that failed.
    """
    # Its server imports torch once and does nothing with it: children are quick and clean.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mae_lib.bench.step"])
    with contextlib.ExitStack() as stack:
        steps = []
        for build in builders:
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, build, threads), daemon=True)
            process.start()
            there.close()
            stack.callback(_end, process, here)
            steps.append(_Remote(here))
        for step in steps:
            step.answer()
        yield steps


class _Remote:
    def __init__(self, connection: Connection):
        self._connection = connection

    def __call__(self) -> None:
        self._connection.send(True)
        self.answer()

    def answer(self) -> None:
        try:
            problem = self._connection.recv()
        except EOFError:
            problem = "its process died, probably for memory"
        if problem:
            raise KernelError(f"bench: a contender stopped: {problem}")


def _serve(connection: Connection, build: Callable[[], Step], threads: int) -> None:
    torch.set_num_threads(threads)
    try:
        step = build()
        connection.send(None)
        while connection.recv():
            step()
            connection.send(None)
    except MaeError as error:
        connection.send(str(error))
    except EOFError:
        pass
    except Exception as error:
        connection.send(f"{type(error).__name__}: {error}")


def _end(process, connection: Connection) -> None:
    with contextlib.suppress(OSError, ValueError):
        connection.send(False)
    connection.close()
    process.join(timeout=10)
    if process.is_alive():
        process.kill()
