"""Copy the small evidence of a finished study to results/, with provenance; never an image."""

import json
from pathlib import Path

import vl_convert

from mae_lib.charts.laws import prediction_fan
from mae_lib.charts.renderer import rounded
from mae_lib.errors import RecordError
from mae_lib.records.atomic import write_bytes, write_text
from mae_lib.records.provenance import commit, processor, versions
from mae_lib.records.sealed import read_sealed, write_sealed
from mae_lib.records.sidecar import check_sidecar, read_table, seal_path
from mae_lib.report.headline import write_headline
from mae_lib.report.pages import committed_headline
from mae_lib.study.definition import Study
from mae_lib.study.paths import RunPaths, root


def publish_results(study: Study, study_file: Path, paths: RunPaths) -> Path:
    """Write results/<study>/ and return it. Cells that are missing stay as holes in runs.csv.

    Raises: RecordError when a file is missing or damaged, or the results are made of pieces.
    """
    folder = root() / "results" / study.name
    if (folder / "pieces").is_dir():
        raise RecordError(
            f"{folder}: made from pieces, which this run would replace; "
            "`mae study merge` adds to them",
            exit_code=2,
        )
    for path in (paths.runs_csv, paths.fit_json, paths.predictions_csv):
        check_sidecar(path)
        for file in (path, seal_path(path)):
            write_bytes(folder / file.name, file.read_bytes())
    write_answer(folder)
    manifest = read_sealed(paths.store(study.data.digest) / "manifest.json")
    write_sealed(folder / "manifest.json", {k: v for k, v in manifest.items() if k != "format"})
    for cell in study.cells:
        curve = paths.cell(cell.id) / "metrics.jsonl"
        if not curve.exists():
            continue
        write_bytes(folder / "metrics" / f"{cell.id}.jsonl", curve.read_bytes())
    found = {c.id: paths.cell(c.id) / "record.json" for c in study.cells}
    records = {name: read_sealed(path) for name, path in found.items() if path.exists()}
    first = next(iter(records.values()))
    provenance = {
        "study": study.name,
        "study_file": study_file.name,
        "data_digest": study.data.digest,
        "cells": {name: record["digest"] for name, record in records.items()},
        "commit": sorted({row["commit"] for r in records.values() for row in r["rows"]}),
        "processor": processor(),
        "device": first["environment"]["device"],
        "threads": first["environment"]["threads"],
        "versions": versions(),
        "published_from": commit(),
    }
    write_text(folder / "provenance.json", json.dumps(provenance, indent=1, sort_keys=True) + "\n")
    write_headline(root() / "README.md", committed_headline(root()))
    return folder


def write_answer(folder: Path) -> None:
    """Draw every law's answer at each target from the predictions in a results folder."""
    spec = rounded(prediction_fan(read_table(folder / "predictions.csv")).to_dict())
    write_text(folder / "answer.svg", vl_convert.vegalite_to_svg(json.dumps(spec)))
