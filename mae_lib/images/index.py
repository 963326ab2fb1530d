"""The tables of a store, written from the journal in pieces, so that memory does not grow with N."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from mae_lib.images.blocks import Block, block_hash, name_of
from mae_lib.images.pack import Filled
from mae_lib.records.atomic import replacing

# Rows in memory at once. A store of fewer images has the bytes of DataFrame.to_parquet.
GROUP_ROWS = 2**17


def write_index(folder: Path, filled: Filled, transform: str) -> dict[str, int]:
    """Write index.parquet, a row an image of the mixture; return the images of each source."""
    counts: dict[str, int] = {}

    def frames() -> Iterator[pd.DataFrame]:
        for block, facts in filled.blocks(folder):
            for run in block.runs:
                counts[run.source] = counts.get(run.source, 0) + len(run.items)
            yield pd.DataFrame(_index_columns(block, facts))

    write_frames(folder / "index.parquet", frames(), attributes={"transform": transform})
    return counts


def write_origins(folder: Path, arrays: Sequence[Filled]) -> None:
    """Write origins.parquet: of every image of every array, its file and the hash of its bytes."""

    def frames() -> Iterator[pd.DataFrame]:
        for filled in arrays:
            for block, facts in filled.blocks(folder):
                yield pd.DataFrame(
                    {
                        "array": filled.array.file,
                        "row": list(block.rows),
                        "source": _sources(block),
                        "name": [name_of(run.source, i) for run in block.runs for i in run.items],
                        "file": [item.file for run in block.runs for item in run.items],
                        "label": facts["label"],
                        "sha256_encoded": facts["encoded"],
                        "sha256": facts["sha256"],
                    }
                )

    write_frames(folder / "origins.parquet", frames())


def seals(folder: Path, filled: Filled) -> dict[str, list[str]]:
    """Return, for an array and each of its smaller copies, the hash of every block."""
    found: dict[str, list[str]] = {"": []}
    for _, facts in filled.blocks(folder):
        found[""].append(block_hash(facts["sha256"]))
        for side, hashes in facts["smaller"].items():
            found.setdefault(side, []).append(block_hash(hashes))
    return found


def write_frames(
    path: Path, frames: Iterator[pd.DataFrame], *, attributes: dict[str, str] | None = None
) -> None:
    """Write frames of equal columns as one Parquet file, a row group at a time."""
    with replacing(path) as temporary:
        writer, waiting, rows = None, [], 0
        for frame in frames:
            waiting.append(frame)
            rows += len(frame)
            if rows >= GROUP_ROWS:
                writer = _write_group(writer, temporary, waiting, attributes)
                waiting, rows = [], 0
        if waiting or writer is None:
            writer = _write_group(writer, temporary, waiting, attributes)
        writer.close()


def _write_group(writer, path: Path, frames: list[pd.DataFrame], attributes) -> pq.ParquetWriter:
    whole = pd.concat(frames, ignore_index=True)
    whole.attrs = attributes or {}  # kept in the file's metadata, as DataFrame.to_parquet does
    table = pa.Table.from_pandas(whole, preserve_index=False)
    if writer is None:
        notes = table.schema.metadata | {b"PANDAS_ATTRS": json.dumps(whole.attrs).encode()}
        schema = table.schema.with_metadata(notes) if whole.attrs else table.schema
        writer = pq.ParquetWriter(path, schema)
    writer.write_table(table.cast(writer.schema), row_group_size=GROUP_ROWS)
    return writer


def _index_columns(block: Block, facts: dict) -> dict[str, list]:
    return {
        "source": _sources(block),
        "name": [name_of(run.source, item) for run in block.runs for item in run.items],
        "label": facts["label"],
        "native_width": facts["width"],
        "native_height": facts["height"],
        "sha256": facts["sha256"],
    }


def _sources(block: Block) -> list[str]:
    return [run.source for run in block.runs for _ in run.items]
