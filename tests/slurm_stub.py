"""A Slurm of one machine for tests: sbatch really runs the job, in the background.

Installed under each command's name by `install`. Jobs are files of the folder in STUB_SLURM: `ID.call`
(how sbatch was called), `ID.pid` and, once it has ended, `ID.state`. Where a real sacct would be asked
again and again, this one answers when something has changed.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

NAMES = ("sbatch", "srun", "sacct", "squeue", "scancel", "sinfo", "scontrol", "sacctmgr")


def install(folder: Path) -> dict[str, str]:
    """Write the commands into `folder`; return the environment that finds them."""
    jobs, commands = folder / "jobs", folder / "bin"
    jobs.mkdir(parents=True)
    commands.mkdir()
    source = Path(__file__).read_text(encoding="utf-8")
    for name in NAMES:
        (commands / name).write_text(f"#!{sys.executable} -IS\n{source}", encoding="utf-8")
        (commands / name).chmod(0o755)
    path = os.pathsep.join((str(commands), os.environ["PATH"]))
    return {"PATH": path, "STUB_SLURM": str(jobs)}


def value(arguments: list[str], option: str) -> str | None:
    for this, after in zip(arguments, [*arguments[1:], None], strict=True):
        if this == option:
            return after
        if this.startswith(f"{option}="):
            return this.partition("=")[2]
    return None


def sbatch(arguments: list[str], jobs: Path) -> None:
    job = str(1000 + len(list(jobs.glob("*.call"))))
    (jobs / f"{job}.call").write_text(json.dumps(arguments))
    output = value(arguments, "--output").replace("%j", job)
    runner = [sys.executable, "-IS", __file__, "run", job, value(arguments, "--wrap")]
    with open(output, "w") as log:
        subprocess.Popen(
            runner,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            cwd=value(arguments, "-D"),
            env=os.environ | {"SLURM_JOB_ID": job},
            start_new_session=True,
        )
    print(job)


def run(arguments: list[str], jobs: Path) -> None:
    job, command = arguments
    (jobs / f"{job}.pid").write_text(str(os.getpid()))
    # A node has as many GPUs as a job asks for; this one has none to give.
    process = subprocess.Popen(command, shell=True, env=os.environ | {"MAE_DEVICE": "cpu"})
    code = process.wait()
    cancelled = (jobs / f"{job}.cancelled").exists()
    state = "CANCELLED" if cancelled else "FAILED" if code else "COMPLETED"
    (jobs / f"{job}.state").write_text(state)


def srun(arguments: list[str], jobs: Path) -> None:
    while arguments[0].startswith("-"):
        arguments = arguments[1:]
    os.execvp(arguments[0], arguments)


def sacct(arguments: list[str], jobs: Path) -> None:
    if (name := value(arguments, "--name")) is None:
        return
    # Of the run that asks only: what ended in an earlier one is no news.
    states = [path.with_suffix(".state") for path in named(name, jobs)]
    seen, deadline = jobs / "seen", time.monotonic() + 30
    known = set(seen.read_text().split()) if seen.exists() else set()
    while time.monotonic() < deadline:
        ended = {path.name for path in states if path.exists()}
        if ended - known or not states:
            break
        time.sleep(0.02)
    seen.write_text("\n".join(known | ended))
    for state in states:
        print(f"{state.stem}|{state.read_text() if state.exists() else 'RUNNING'}")


def named(name: str, jobs: Path) -> list[Path]:
    """Return the calls of the jobs of one run of the engine."""
    calls = sorted(jobs.glob("*.call"))
    return [c for c in calls if value(json.loads(c.read_text()), "--job-name") == name]


def squeue(arguments: list[str], jobs: Path) -> None:
    sacct(arguments, jobs)


def scancel(arguments: list[str], jobs: Path) -> None:
    """End every process of the jobs, as Slurm's own does, whatever session it is in."""
    name = value(arguments, "--name")
    for job in [call.stem for call in named(name, jobs)] or arguments:
        if (jobs / f"{job}.state").exists():
            continue
        (jobs / f"{job}.cancelled").touch()
        for number in children(int((jobs / f"{job}.pid").read_text())):
            os.kill(number, signal.SIGTERM)


def children(parent: int) -> list[int]:
    found, tree = [], {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            tree.setdefault(int(fields[1]), []).append(int(process.name))
        except OSError:
            continue
    stack = [parent]
    while stack:
        found.append(stack.pop())
        stack += tree.get(found[-1], ())
    return [number for number in found if number != parent]


def sinfo(arguments: list[str], jobs: Path) -> None:
    print("PARTITION\nbatch*")


def sacctmgr(arguments: list[str], jobs: Path) -> None:
    print("lab")


def scontrol(arguments: list[str], jobs: Path) -> None:
    print("MaxArraySize = 1001")


if __name__ == "__main__":
    name, given = Path(sys.argv[0]).name, sys.argv[1:]
    if given[:1] == ["run"] and name == "sbatch":
        name, given = "run", given[1:]
    globals()[name](given, Path(os.environ["STUB_SLURM"]))
