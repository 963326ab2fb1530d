"""Start Snakemake for a study, show one live display, and leave no orphan and no stale lock."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from mae_lib.cli.profiles import Profile, cancel_jobs, limits
from mae_lib.errors import INTERRUPTED, BusyError, Interrupted, MaeError
from mae_lib.records.orphans import die_with_parent
from mae_lib.report.progress import cell_left_s, cell_work, clock, curve_header, last_metrics
from mae_lib.study.definition import Study
from mae_lib.study.paths import RunPaths, root

POLL_SECONDS = 0.5
END_SECONDS = 8.0


def run_engine(study: Study, paths: RunPaths, *, cells: str, profile: Profile) -> None:
    """Run every job of the study that is missing, where `profile` says.

    Raises: MaeError with the first failed job's own line; Interrupted; BusyError.
    """
    log = paths.folder / "logs" / "snakemake.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = _command(paths, cells, profile) + limits(profile, study)
    _unlock(paths)
    process = None
    with open(log, "w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=paths.folder,
            env=os.environ | {"PYTHONPATH": str(root()), "MAE_ROOT": str(root())},
            start_new_session=True,
            preexec_fn=_prepare,
        )
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            _watch(process, study, paths)
        except KeyboardInterrupt:
            _end(process, profile)
            cancel_jobs(profile, log)
            raise Interrupted(
                f"{study.name}: interrupted; every finished cell is kept, "
                "the same command goes on from here"
            ) from None
        finally:
            signal.signal(signal.SIGTERM, before)
    if process.returncode:
        raise _failure(study, log, process.returncode)


def _prepare() -> None:
    """Told to end, Snakemake would wait for its jobs; killed, it ends, and local jobs with it."""
    die_with_parent(signal.SIGKILL)
    # A shell's background job ignores Ctrl-C, and that would be inherited.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _end(process: subprocess.Popen, profile: Profile) -> None:
    """End the engine and its jobs; those that do not listen within ten seconds are killed."""
    # Interrupted, Snakemake takes jobs back from a cluster; local ones are told themselves.
    first = signal.SIGTERM if profile.is_local else signal.SIGINT
    for number in (first, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=END_SECONDS)
            return


def _command(paths: RunPaths, cells: str, profile: Profile) -> list[str]:
    snakefile = root() / "workflow" / "Snakefile"
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile)]
    command += ["--config", f"out={paths.folder.name}", f"cells={cells}"]
    command += ["--rerun-incomplete", "--rerun-triggers", "input", "--keep-going", "--nocolor"]
    return [*command, "--profile", str(profile.folder)]


def _unlock(paths: RunPaths) -> None:
    """Snakemake leaves its lock when it is killed; our own flock says whether its owner lives."""
    locks = paths.folder / ".snakemake" / "locks"
    for lock in locks.glob("*") if locks.is_dir() else ():
        lock.unlink(missing_ok=True)


def _watch(process: subprocess.Popen, study: Study, paths: RunPaths) -> None:
    console = Console(stderr=True)
    meter = Meter(study, paths)
    if not console.is_terminal:
        last = ""
        while process.poll() is None:
            if (line := meter.line()) != last and meter.finished() != _finished_in(last):
                print(line, file=sys.stderr, flush=True)
                last = line
            time.sleep(POLL_SECONDS)
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        while process.poll() is None:
            live.update(meter.table())
            time.sleep(POLL_SECONDS)


def _finished_in(line: str) -> int:
    return int(line.split()[1].split("/")[0]) if line else -1


class Meter:
    """Reads what the cells themselves write: how many are done, images a second, time left."""

    def __init__(self, study: Study, paths: RunPaths):
        self.study, self.paths = study, paths
        self.started = time.monotonic()
        self.work = {cell.id: cell_work(cell) for cell in study.cells}
        self.work_at_start = self._worked()

    def finished(self) -> int:
        """Return the number of cells with a record."""
        return len(self._finished())

    def running(self) -> list[tuple[str, dict]]:
        """Return the newest metrics row of every cell that is training now."""
        rows = []
        for cell in self.study.cells:
            folder = self.paths.cell(cell.id)
            if not (folder / "training.json").exists() and (row := last_metrics(folder)):
                rows.append((cell.id, row))
        return rows

    def left_s(self) -> float | None:
        """Estimate the time left from the share of all counted FLOPs that this run has done."""
        passed, worked = time.monotonic() - self.started, self._worked()
        left = sum(self.work.values()) - worked
        return passed * left / gained if (gained := worked - self.work_at_start) > 0 else None

    def line(self) -> str:
        """Return the display as one line of text, for logs."""
        left, rate = self.left_s(), sum(row["images_per_s"] for _, row in self.running())
        speed = f", {rate:,.0f} images/s" if rate else ""
        time_left = f", about {clock(left)} left" if left else ""
        return f"cells {self.finished()}/{len(self.study.cells)}{speed}{time_left}"

    def table(self) -> Table:
        """Return the display for a terminal: `mean` is the loss of predicting the mean, `of GEMM`
        the share of the measured ceiling of matrix products."""
        table = Table(title=self.line(), title_justify="left", box=None, pad_edge=False)
        for name in ("cell", "step", "loss", "mean", "images/s", "of GEMM", "bound by", "left"):
            table.add_column(name, justify="left" if name in ("cell", "bound by") else "right")
        for cell_id, row in self.running():
            header = curve_header(self.paths.cell(cell_id))
            left = cell_left_s(row, header)
            table.add_row(
                cell_id,
                f"{row['step']}/{header['steps']}" if "steps" in header else str(row["step"]),
                _number(row["loss"], ".3f"),
                _number(header.get("predict_mean_loss"), ".3f"),
                f"{row['images_per_s']:,.0f}",
                _number(row.get("mfu"), ".0%"),
                row.get("bound", "-"),
                "-" if left is None else clock(left),
            )
        return table

    def _finished(self) -> set[str]:
        ids = (cell.id for cell in self.study.cells)
        return {name for name in ids if (self.paths.cell(name) / "record.json").exists()}

    def _worked(self) -> float:
        """Return the FLOPs that are done: all of a finished cell, of a running one what it saw."""
        done, cells = self._finished(), {cell.id: cell for cell in self.study.cells}
        running = sum(
            cell_work(cells[name], row["images_seen"])
            for name, row in self.running()
            if name not in done
        )
        return sum(self.work[name] for name in done) + running


def _number(value: float | None, style: str) -> str:
    return "-" if value is None else format(value, style)


def _failure(study: Study, log: Path, code: int) -> MaeError:
    """Find our own line in the log: jobs print `mae: ...` before they fail."""
    lines = _lines(log)
    for own in _logs_named(lines):
        lines += _lines(own)
    ours = [line.partition("mae: ")[2] for line in lines if line.startswith("mae: ")]
    if ours:
        more = f" (+{len(ours) - 1} more in {log})" if len(ours) > 1 else f" (log: {log})"
        return MaeError(f"{study.name}: {ours[0]}{more}", exit_code=_exit_code(lines))
    if any("LockException" in line for line in lines):
        return BusyError(f"{study.name}: another run of this study is under way; wait for it")
    if any("DeadKernelError" in line for line in lines):
        return MaeError(
            f"{study.name}: a notebook's kernel was killed, probably for memory or a full disk; "
            f"free some, then run the same command again (log: {log})"
        )
    said = [line.partition("message: ")[2] for line in lines if "    message: " in line]
    last = next((line for line in reversed(lines) if line.strip()), "no output")
    last = next(
        (line.partition("For further")[0].rstrip(".") for line in said if line != "None"), last
    )
    return MaeError(f"{study.name}: the engine stopped with code {code}: {last} (log: {log})")


def _lines(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8", errors="replace").splitlines()


def _logs_named(lines: list[str]) -> list[Path]:
    """Return the logs of failed jobs that ran elsewhere, as Snakemake names them in its own."""
    found = [re.fullmatch(r"\s+log: (.+) \(check log file.*\)", line) for line in lines]
    paths = [Path(name) for match in found if match for name in match[1].split(", ")]
    return [path for path in dict.fromkeys(paths) if path.is_file()]


def _exit_code(lines: list[str]) -> int:
    codes = [int(line.split()[-1]) for line in lines if line.startswith("mae-exit-code ")]
    return codes[0] if codes and codes[0] in (1, 2, 3, 4, INTERRUPTED) else 1
