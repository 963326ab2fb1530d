"""Start one cell on several devices of this machine under torchrun, and wait for it.

Each rank runs `mae_lib.training.rank`. A signal is passed on, so that all ranks save and end; when
this process dies, torchrun ends with it, and the ranks with torchrun.
"""

import dataclasses
import functools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from mae_lib.errors import Interrupted, MaeError, StudyError
from mae_lib.records.atomic import write_json
from mae_lib.records.locks import RANKS_LOCK, locked
from mae_lib.records.orphans import die_with_parent
from mae_lib.records.provenance import available_cores
from mae_lib.study.definition import Cell, settings_of
from mae_lib.study.execution import Execution
from mae_lib.training.environment import device
from mae_lib.training.finished import Trained, completed
from mae_lib.training.signals import stopping
from mae_lib.training.world import World

POLL_SECONDS = 0.1


def train_on_devices(
    cell: Cell, store: Path, folder: Path, execution: Execution, rhythm: dict
) -> Trained:
    """Train `cell` on `execution.devices` devices, the cell's lock being held by this process.

    `rhythm` says how often ranks log and save. What they print goes to `ranks.log`.
    Raises: StudyError before anything starts when the devices are not there or do not divide the
    batch; else what a rank raised, its exit code kept.
    """
    count, where = execution.devices, device()
    World(where, 0, count).rows(cell.recipe.batch_size)
    if where.type == "cuda" and torch.cuda.device_count() < count:
        raise StudyError(
            f"execution.devices: {count} asked for, but this machine shows "
            f"{torch.cuda.device_count()}; ask for fewer, or run where they are"
        )
    log = folder / "ranks.log"
    with tempfile.TemporaryDirectory(prefix="mae-ranks-") as scratch:
        job = Path(scratch) / "job.json"
        write_json(
            job,
            {
                "digest": cell.digest,
                "settings": settings_of(cell),
                "execution": dataclasses.asdict(execution),
                "store": str(store),
                "folder": str(folder),
                "device": where.type,
                "rhythm": rhythm,
            },
        )
        with open(log, "w", encoding="utf-8") as output, stopping() as stop:
            process = subprocess.Popen(
                _command(count, job),
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(count),
                # A Ctrl-C reaches the ranks once, through here.
                start_new_session=True,
                preexec_fn=functools.partial(die_with_parent, signal.SIGTERM),
            )
            told = False
            while process.poll() is None:
                if stop.requested and not told:
                    process.send_signal(signal.SIGTERM)
                    told = True
                time.sleep(POLL_SECONDS)
        outcomes = [json.loads(p.read_text()) for p in sorted(Path(scratch).glob("outcome-*"))]
    said = log.read_text(encoding="utf-8", errors="replace")
    for line in said.splitlines():
        if line.startswith(f"{cell.id}: "):
            print(line, file=sys.stderr, flush=True)
    if process.returncode or outcomes:
        raise _failure(cell, outcomes, log, process.returncode, stopped=stop.requested)
    if (trained := completed(cell, folder)) is None:
        raise MaeError(f"{cell.id}: its ranks ended without a result (log: {log})")
    return trained


def wait_for_orphans(folder: Path) -> None:
    """Wait for ranks whose launcher was killed: they save what they have, and then end."""
    if (lock := folder / RANKS_LOCK).exists():
        with locked(lock):
            pass


def _command(count: int, job: Path) -> list[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(count), "-m", "mae_lib.training.rank", str(job)]
    return command


def _environment(count: int) -> dict[str, str]:
    threads = max(1, int(os.environ.get("MAE_THREADS", available_cores())) // count)
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    own = {"MAE_THREADS": str(threads), "OMP_NUM_THREADS": str(threads), "PYTHONPATH": path}
    return os.environ | own


def _failure(cell: Cell, outcomes: list[dict], log: Path, code: int, *, stopped: bool) -> MaeError:
    """Return the first rank's own error, else what the log tells of its end."""
    # A rank that failed takes the others down with it: its word counts before theirs.
    # Ranks that torchrun's own death told to stop say "interrupted", which nobody asked for.
    orphaned = code < 0 and not stopped
    for outcome in sorted(outcomes, key=lambda o: o["kind"] == "Interrupted"):
        if outcome["kind"] == "Interrupted" and orphaned:
            break
        kind = _kinds(MaeError).get(outcome["kind"], MaeError)
        return kind(outcome["message"], exit_code=outcome["exit_code"])
    if stopped:
        return Interrupted(
            f"{cell.id}: stopped by a signal; what was saved is kept, "
            "the same command goes on from there"
        )
    if code < 0:
        return MaeError(
            f"{cell.id}: torchrun was ended by signal {-code}, and its ranks with it; what was saved "
            "is kept, the same command goes on from there"
        )
    text = log.read_text(encoding="utf-8", errors="replace")
    codes = {int(found) for found in re.findall(r"exitcode\s*:\s*(-?\d+)", text)}
    if -signal.SIGKILL in codes:
        return MaeError(
            f"{cell.id}: a rank was killed, probably for memory; lower execution.micro_batch, or "
            f"set execution.sharding to fsdp2, then run the same command again (log: {log})"
        )
    said = [line for line in text.splitlines() if re.search(r"Error\b.*: ", line)]
    last = re.sub(r"^\[rank\d+\]:\s*", "", said[0]) if said else "nothing was said"
    return MaeError(f"{cell.id}: its ranks ended with code {code}: {last} (log: {log})")


def _kinds(kind: type[MaeError]) -> dict[str, type[MaeError]]:
    found = {kind.__name__: kind}
    for child in kind.__subclasses__():
        found |= _kinds(child)
    return found
