"""Start Snakemake for a study, show one live display, and leave no orphan and no stale lock."""

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from mae_lib.errors import INTERRUPTED, BusyError, Interrupted, MaeError
from mae_lib.records.orphans import die_with_parent
from mae_lib.records.provenance import available_cores
from mae_lib.report.progress import last_metrics
from mae_lib.study.definition import Study
from mae_lib.study.paths import RunPaths, root

POLL_SECONDS = 0.5
END_SECONDS = 8.0


def run_engine(study: Study, paths: RunPaths, *, cells: str) -> None:
    """Run every job of the study that is missing.

    Raises: MaeError with the first failed job's own line; Interrupted; BusyError.
    """
    log = paths.folder / "logs" / "snakemake.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    _unlock(paths)
    process = None
    with open(log, "w", encoding="utf-8") as file:
        process = subprocess.Popen(
            _command(paths, cells=cells),
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=paths.folder,
            env=os.environ | {"PYTHONPATH": str(root()), "MAE_ROOT": str(root())},
            start_new_session=True,
            # Told to end, Snakemake would wait for its jobs; killed, it ends, and they with it.
            preexec_fn=functools.partial(die_with_parent, signal.SIGKILL),
        )
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            _watch(process, study, paths)
        except KeyboardInterrupt:
            _end(process)
            raise Interrupted(
                f"{study.name}: interrupted; every finished cell is kept, "
                "the same command goes on from here"
            ) from None
        finally:
            signal.signal(signal.SIGTERM, before)
    if process.returncode:
        raise _failure(study, log, process.returncode)


def _end(process: subprocess.Popen) -> None:
    """End the engine and its jobs; those that do not listen within ten seconds are killed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=END_SECONDS)
            return


def _command(paths: RunPaths, *, cells: str) -> list[str]:
    snakefile = root() / "workflow" / "Snakefile"
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile)]
    command += ["--config", f"out={paths.folder.name}", f"cells={cells}"]
    command += ["--rerun-incomplete", "--rerun-triggers", "input", "--keep-going", "--nocolor"]
    command += ["--cores", str(available_cores())]
    return [*command, "--resources", "gpu=1"] if _has_gpu() else command


def _has_gpu() -> bool:
    return os.environ.get("MAE_DEVICE") != "cpu" and Path("/dev/nvidia0").exists()


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
        self.done_at_start = self.finished()

    def finished(self) -> int:
        """Return the number of cells with a record."""
        return sum((self.paths.cell(c.id) / "record.json").exists() for c in self.study.cells)

    def running(self) -> list[tuple[str, dict]]:
        """Return the newest metrics row of every cell that is training now."""
        rows = []
        for cell in self.study.cells:
            folder = self.paths.cell(cell.id)
            if not (folder / "training.json").exists() and (row := last_metrics(folder)):
                rows.append((cell.id, row))
        return rows

    def left_s(self) -> float | None:
        """Estimate the time left from the share of all images that has been seen."""
        passed = time.monotonic() - self.started
        total = sum(c.recipe.steps * c.recipe.batch_size for c in self.study.cells)
        per_cell = total / len(self.study.cells)
        running = sum(row["images_seen"] for _, row in self.running())
        seen = (self.finished() - self.done_at_start) * per_cell + running
        left = total - self.done_at_start * per_cell - seen
        return passed * left / seen if seen > 0 else None

    def line(self) -> str:
        """Return the display as one line of text, for logs."""
        left, rate = self.left_s(), sum(row["images_per_s"] for _, row in self.running())
        speed = f", {rate:,.0f} images/s" if rate else ""
        time_left = f", about {_clock(left)} left" if left else ""
        return f"cells {self.finished()}/{len(self.study.cells)}{speed}{time_left}"

    def table(self) -> Table:
        """Return the display for a terminal."""
        table = Table(title=self.line(), title_justify="left", box=None, pad_edge=False)
        for name in ("cell", "step", "loss", "images/s"):
            table.add_column(name, justify="left" if name == "cell" else "right")
        for cell_id, row in self.running():
            loss = "-" if row["loss"] is None else f"{row['loss']:.3f}"
            table.add_row(cell_id, str(row["step"]), loss, f"{row['images_per_s']:,.0f}")
        return table


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _failure(study: Study, log: Path, code: int) -> MaeError:
    """Find our own line in the log: jobs print `mae: ...` before they fail."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
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
    last = next((line for line in reversed(lines) if line.strip()), "no output")
    return MaeError(f"{study.name}: the engine stopped with code {code}: {last} (log: {log})")


def _exit_code(lines: list[str]) -> int:
    codes = [int(line.split()[-1]) for line in lines if line.startswith("mae-exit-code ")]
    return codes[0] if codes and codes[0] in (1, 2, 3, 4, INTERRUPTED) else 1
