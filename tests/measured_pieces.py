"""Pieces as `mae study piece` leaves them, with scores from a known law instead of training."""

import atexit
import dataclasses
import functools
import shutil
import tempfile
from pathlib import Path

import numpy as np

from mae_lib.cost import cost_of
from mae_lib.records.plan_file import read_plan, write_plan
from mae_lib.records.sealed import write_sealed
from mae_lib.records.table import COLUMNS, cell_columns
from mae_lib.report.merge import PIECE, merge_pieces
from mae_lib.report.order import measuring_plan
from mae_lib.report.registered import register
from mae_lib.study.definition import Cell, Study
from mae_lib.study.load import load_study


def planned_study(results: Path, name: str = "measured") -> Study:
    """Load a study and write its plan below `results`."""
    study = load_study(name)
    write_plan(results / "plan.json", measuring_plan(study))
    return study


def top1_of(cell: Cell, rng: np.random.Generator) -> float:
    """A logistic law in logs with the scatter of a few tenths of a point."""
    size = np.log(cost_of(cell).params_encoder / 2e7)
    logit = -2.2 + 0.16 * np.log(cell.images / 1200) + 0.1 * size
    logit += 0.35 * np.log(cell.resolution / 32)
    return float(1 / (1 + np.exp(-logit)) + 0.002 * rng.standard_normal())


def record_of(cell: Cell, top1: float) -> dict:
    cost, seen = cost_of(cell), cell.recipe.steps * cell.recipe.batch_size
    common = cell_columns(cell) | {
        "params_encoder": cost.params_encoder, "params_total": cost.params_total,
        "effective_resolution": float(cell.pixels), "images_seen": seen, "loss": 0.5,
        "flops": cost.flops_per_image * seen, "wall_s": 10.0, "device": "NVIDIA H100 80GB HBM3",
        "commit": "0123456789ab", "status": "complete",
    }  # fmt: skip
    rows = []
    for task in cell.data.tasks:
        for protocol in ("linear", "knn"):
            score = {
                "top1": top1,
                "top1_low": top1 - 0.01,
                "top1_high": top1 + 0.01,
                "n_eval": 2000,
            }
            score |= {"top5": None, "chance": 0.005, "pixels_top1": 0.05}
            score |= {f"random{k}_top1": 0.06 for k in range(3)}
            rows.append(common | {"task": task.name, "protocol": protocol} | score)
    assert set(rows[0]) == set(COLUMNS)
    return {"id": cell.id, "digest": cell.digest, "status": "complete", "rows": rows}


def write_piece(folder: Path, study: Study, cells: list[Cell], name: str, **changed) -> Path:
    rng = np.random.default_rng(len(cells))
    piece = {
        "study": study.name, "name": name, "started": "2026-01-01T00:00:00Z",
        "ended": "2026-01-01T00:09:00Z", "minutes": 9.0, "together": 5, "cores": 16,
        "device": "NVIDIA H100 80GB HBM3", "processor": "a processor", "versions": {"torch": "2.11"},
        "commit": "0123456789ab", "code_sha256": "0" * 64, "images_sha256": None,
        "pixels_digest": None, "failed": {}, "features": {},
        "records": {c.id: record_of(c, top1_of(c, rng)) for c in cells},
        "curves": {c.id: '{"header": {}}\n' for c in cells},
        "seconds": {c.id: {"train": 10.0, "total": 16.0, "peak_memory_bytes": None} for c in cells},
        "baselines": {"pixels-16-0.json": {"rows": [], "about": {}}},
    }  # fmt: skip
    write_sealed(folder / PIECE, piece | changed)
    return folder


def smaller_and_largest(study: Study, results: Path) -> tuple[list[Cell], list[Cell]]:
    plan = read_plan(results / "plan.json", study)
    cells = [study.cell(cell.id) for cell in plan.cells]
    largest = set(plan.largest)
    return [c for c in cells if c.id not in largest], [c for c in cells if c.id in largest]


def quick(study: Study) -> Study:
    """The study with two laws and few bootstraps, for tests that look at no interval of a law."""
    law = dataclasses.replace(study.law, laws=("log_product", "logit_additive"), bootstrap=100)
    return dataclasses.replace(study, law=law)


@functools.cache
def foretold() -> tuple[Study, Path, dict]:
    """Smaller cells merged, the largest predicted, then measured and merged: once a test run.

    Returns the study, a folder with `results/measured`, and the prediction.
    """
    folder = Path(tempfile.mkdtemp(prefix="mae-foretold-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in ("measured", "measured-128"):
        planned_study(folder / "results" / name, name)
    results, study = folder / "results" / "measured", quick(load_study("measured"))
    smaller, largest = smaller_and_largest(study, results)
    merge_pieces(study, [write_piece(folder / "a", study, smaller[:40], "p1")], results)
    before = register(study, results)
    merge_pieces(study, [write_piece(folder / "b", study, largest, "p2")], results)
    return study, folder, before
