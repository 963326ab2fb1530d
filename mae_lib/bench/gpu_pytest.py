"""A pytest plugin that writes one JSON line a test as it ends, so that a run cut short still counts.

Loaded by `bench gpu` through `-p`; the file is named by MAE_PYTEST_LOG.
"""

import json
import os

_WORDS = 300


def pytest_configure(config) -> None:
    """Declare our marks, since the suite's own settings are not read."""
    for mark in ("gpu: needs a CUDA device", "pocket: end to end, minutes"):
        config.addinivalue_line("markers", mark)


def pytest_runtest_logreport(report) -> None:
    """Note a test's outcome: of its call, or of what kept it from being called."""
    if report.when == "call" or report.outcome != "passed":
        outcome = "error" if report.when != "call" and report.failed else report.outcome
        _note(report.nodeid, outcome, report.duration, _why(report))


def pytest_collectreport(report) -> None:
    """Note a file that cannot be collected."""
    if report.failed:
        _note(report.nodeid, "error", 0.0, _why(report))


def _why(report) -> str:
    if report.outcome == "passed":
        return ""
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[-1])[-_WORDS:]
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(report.longrepr)
    return " ".join(text.split())[-_WORDS:] if crash is None else " ".join(text.split())[:_WORDS]


def _note(test: str, outcome: str, seconds: float, why: str) -> None:
    if not (path := os.environ.get("MAE_PYTEST_LOG")):
        return
    row = {"test": test, "outcome": outcome, "seconds": round(seconds, 3), "why": why}
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
