"""Run Jupyter Book, strictly: a warning is an error, and an error is one line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from mae_lib.errors import MaeError
from mae_lib.study.paths import root

# The interpreter itself, because a venv's scripts need not be on the path.
START = "from jupyter_book.cli.main import main; main()"


def build(source: Path, target: Path) -> Path:
    """Build the book in `source` into `target`/html and return its first page.

    The old book stays until the new one is complete. Raises: MaeError with the first warning.
    """
    log = target / "build.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target / "_build", ignore_errors=True)
    command = [sys.executable, "-c", START, "build", str(source)]
    command += ["-W", "-n", "--keep-going", "--path-output", str(target)]
    found = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=source,
        env=os.environ | {"PYTHONPATH": str(root()), "PYDEVD_DISABLE_FILE_VALIDATION": "1"},
    )
    log.write_text(found.stdout + found.stderr, encoding="utf-8")
    if found.returncode:
        raise MaeError(f"book: {_first_problem(found.stdout + found.stderr)} (log: {log})")
    html = target / "html"
    shutil.rmtree(html, ignore_errors=True)
    (target / "_build" / "html").rename(html)
    shutil.rmtree(target / "_build", ignore_errors=True)
    return html / "index.html"


def build_committed() -> Path:
    """Build the book of the committed notebooks and results into `_build`."""
    return build(root(), root() / "_build" / "book")


def _first_problem(output: str) -> str:
    marks = ("WARNING", "ERROR", "Error:", "mae_lib.errors", "Exception")
    lines = [line.strip() for line in output.splitlines()]
    problems = [line for line in lines if any(mark in line for mark in marks)]
    return problems[0] if problems else (lines[-1] if lines else "no output")
