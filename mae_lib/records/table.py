"""runs.csv: one row a cell, task and protocol. Fractions, never percent; failed cells stay."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from mae_lib.errors import RecordError
from mae_lib.records.sealed import read_sealed
from mae_lib.study.definition import Cell

COLUMNS = (
    "cell", "digest", "model", "params_encoder", "params_total", "patch_size", "resolution",
    "effective_resolution", "images", "images_seen", "mask_ratio", "seed", "task", "protocol",
    "top1", "top1_low", "top1_high", "n_eval", "top5", "loss", "flops", "wall_s", "device",
    "dtype", "commit", "status", "chance", "pixels_top1", "random0_top1", "random1_top1",
    "random2_top1",
)  # fmt: skip


def collect(cells: Sequence[Cell], folder: Path) -> pd.DataFrame:
    """Gather the records below `folder` (one folder a cell) in the order of the grid.

    A cell without a record gives one row with status `missing`, so that holes are seen.
    Raises: RecordError for a damaged record, or one of another digest.
    """
    records = {}
    for cell in cells:
        path = folder / cell.id / "record.json"
        if path.exists():
            records[cell.id] = read_sealed(path)
            require_cell(records[cell.id], cell, path)
    return runs_table(cells, records)


def runs_table(cells: Sequence[Cell], records: Mapping[str, Mapping]) -> pd.DataFrame:
    """Return the table of records by cell id, in the order of the grid, holes as `missing`."""
    rows = []
    for cell in cells:
        record = records.get(cell.id)
        rows += record["rows"] if record else [{**cell_columns(cell), "status": "missing"}]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def require_cell(record: Mapping, cell: Cell, path: Path) -> None:
    """Refuse a record of another digest.

    Raises: RecordError.
    """
    if record["digest"] != cell.digest:
        raise RecordError(f"{path}: belongs to cell {record['digest']}, not {cell.digest}")


def cell_columns(cell: Cell) -> dict:
    """Return the columns that are known before a cell runs."""
    return {
        "cell": cell.id,
        "digest": cell.digest,
        "model": cell.model,
        "patch_size": cell.patch_size,
        "resolution": cell.resolution,
        "images": cell.images,
        "mask_ratio": cell.mask_ratio,
        "seed": cell.seed,
        "dtype": cell.recipe.precision,
    }
