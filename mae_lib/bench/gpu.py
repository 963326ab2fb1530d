"""Measure a GPU in under nine minutes: tests, ceilings, kernels, and images/s beside the peers'.

Writes DIR/gpu.json anew after every task, so that a run which is cut keeps what it measured. The
work is done by a worker process: a task that fails, hangs or breaks the device costs itself alone.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from mae_lib.bench.gpu_plan import STAGES, Task, plan
from mae_lib.bench.gpu_record import GpuRecord
from mae_lib.errors import KernelError
from mae_lib.study.paths import root

FILE = "gpu.json"
# What is kept back of the minutes: ending the worker and writing the file.
MARGIN_SECONDS = 5.0
_POLL_SECONDS = 0.1
_MOST_RESTARTS = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `bench gpu`."""
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu.json")
    parser.add_argument("--half", type=int, choices=(1, 2), help="only this half of the tasks")
    parser.add_argument("--minutes", type=float, default=9.0, help="stop before so many minutes")
    parser.add_argument("--dry", action="store_true", help="tiny sizes on the CPU, same code")
    parser.add_argument("--images", type=Path, help="folder of JPEGs for the peer, of the tars of "
                        "real-small for its largest cell")  # fmt: skip
    parser.add_argument(
        "--stages", help=f"only these, separated by commas: {', '.join(STAGES)}", default=""
    )


def run(arguments: argparse.Namespace) -> None:
    """Run the tasks and print a line each.

    Raises: KernelError without a CUDA device (and without --dry), for an unknown stage, or a
    folder of images that is none.
    """
    chosen = tuple(name.strip() for name in arguments.stages.split(",") if name.strip())
    if unknown := sorted(set(chosen) - set(STAGES)):
        raise KernelError(f"stages: of {', '.join(STAGES)}, got {unknown[0]!r}", exit_code=2)
    if arguments.minutes <= 0:
        raise KernelError(f"minutes: above 0, got {arguments.minutes:g}", exit_code=2)
    if arguments.images is not None and not arguments.images.is_dir():
        raise KernelError(f"images: {arguments.images} is no folder", exit_code=2)
    if not arguments.dry and not _has_cuda():
        raise KernelError(
            "bench gpu: torch finds no CUDA device here; --dry runs the same code at tiny sizes "
            "on the CPU",
            exit_code=2,
        )
    deadline = time.monotonic() + 60 * arguments.minutes - MARGIN_SECONDS
    tasks = plan(dry=arguments.dry, half=arguments.half, images=arguments.images, stages=chosen)
    record = GpuRecord(arguments.out / FILE, tasks, arguments)
    _work_through(tasks, record, deadline, dry=arguments.dry)
    record.close()
    print(record.summary())


def _has_cuda() -> bool:
    """Ask a process of its own, so that this one holds no memory on the device."""
    code = "import torch, sys; sys.exit(0 if torch.cuda.is_available() else 3)"
    return subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _work_through(tasks: list[Task], record: GpuRecord, deadline: float, *, dry: bool) -> None:
    """Give the tasks to a worker; after one that ends it, give the rest to another."""
    waiting = list(tasks)
    for _ in range(_MOST_RESTARTS):
        if not waiting or time.monotonic() >= deadline:
            break
        waiting = _one_worker(waiting, record, deadline, dry=dry)
    for task in waiting:
        record.missed(task, "not reached in the time given")


def _one_worker(
    waiting: list[Task], record: GpuRecord, deadline: float, *, dry: bool
) -> list[Task]:
    """Run one worker until it ends, hangs, or time is up; return the tasks still to do."""
    with tempfile.TemporaryDirectory() as folder:
        lines, errors = Path(folder) / "lines", Path(folder) / "stderr"
        lines.touch()
        (Path(folder) / "tasks").write_text(json.dumps([task.as_dict() for task in waiting]))
        with open(errors, "wb") as stderr:
            worker = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "mae_lib.bench.gpu_worker", folder],
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                env=_environment(dry),
                start_new_session=True,
            )
        left = {task.id: task for task in waiting}
        current, began = None, time.monotonic()
        try:
            for line in _follow(lines, worker):
                now = time.monotonic()
                if line is None:
                    limit = left[current].limit_s if current else 60.0
                    if now >= deadline:
                        if current:
                            record.missed(left.pop(current), "cut off: the time given was over")
                        return list(left.values())
                    if now - began > limit:
                        if current is None:
                            raise KernelError(f"bench gpu: no worker started in {limit:.0f} s")
                        record.failed(left.pop(current), f"timed out after {limit:.0f} s")
                        return list(left.values())
                elif "begin" in line:
                    current, began = line["begin"], now
                elif "found" in line:
                    record.take(left[current], line["found"], line["error"])
                else:
                    record.ended(left.pop(current), line.get("error"), seconds=now - began)
                    current, began = None, now
        finally:
            _end(worker)
        tail = " ".join(errors.read_text(errors="replace").strip().splitlines()[-1:])[-300:]
        why = f"the worker ended with exit status {worker.returncode}: {tail}"
        if current is not None:
            record.failed(left.pop(current), why)
        elif len(left) == len(waiting):
            # Without a task begun, another worker would end in the same way.
            raise KernelError(f"bench gpu: {why}")
        return list(left.values())


def _follow(path: Path, worker: subprocess.Popen) -> Iterator[dict | None]:
    """Yield each whole line as it is written, None while there is nothing new, until the end."""
    with open(path, encoding="utf-8") as file:
        held = ""
        while True:
            ended = worker.poll() is not None
            held += file.read()
            *whole, held = held.split("\n")
            for line in whole:
                yield json.loads(line)
            if ended:
                return
            if not whole:
                yield None
                time.sleep(_POLL_SECONDS)


def _end(worker: subprocess.Popen) -> None:
    """End the worker and whatever it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


def _environment(dry: bool) -> dict[str, str]:
    ours = {"PYTHONPATH": os.pathsep.join([str(root()), os.environ.get("PYTHONPATH", "")])}
    if dry:
        # The plain ways: which is faster on this processor would be timed first.
        ours |= {"CUDA_VISIBLE_DEVICES": "", "MAE_DEVICE": "cpu", "MAE_KERNELS": "reference"}
        # Threads that wait for each other make tiny sizes slow on a busy machine.
        ours |= {"OMP_NUM_THREADS": "1", "MAE_THREADS": "1"}
    return os.environ | ours
