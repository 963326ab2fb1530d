"""The tests that need a device, run by pytest in a process of its own without the suite's plugins."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mae_lib.study.paths import root

SECONDS = 110.0
_MARK, _DRY_FILE = "pytest.mark.gpu", "test_linear_fp8.py"
# Our own settings need beartype and nbval; a plugin that is not there must not stop the run.
_OPTIONS = ("-p", "no:cacheprovider", "-c", os.devnull, "-q", "--continue-on-collection-errors")


def tests(dry: bool) -> Iterator[dict]:
    """Run every test marked `gpu` and count outcomes; a test that was reached is counted even where
    time ran out. A dry run goes through one file, whose marked tests skip."""
    files = sorted(p for p in (root() / "tests").rglob("test_*.py") if _MARK in p.read_text())
    if dry:
        files = [p for p in files if p.name == _DRY_FILE]
    if not files:
        yield {"tests": {"files": 0}, "error": f"{root() / 'tests'}: no test marked gpu"}
        return
    with tempfile.TemporaryDirectory() as folder:
        log, said = Path(folder) / "log", Path(folder) / "said"
        command = [sys.executable, "-m", "pytest", *_OPTIONS, "-p", "mae_lib.bench.gpu_pytest"]
        command += ["--rootdir", str(root()), "-m", "gpu", *map(str, files)]
        paths = [str(root()), str(root() / "tests"), os.environ.get("PYTHONPATH", "")]
        ours = {"MAE_PYTEST_LOG": str(log), "PYTHONPATH": os.pathsep.join(paths)}
        ours |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
        ended = "in time"
        with open(said, "wb") as output:
            try:
                subprocess.run(
                    command,
                    env=os.environ | ours,
                    stdout=output,
                    stderr=output,
                    timeout=SECONDS,
                    cwd=root(),
                    check=False,
                )
            except subprocess.TimeoutExpired:
                ended = f"cut off after {SECONDS:.0f} s"
        rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        tail = said.read_text(errors="replace").strip().splitlines()[-3:]
    outcomes = [row["outcome"] for row in rows]
    found = {name: outcomes.count(name) for name in ("passed", "failed", "skipped", "error")}
    bad = [row for row in rows if row["outcome"] in ("failed", "error")]
    found |= {
        "files": len(files),
        "ended": ended,
        "failures": bad[:40],
        "reasons": sorted({row["why"] for row in rows if row["outcome"] == "skipped"}),
        "seconds": round(sum(row["seconds"] for row in rows), 2),
        "last_lines": tail,
    }
    yield {"tests": found}
