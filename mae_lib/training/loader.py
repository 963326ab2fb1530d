"""Batches prepared ahead by worker processes, in the order of the steps."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from typing import Protocol, TypeVar, runtime_checkable

import torch

from mae_lib.errors import StoreError

Item = TypeVar("Item", covariant=True)
# Steps that each worker prepares before they are asked for.
AHEAD = 4


@runtime_checkable
class Steps(Protocol[Item]):
    """A dataset 'step -> item' that can be sent to another process."""

    def __getitem__(self, step: int) -> Item: ...


def in_order(steps: Steps[Item], start: int, stop: int, *, workers: int) -> Iterator[Item]:
    """Yield the items of steps `start` to `stop`, made by `workers` processes (0: by this one).

    Workers end with the generator, and when this process dies. They are started by a fork server,
    since a fork of a process with threads may hang; as with any process that Python starts so, a
    script that leads here keeps its work under `if __name__ == "__main__"`.
    Raises: StoreError when a worker dies.
    """
    if workers == 0:
        yield from (steps[step] for step in range(start, stop))
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mae_lib.training.batches"])
    loader = torch.utils.data.DataLoader(
        steps,
        batch_size=None,
        sampler=range(start, stop),
        num_workers=min(workers, max(1, stop - start)),
        multiprocessing_context=context,
        prefetch_factor=AHEAD,
        worker_init_fn=_begin,
        # Its own, so that the seed drawn for the workers is not taken from the process's numbers.
        generator=torch.Generator(),
    )
    iterator = iter(loader)
    try:
        yield from iterator
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise StoreError(
            f"execution.workers: a process that loads images died, got {error}; "
            "set it to 0, or free memory, then run the same command again",
            exit_code=1,
        ) from None
    finally:
        # The last reference: this ends the workers, now and not when a traceback is forgotten.
        del iterator


def _begin(worker: int) -> None:
    """A signal to the whole group is the trainer's to handle; it needs its workers until it saved."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_trainer, daemon=True).start()


def _end_with_trainer() -> None:
    # torch's own watch looks for another parent, but the parent is the fork server, which lives as
    # long as its children do.
    multiprocessing.parent_process().join()
    os._exit(1)
