"""The loss curve of a cell as JSON lines: one header, then one line every few steps."""

import json
from pathlib import Path

from mae_lib.records.atomic import append_line, write_text

KEYS = ("step", "images_seen", "loss", "lr", "grad_norm", "images_per_s")


class MetricsFile:
    """Appends to `metrics.jsonl`, after cutting it back to the step that a run resumes from."""

    def __init__(self, path: Path, *, header: dict, from_step: int):
        self.path = path
        kept = [row for row in read_metrics(path) if row["step"] <= from_step]
        lines = [json.dumps({"header": header}, sort_keys=True)]
        lines += [json.dumps(row) for row in kept]
        write_text(path, "\n".join(lines) + "\n")

    def append(self, **row) -> None:
        """Write one line; a cut line at the end of the file is dropped at the next resume."""
        append_line(self.path, json.dumps({key: row[key] for key in KEYS}))


def read_metrics(path: Path) -> list[dict]:
    """Read the rows of a loss curve, without its header and without a cut last line."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and set(KEYS) <= set(row):
            rows.append(row)
    return rows
