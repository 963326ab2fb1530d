"""Pieces that came back become published results: checked, kept with what made them, tabled.

`results/<study>/pieces/` is the evidence; runs.csv, fit.json and predictions.csv follow from it and
are made anew at every merge.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mae_lib.errors import FitError, RecordError, StudyError
from mae_lib.records.atomic import sha256_of, write_text
from mae_lib.records.plan_file import read_plan
from mae_lib.records.provenance import commit
from mae_lib.records.sealed import read_sealed, write_sealed
from mae_lib.records.sidecar import seal_path, write_list, write_table
from mae_lib.records.table import COLUMNS, require_cell, runs_table
from mae_lib.report.results import law_table, study_targets
from mae_lib.scaling.fit import fit_laws
from mae_lib.scaling.predict import predictions_frame
from mae_lib.study.definition import Study

PIECE = "piece.json"
_PROVENANCE = (
    "name", "device", "processor", "cores", "versions", "commit", "code_sha256", "images_sha256",
    "pixels_digest", "started", "ended", "minutes", "together", "returned_sha256",
)  # fmt: skip


@dataclass(frozen=True)
class Merged:
    """What a merge left: cells that are new, cells measured in all, of how many, and a note."""

    new: tuple[str, ...]
    measured: int
    cells: int
    note: str | None


def merge_pieces(study: Study, folders: Sequence[Path], results: Path) -> Merged:
    """Check the pieces in `folders`, add them to `results`, and make its tables anew.

    Nothing is written before every piece is checked, and tables that `mae study publish` wrote are
    never replaced.
    Raises: RecordError or StudyError in one line for a piece that is damaged, of another study, or
    merged before; for a cell that is foreign, of another digest, or measured twice; and for one of
    the largest cells that was not predicted first.
    """
    known = merged_pieces(results)
    _refuse_other_tables(study, known, folders, results)
    pieces = [_checked(study, folder, results, known) for folder in folders]
    for number, piece in enumerate(pieces):
        for other in pieces[:number]:
            _refuse_twice(piece, other, folders[number])
    for piece in pieces:
        for name, curve in piece.pop("curves").items():
            write_text(results / "metrics" / f"{name}.jsonl", curve)
        add_baselines(results, piece.pop("baselines"))
        write_sealed(results / "pieces" / f"{piece['name']}.json", piece)
    note = write_tables(study, results)
    new = tuple(name for piece in pieces for name in piece["records"])
    return Merged(new, len(merged_records(results)), len(study.cells), note)


def read_piece(folder: Path) -> dict:
    """Read the piece in a folder.

    Raises: StudyError when there is none; RecordError when it is damaged.
    """
    path = folder / PIECE
    if not path.exists():
        raise StudyError(f"{path}: missing; name a folder that `mae study piece` wrote")
    try:
        return read_sealed(path)
    except RecordError as error:
        # What it holds was measured elsewhere and cannot be made anew here.
        problem = str(error).partition(";")[0]
        raise RecordError(f"{problem}; copy it again from where it was measured") from None


def merged_pieces(results: Path) -> list[dict]:
    """Return the pieces of a results folder, in the order of their names."""
    return [read_sealed(path) for path in sorted((results / "pieces").glob("*.json"))]


def merged_records(results: Path) -> dict[str, dict]:
    """Return every measured cell's record by id."""
    return {n: r for piece in merged_pieces(results) for n, r in piece["records"].items()}


def write_tables(study: Study, results: Path) -> str | None:
    """Write runs.csv, fit.json and predictions.csv from the pieces; return why no law is fitted."""
    runs = runs_table(study.cells, merged_records(results))
    write_table(results / "runs.csv", runs)
    _write_provenance(study, results)
    try:
        table = law_table(study, runs)
        fits = fit_laws(table, study.law.laws, bootstrap=study.law.bootstrap, seed=0)
    except FitError as error:
        # Laws of fewer cells must not stand beside a newer table.
        for name in ("fit.json", "predictions.csv"):
            for path in (results / name, seal_path(results / name)):
                path.unlink(missing_ok=True)
        return str(error)
    write_list(results / "fit.json", [fit.to_json() for fit in fits])
    write_table(results / "predictions.csv", predictions_frame(fits, study_targets(study)))
    return None


def add_baselines(results: Path, files: Mapping[str, Mapping]) -> None:
    """Keep baselines by file name, so that later pieces read them."""
    path = results / "baselines.json"
    before = read_sealed(path)["files"] if path.exists() else {}
    # The first measurement of a baseline stands: the rows of its cells carry it.
    write_sealed(path, {"files": dict(files) | before})


def _refuse_other_tables(
    study: Study, known: Sequence[Mapping], folders: Sequence[Path], results: Path
) -> None:
    """Tables follow from pieces: without any, those that lie there are another run's evidence."""
    if known:
        return
    if (results / "runs.csv").exists():
        raise StudyError(
            f"{results}/runs.csv: published by `mae study publish` and not from pieces, which a "
            "merge would replace; give the study of the pieces another name"
        )
    if not folders:
        raise StudyError(f"{results}: no piece of {study.name} is merged; name a piece's folder")


def _checked(study: Study, folder: Path, results: Path, known: Sequence[Mapping]) -> dict:
    path, piece = folder / PIECE, read_piece(folder)
    if piece.get("study") != study.name:
        raise StudyError(f"{path}: a piece of {piece.get('study')}, not of {study.name}")
    cells = {cell.id: cell for cell in study.cells}
    largest = set(read_plan(results / "plan.json", study).largest)
    for name, record in piece["records"].items():
        if name not in cells:
            raise RecordError(f"{path}: {name}: none of {study.name}'s cells; it is refused")
        require_cell(record, cells[name], path)
        for row in record["rows"]:
            if row["cell"] != name or not set(row) <= set(COLUMNS):
                raise RecordError(f"{path}: {name}: a row of another cell or of other columns")
        if name in largest and not (results / "registered.json").exists():
            raise RecordError(
                f"{path}: {name}: one of the largest cells, and {results / 'registered.json'} is "
                "missing: they are predicted before they are measured"
            )
    for other in known:
        _refuse_twice(piece, other, folder)
    return piece | {"returned_sha256": sha256_of(path)}


def _refuse_twice(piece: Mapping, other: Mapping, folder: Path) -> None:
    if piece["name"] == other["name"]:
        raise RecordError(f"{folder}: piece {piece['name']} is merged already", exit_code=2)
    if twice := sorted(set(piece["records"]) & set(other["records"])):
        raise RecordError(
            f"{folder}: {twice[0]}: measured already in piece {other['name']} "
            f"(+{len(twice) - 1} more); a cell is merged once",
            exit_code=2,
        )


def _write_provenance(study: Study, results: Path) -> None:
    pieces = merged_pieces(results)
    records = {n: r for piece in pieces for n, r in piece["records"].items()}
    about = {
        "study": study.name,
        "study_file": f"{study.name}.yaml",
        "data_digest": study.data.digest,
        "cells": {name: record["digest"] for name, record in records.items()},
        "commit": sorted({row["commit"] for r in records.values() for row in r["rows"]}),
        "device": sorted({piece["device"] for piece in pieces}),
        "pieces": [
            {name: piece.get(name) for name in _PROVENANCE} | {"cells": len(piece["records"])}
            for piece in pieces
        ],
        "published_from": commit(),
    }
    write_text(results / "provenance.json", json.dumps(about, indent=1, sort_keys=True) + "\n")
