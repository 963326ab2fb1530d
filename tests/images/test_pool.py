"""A pool's workers share what they have loaded, and none outlives the process that started it."""

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from photograph_folders import write_two

from mae_lib.images.pool import run_all, started
from mae_lib.study.paths import root

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
# Blocks of 85 rows at 256 pixels: more of them than workers.
_BUILD = """
import sys
from pathlib import Path
if __name__ == "__main__":
    from photograph_folders import two_sources
    from mae_lib.images.store import build_store
    folder, decoder = Path(sys.argv[1]), sys.argv[2]
    data = two_sources(1400, size=256, decoder=decoder)
    build_store(data, folder / decoder, data_root=folder, workers=16)
"""
_WAITING = """
import sys, time
from mae_lib.images.pool import started
if __name__ == "__main__":
    with started(2) as pool:
        for future in [pool.submit(time.sleep, 0.2) for _ in range(2)]:
            future.result()
        waiting = [pool.submit(time.sleep, 600) for _ in range(2)]
        print("ready", flush=True)
        time.sleep(600)
"""


def variable(name: str) -> str | None:
    return os.environ.get(name)


def threads(_: int) -> int:
    import torch

    return torch.get_num_threads()


def family_of(process: int) -> list[int]:
    """Return a process and all that came from it."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(folder.name))
    found, left = [], [process]
    while left:
        found.append(left.pop())
        left += children.get(found[-1], [])
    return found


def anonymous_bytes(process: int) -> int:
    """Return a process's anonymous memory, shared pages divided among those who share them."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss_Anon"))


def script(folder: Path, code: str, *arguments: str) -> subprocess.Popen:
    path = folder / "script.py"
    path.write_text(code)
    searched = os.pathsep.join(str(place) for place in (root(), root() / "tests"))
    return subprocess.Popen(
        [sys.executable, str(path), *arguments],
        env=os.environ | {"PYTHONPATH": searched},
        stdout=subprocess.PIPE,
        text=True,
    )


@LINUX
@pytest.mark.parametrize("decoder", ["pillow", "fast"])
def test_sixteen_workers_hold_less_than_a_gibibyte(tmp_path, decoder):
    if decoder == "fast":
        pytest.importorskip("simplejpeg")
    write_two(tmp_path, train=720, test=20)
    peak = most = 0
    with script(tmp_path, _BUILD, str(tmp_path), decoder) as process:
        while process.poll() is None:
            family = family_of(process.pid)
            peak = max(peak, sum(map(anonymous_bytes, family)))
            most = max(most, len(family))
            time.sleep(0.05)
    assert process.returncode == 0
    assert most >= 17  # all workers were there at once, and were seen
    assert peak < 2**30


@LINUX
def test_workers_end_when_their_starter_is_killed_outright(tmp_path):
    with script(tmp_path, _WAITING) as process:
        assert process.stdout.readline() == "ready\n"
        workers = family_of(process.pid)[1:]
        process.kill()
    assert len(workers) >= 3  # with the fork server
    end = time.monotonic() + 20
    while alive := [w for w in workers if _is_running(w)]:
        assert time.monotonic() < end, alive
        time.sleep(0.05)


def _is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_workers_see_the_environment_of_now_and_use_one_thread(monkeypatch):
    for value in ("one", "two"):
        monkeypatch.setenv("MAE_OF_A_TEST", value)
        assert list(run_all(variable, ["MAE_OF_A_TEST"] * 2, workers=2)) == [value] * 2
    with started(2, ["torch"]) as pool:
        assert list(pool.map(threads, range(2))) == [1, 1]


def test_pools_within_pools_end():
    with started(1) as one, started(2) as two:
        assert list(one.map(abs, [-1, -2])) == [1, 2]
        assert list(two.map(abs, [-3])) == [3]


_LOADING = """
import os, sys
from pathlib import Path
from mae_lib.images.pool import started
from multiprocessing.forkserver import _forkserver as server

if __name__ == "__main__":
    with started(1):
        for process in (server._forkserver_pid, os.getpid()):
            status = Path(f"/proc/{process}/status").read_text()
            print(next(line.split()[1] for line in status.splitlines() if line[:6] == "SigBlk"))
"""


@LINUX
def test_ctrl_c_does_not_reach_a_server_that_is_still_loading(tmp_path):
    """It ignores the signal only behind its imports; its starter is interrupted as ever.

    In a process of its own: here another test may have started a server already.
    """
    with script(tmp_path, _LOADING) as process:
        blocked = [
            int(word, 16) >> (signal.SIGINT - 1) & 1 for word in process.stdout.read().split()
        ]
    assert process.returncode == 0
    assert blocked == [1, 0]


def test_a_worker_whose_starter_is_gone_says_nothing(monkeypatch, capsys):
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    sys.modules.pop("mae_lib.images.pool_server", None)
    importlib.import_module("mae_lib.images.pool_server")
    for error in (FileNotFoundError(), EOFError()):
        sys.excepthook(type(error), error, None)
    assert capsys.readouterr().err == ""
    sys.excepthook(ValueError, ValueError("a fault of ours"), None)
    assert "a fault of ours" in capsys.readouterr().err
