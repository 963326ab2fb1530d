"""A frame as a CSV file: apart from `atomic`, so that writing a file does not load pandas.

A worker that packs images would hold 39 MiB of it for nothing.
"""

import io
from pathlib import Path

import pandas as pd

from mae_lib.records.atomic import write_text


def write_csv(path: Path, frame: pd.DataFrame) -> str:
    """Write a frame without its index, floats with all their digits; return the sha256."""
    buffer = io.StringIO()
    frame.to_csv(buffer, index=False, lineterminator="\n")
    return write_text(path, buffer.getvalue())
