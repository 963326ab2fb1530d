"""How far a cell is, read from its own files."""

import json
from pathlib import Path

from mae_lib.errors import RecordError
from mae_lib.records.sealed import read_sealed


def cell_state(folder: Path) -> str:
    """Say in a few words how far the cell in `folder` is."""
    try:
        if (folder / "record.json").exists():
            return str(read_sealed(folder / "record.json")["status"])
        if (folder / "training.json").exists():
            read_sealed(folder / "training.json")
            return "trained, not evaluated"
    except RecordError as error:
        return f"damaged: {error}"
    if (row := last_metrics(folder)) is not None:
        return f"training, step {row['step']}"
    return "not begun"


def last_metrics(folder: Path) -> dict | None:
    """Return the newest whole row of a cell's loss curve."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return None
    for line in reversed(path.read_bytes()[-4000:].splitlines()):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        return row if {"step", "images_seen", "loss", "images_per_s"} <= set(row) else None
    return None
