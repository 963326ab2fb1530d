"""Runs that are killed, each in a process of its own and none paying for the import of torch.

`Forker` starts one process that imports everything, opens the store and then forks once a run. As a
script this file is that process: it reads a run as a line of JSON and answers with how it ended.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit code (negative: the signal that killed it), seconds, stderr."""

    code: int
    seconds: float
    said: str


class Forker:
    """A process that forks runs of the tiny cell."""

    def __init__(self, store: Path):
        here = Path(__file__).resolve()
        env = os.environ | {"MAE_THREADS": "1", "MAE_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}
        env["PYTHONPATH"] = os.pathsep.join([str(here.parents[2]), str(here.parent)])
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(here), str(store)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
            start_new_session=True,
        )

    def run(self, folder: Path, fault: str | None = None, *, at_once: int = 1, **execution):
        """Train the tiny cell in `folder`, with a fault, in a process (or several at once)."""
        wish = {"folder": str(folder), "fault": fault, "at_once": at_once, "execution": execution}
        self._process.stdin.write(json.dumps(wish) + "\n")
        self._process.stdin.flush()
        ended = [Ended(**each) for each in json.loads(self._process.stdout.readline())]
        return ended[0] if at_once == 1 else ended

    def others(self) -> list[int]:
        """Return the processes that runs have left behind."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == self._process.pid and fields[0] != "Z":
                found.append(int(stat.parent.name))
        return [pid for pid in found if pid != self._process.pid]

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=20)
        self._process.stdout.close()


def _child(wish: dict, store, said: int) -> int:
    # All of it was imported before the fork.
    from tiny_cell import CELL

    from mae_lib.errors import MaeError
    from mae_lib.study.execution import Execution
    from mae_lib.training.loop import pretrain

    os.dup2(said, 2)
    if wish["fault"]:
        os.environ["MAE_FAULT_AT"] = wish["fault"]
    folder = Path(wish["folder"])
    options = {"log_every": 5, "checkpoint_seconds": 0, "wait": wish["at_once"] > 1}

    def mark(row: dict) -> None:
        (folder / f"computed-{os.getpid()}").touch()

    execution = Execution(**wish["execution"])
    try:
        pretrain(CELL, store, folder, execution=execution, on_log=mark, **options)
    except MaeError as error:
        print(error, file=sys.stderr, flush=True)
        return error.exit_code
    return 0


def _fork(wish: dict, store) -> tuple[int, float, object]:
    said = tempfile.TemporaryFile("w+")  # noqa: SIM115
    begun = time.monotonic()
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            code = _child(wish, store, said.fileno())
        finally:
            os._exit(code)
    return pid, begun, said


def main() -> None:
    from tiny_cell import CELL

    from mae_lib.images.store import open_store
    from mae_lib.training.loop import pretrain

    store = open_store(Path(sys.argv[1]))
    with tempfile.TemporaryDirectory() as folder:
        # Once here, so that no run pays for what a process does once.
        pretrain(CELL, store, Path(folder))
    for line in sys.stdin:
        wish = json.loads(line)
        answers = []
        for pid, begun, said in [_fork(wish, store) for _ in range(wish["at_once"])]:
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            said.seek(0)
            answers.append({"code": code, "seconds": time.monotonic() - begun, "said": said.read()})
            said.close()
        print(json.dumps(answers), flush=True)


if __name__ == "__main__":
    main()
