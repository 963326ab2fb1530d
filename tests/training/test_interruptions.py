"""A training that is killed, told to end or out of disk anywhere goes on to the same bits."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from forked_runs import Forker
from tiny_cell import CELL, DATA, losses, weights

from mae_lib.errors import BusyError
from mae_lib.images.store import build_store
from mae_lib.records.atomic import sha256_of
from mae_lib.records.locks import locked
from mae_lib.records.sealed import read_sealed
from mae_lib.report.progress import cell_state
from mae_lib.training.loop import pretrain
from mae_lib.training.signals import stopping

# A whole run passes 155 points of writes (a checkpoint a step) and 24 steps.
WRITES, STEPS = 155, CELL.recipe.steps


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return build_store(DATA, tmp_path_factory.mktemp("store") / "s", data_root=None)


@pytest.fixture(scope="module")
def forker(store):
    forker = Forker(store.folder)
    yield forker
    forker.close()


@pytest.fixture(scope="module")
def calm(forker, tmp_path_factory):
    folder = tmp_path_factory.mktemp("calm")
    assert forker.run(folder).code == 0
    return folder


@pytest.fixture
def base():
    """In memory where there is a place: these runs write a checkpoint a step, each synced."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


def require_same(folder, calm):
    assert weights(folder) == weights(calm)
    assert losses(folder) == losses(calm)
    assert not list((folder / "state").glob("step-*"))
    assert not list(folder.rglob("*.tmp"))


def require_whole_checkpoints(folder):
    for record in (folder / "state").glob("step-*.json"):
        assert sha256_of(record.with_suffix(".safetensors")) == read_sealed(record)["sha256"]


def random_points():
    """Twelve points of writes and eight steps, the same ones in every run of this test."""
    rng = np.random.default_rng(20)
    writes = [f"kill:{n}" for n in rng.choice(np.arange(1, WRITES + 1), 12, replace=False)]
    return writes + [
        f"step:kill:{n}" for n in rng.choice(np.arange(1, STEPS + 1), 8, replace=False)
    ]


def test_killed_at_twenty_random_points_and_resumed_it_ends_with_the_same_bits(forker, calm, base):
    for point in random_points():
        folder = base / point.replace(":", "-")
        assert forker.run(folder, point).code == -signal.SIGKILL, point
        require_whole_checkpoints(folder)
        # At once: the lock of the dead process is free.
        assert forker.run(folder).code == 0
        require_same(folder, calm)


def test_the_status_of_a_killed_cell_says_the_step_that_it_then_goes_on_from(forker, calm, base):
    # A line every 5 steps, a checkpoint every step: step 12 is never done.
    assert forker.run(base, "step:kill:12").code == -signal.SIGKILL
    assert cell_state(base) == f"interrupted, it would go on from step 11 of {STEPS}"
    assert forker.run(base).code == 0
    require_same(base, calm)
    assert cell_state(base) == "trained, not evaluated"


def test_a_disk_that_fills_at_any_kind_of_write_is_one_line_and_harms_no_checkpoint(
    forker, calm, base
):
    # cell.json; the curve's header and a line of it; each part of a checkpoint; weights and result.
    for point in (2, 5, 62, *range(63, 69), 151, 155):
        folder = base / str(point)
        ended = forker.run(folder, f"enospc:{point}")
        assert ended.code == 1, point
        assert "cannot be written, got No space left on device; free space" in ended.said
        assert len(ended.said.splitlines()) == 1
        require_whole_checkpoints(folder)
        assert forker.run(folder).code == 0
        require_same(folder, calm)


def test_sigterm_saves_within_seconds_exits_143_and_the_run_goes_on_with_the_same_bits(
    forker, calm, base
):
    ended = forker.run(base, "step:term:7")
    assert (ended.code, ended.seconds < 10) == (143, True)
    assert "stopped by a signal after step 7 of 24; the state is saved" in ended.said
    assert forker.run(base).code == 0
    require_same(base, calm)


def test_a_second_signal_ends_at_once():
    pid = os.fork()
    if pid == 0:
        with stopping() as stop:
            signal.raise_signal(signal.SIGTERM)
            if stop.requested:
                signal.raise_signal(signal.SIGTERM)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM


def test_of_four_processes_on_one_cell_one_computes_and_the_others_wait(forker, calm, base):
    assert [ended.code for ended in forker.run(base, at_once=4)] == [0, 0, 0, 0]
    assert len(list(base.glob("computed-*"))) == 1
    require_same(base, calm)


def test_who_does_not_wait_for_a_cell_that_is_trained_exits_3(store, base):
    with locked(base / ".lock"), pytest.raises(BusyError, match="held by another") as caught:
        pretrain(CELL, store, base, wait=False)
    assert caught.value.exit_code == 3


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="counts processes by /proc")
def test_workers_end_with_a_run_that_is_killed_told_to_end_or_done(forker, calm, base):
    for fault, code in (("step:kill:12", -signal.SIGKILL), ("step:term:15", 143), (None, 0)):
        assert forker.run(base, fault, workers=2).code == code
        deadline = time.monotonic() + 10
        while forker.others() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert forker.others() == []
    require_same(base, calm)


def test_a_script_that_does_not_guard_its_work_from_its_own_workers_is_told_so(store, base):
    # A worker imports the script, which would wait for the lock that its own parent holds.
    script = base / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from mae_lib.images.store import open_store\n"
        "from mae_lib.study.execution import Execution\n"
        "from mae_lib.training.loop import pretrain\n"
        "from tiny_cell import CELL\n"
        f"store, here = open_store(Path({str(store.folder)!r})), Path({str(base / 'cell')!r})\n"
        "pretrain(CELL, store, here, execution=Execution(workers=1))\n"
    )
    here = Path(__file__).resolve()
    paths = os.pathsep.join([str(here.parents[2]), str(here.parent)])
    env = os.environ | {"PYTHONPATH": paths, "MAE_THREADS": "1", "MAE_DEVICE": "cpu"}
    command = [sys.executable, "-W", "ignore", str(script)]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert 'put its work under `if __name__ == "__main__":`' in ended.stderr
    assert "execution.workers: a process that loads images died" in ended.stderr.splitlines()[-1]
