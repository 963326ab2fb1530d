"""Curves of a cell as JSON lines: one header, then one line every few steps."""

import json
from pathlib import Path

from mae_lib.records.atomic import append_line, write_text

KEYS = ("step", "images_seen", "loss", "lr", "grad_norm", "images_per_s")
KNN_KEYS = ("step", "epoch", "task", "top1", "n_eval")


class MetricsFile:
    """Appends to a curve (`metrics.jsonl`), after cutting it back to the step that a run resumes
    from. A row has at least `keys`; an event, told of between rows, has `after_step` instead."""

    def __init__(self, path: Path, *, header: dict, from_step: int, keys: tuple[str, ...] = KEYS):
        self.path, self.keys = path, keys
        kept = [line for line in _lines(path) if _step(line, keys) <= from_step]
        lines = [json.dumps({"header": header}, sort_keys=True)]
        lines += [json.dumps(line) for line in kept]
        write_text(path, "\n".join(lines) + "\n")

    def append(self, **row) -> None:
        """Write one line; a cut line at the end of the file is dropped at the next resume."""
        rest = {key: value for key, value in row.items() if key not in self.keys}
        append_line(self.path, json.dumps({key: row[key] for key in self.keys} | rest))

    def tell(self, event: str, *, after_step: int, **fields) -> None:
        """Write what happened between two rows."""
        append_line(self.path, json.dumps({"event": event, "after_step": after_step} | fields))


def read_metrics(path: Path, keys: tuple[str, ...] = KEYS) -> list[dict]:
    """Read the rows of a curve, without its header, its events and a cut last line."""
    return [line for line in _lines(path) if set(keys) <= set(line)]


def read_events(path: Path) -> list[dict]:
    """Read what happened between the rows of a curve."""
    return [line for line in _lines(path) if "event" in line]


def read_header(path: Path) -> dict:
    """Read the header of a curve; empty when there is none."""
    return next((line["header"] for line in _lines(path) if "header" in line), {})


def _lines(path: Path) -> list[dict]:
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def _step(line: dict, keys: tuple[str, ...]) -> float:
    """Return after which step a line was written; a header, or what is no line, after the last."""
    if set(keys) <= set(line):
        return line["step"]
    return line.get("after_step", float("inf"))
