"""Ranks for tests: forked from one server that has imported torch, joined as torchrun joins them."""

import contextlib
import dataclasses
import multiprocessing
import os
import resource
import signal
import socket
from multiprocessing import forkserver
from pathlib import Path

import pytest
import torch

from mae_lib.errors import MaeError
from mae_lib.images.store import open_store
from mae_lib.study.definition import Cell
from mae_lib.study.execution import Execution
from mae_lib.training.assess import train_cell
from mae_lib.training.loop import train
from mae_lib.training.world import joined


def cell_of(cell: Cell, **recipe) -> Cell:
    return dataclasses.replace(cell, recipe=dataclasses.replace(cell.recipe, **recipe))


def train_alone(cell, store, folder, *, seconds=1e9, **execution):
    from mae_lib.training.world import alone

    options = Execution(**execution)
    return train(cell, store, folder, options, alone(torch.device("cpu")), 1, seconds)


class Ranks:
    """`size` processes that train `cell` together into `folder`, saving every `seconds`.

    `fault` is what befalls all of them (mae_lib.records.faults), `last_fault` the last one alone;
    `file_limit` is what the last one may write into one file.
    """

    def __init__(
        self,
        size,
        cell,
        store,
        folder,
        *,
        seconds=1e9,
        fault="",
        last_fault="",
        file_limit=None,
        **execution,
    ):
        context = _server()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        place = (str(store.folder), str(folder))
        options = Execution(devices=size, **execution)
        self.said = context.Queue()
        faults = [(fault, None)] * (size - 1) + [(last_fault or fault, file_limit)]
        self.processes = [
            context.Process(
                target=_rank,
                args=(rank, size, port, cell, place, options, seconds, faults[rank], self.said),
            )
            for rank in range(size)
        ]
        for process in self.processes:
            process.start()

    def wait(self) -> list[int]:
        """Wait for all and return their exit codes."""
        for process in self.processes:
            process.join(60)
        return [process.exitcode for process in self.processes]


def launched(cell, out, **environment):
    """Start a process that trains a study's cell as its notebook does."""
    process = _server().Process(target=_launcher, args=(cell, out, environment))
    process.start()
    return process


def _launcher(cell, out, environment) -> None:
    os.environ |= environment
    try:
        train_cell(cell, out, log_every=5)
    except MaeError as error:
        os._exit(error.exit_code)


def ranks_of(folder: Path) -> list[int]:
    """Return torchrun and the ranks that train into a folder of runs, torchrun first (Linux)."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(folder) in (process / "environ").read_bytes().decode(errors="replace"):
                line = (process / "cmdline").read_bytes().decode(errors="replace")
                if "mae_lib.training.rank" in line:
                    found.append(("torch.distributed.run" not in line, int(process.name)))
    return [number for _, number in sorted(found)]


def _server():
    """Return what forks ranks: a process of its own, for a fork of pytest's would have threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["forked_ranks", "pytest"])
    # The server takes sys.path from no one, and says nothing when it cannot import these.
    here = Path(__file__)
    path = os.pathsep.join(map(str, (here.parent, here.parents[2])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        forkserver.ensure_running()
    return context


def _rank(rank, size, port, cell, place, options, seconds, faults, said) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"MAE_THREADS": "1", "MAE_DEVICE": "cpu"}
    os.environ["MAE_FAULT_AT"], file_limit = faults
    if file_limit:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    store, folder = (Path(each) for each in place)
    try:
        with joined("cpu") as world:
            train(cell, open_store(store), folder, options, world, 1, seconds)
    except MaeError as error:
        said.put((rank, str(error)))
        said.close()
        said.join_thread()
        os._exit(error.exit_code)
