"""The largest cells, predicted from the smaller ones before any of them is measured.

`results/<study>/registered.json` is committed before the piece that measures them; the test of the
repository's history checks that order.
"""

import time
from pathlib import Path

import pandas as pd

from mae_lib.cost import cost_of
from mae_lib.errors import RecordError
from mae_lib.records.plan_file import read_plan
from mae_lib.records.provenance import commit
from mae_lib.records.sealed import read_sealed, write_sealed
from mae_lib.records.sidecar import check_sidecar, read_table
from mae_lib.report.results import law_table
from mae_lib.scaling.fit import fit_laws
from mae_lib.scaling.predict import point_of, predict_law, stacked_answer
from mae_lib.study.definition import Cell, Study
from mae_lib.study.models import model_shape

LEVEL = 0.95
FILE = "registered.json"


def register(study: Study, results: Path) -> dict:
    """Fit the stack of laws to the merged smaller cells, predict the largest, and write it down.

    Raises: RecordError when a prediction is registered already or one of the largest cells is
    measured; FitError when the merged cells are too few.
    """
    path = results / FILE
    if path.exists():
        raise RecordError(f"{path}: a prediction is registered once, and it is", exit_code=2)
    plan = read_plan(results / "plan.json", study)
    if not (results / "runs.csv").exists():
        raise RecordError(
            f"{results / 'runs.csv'}: missing; merge a piece first: mae study merge DIR",
            exit_code=2,
        )
    runs = read_table(results / "runs.csv")
    measured = set(runs.cell[runs.status != "missing"])
    if late := sorted(measured & set(plan.largest)):
        raise RecordError(
            f"{results / 'runs.csv'}: {late[0]}: measured already (+{len(late) - 1} more); "
            "what is known cannot be predicted",
            exit_code=2,
        )
    table = law_table(study, runs)
    fits = fit_laws(table, study.law.laws, bootstrap=study.law.bootstrap, seed=0)
    points: dict[tuple, list[Cell]] = {}
    for cell in (study.cell(name) for name in plan.largest):
        points.setdefault(tuple(_factors(cell).values()), []).append(cell)
    value = {
        "study": study.name,
        "commit": commit(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "runs_sha256": check_sidecar(results / "runs.csv"),
        "rows_used": sorted(table.frame.cell),
        "task": study.law.task,
        "protocol": study.law.protocol,
        "level": LEVEL,
        "predictions": [_prediction(table, fits, cells) for cells in points.values()],
    }
    write_sealed(path, value)
    return value


def read_registered(results: Path) -> dict | None:
    """Return the registered prediction, or None where there is none."""
    path = results / FILE
    return read_sealed(path) if path.exists() else None


def compare(registered: dict, runs: pd.DataFrame) -> pd.DataFrame:
    """Return a row a predicted cell: what was said, what was measured, whether it was inside.

    `measured` and `hit` are missing where the cell is; fractions, not percent.
    """
    rows = []
    chosen = runs[(runs.task == registered["task"]) & (runs.protocol == registered["protocol"])]
    measured = chosen[chosen.status == "complete"].set_index("cell").top1
    for prediction in registered["predictions"]:
        stacked = prediction["stacked"]
        for name in prediction["cells"]:
            found = float(measured[name]) if name in measured.index else None
            known = None not in (found, stacked["low"], stacked["high"])
            rows.append(
                {
                    "cell": name,
                    **{key: prediction[key] for key in ("model", "images", "resolution")},
                    "as_if_plain": prediction["as_if_plain"],
                    "predicted": stacked["value"],
                    "low": stacked["low"],
                    "high": stacked["high"],
                    "measured": found,
                    "hit": bool(stacked["low"] <= found <= stacked["high"]) if known else None,
                }
            )
    return pd.DataFrame(rows)


def _prediction(table, fits, cells: list[Cell]) -> dict:
    at = _factors(cells[0])
    laws = [predict_law(fit, at, level=LEVEL) for fit in fits]
    stacked = stacked_answer(table, point_of(table, at), level=LEVEL)
    return {
        "cells": [cell.id for cell in cells],
        "model": cells[0].model,
        **at,
        # The laws are of plain encoders: a hybrid's prediction says what a plain one would do.
        "as_if_plain": model_shape(cells[0].model).stem is not None,
        "stacked": stacked,
        "laws": [{key: law[key] for key in ("law", "value", "low", "high")} for law in laws],
    }


def _factors(cell: Cell) -> dict[str, float | int]:
    return {
        "images": cell.images,
        "params_encoder": cost_of(cell).params_encoder,
        "resolution": cell.resolution,
    }
