"""Tables and lists keep their sha256 and format beside them, in `<name>.seal.json`."""

import json
from pathlib import Path

import pandas as pd

from mae_lib.errors import RecordError
from mae_lib.records.atomic import sha256_of, write_text
from mae_lib.records.csv_file import write_csv
from mae_lib.records.sealed import REMEDY, read_sealed, write_sealed


def seal_path(path: Path) -> Path:
    """Return the name of a file's sidecar."""
    return path.with_name(path.name + ".seal.json")


def write_table(path: Path, frame: pd.DataFrame) -> None:
    """Write a frame as CSV with its sidecar."""
    write_sealed(seal_path(path), {"sha256": write_csv(path, frame)})


def write_list(path: Path, value: object) -> None:
    """Write JSON (a list, say) with its sidecar."""
    text = json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n"
    write_sealed(seal_path(path), {"sha256": write_text(path, text)})


def check_sidecar(path: Path) -> str:
    """Return the sha256 of a file after comparing it with its sidecar.

    Raises: RecordError when either is missing or they differ.
    """
    if not path.exists():
        raise RecordError(f"{path}: missing; run the study again")
    sha256 = sha256_of(path)
    if read_sealed(seal_path(path))["sha256"] != sha256:
        raise RecordError(f"{path}: changed after it was written, its hash differs; {REMEDY}")
    return sha256


def read_table(path: Path) -> pd.DataFrame:
    """Read a checked CSV."""
    check_sidecar(path)
    return pd.read_csv(path)


def read_list(path: Path) -> object:
    """Read a checked JSON file."""
    check_sidecar(path)
    return json.loads(path.read_text(encoding="utf-8"))
