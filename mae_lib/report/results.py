"""From the cells of a study to its table, its laws and its predictions: notebooks 04, 05 and 06.

`out` is a run folder, or `published`: then the committed results are read, computed again from
the committed table, and must agree.
"""

import math
from pathlib import Path

import pandas as pd

from mae_lib.errors import FitError, RecordError
from mae_lib.records.sidecar import read_list, read_table, write_list, write_table
from mae_lib.records.table import collect
from mae_lib.scaling.fit import Fit, fit_laws
from mae_lib.scaling.predict import predictions_frame
from mae_lib.scaling.table import Table, check_table
from mae_lib.study.definition import Study
from mae_lib.study.models import model_shape
from mae_lib.study.paths import RunPaths, root

PUBLISHED = "published"
FACTORS = ("images", "params_encoder", "resolution")
# Refits on another processor agree to rounding; anything more means that the table has changed.
RELATIVE_TOLERANCE = 1e-5


def results_paths(study: Study, out: str) -> RunPaths:
    """Return where the tables of a study lie: its run folder, or its committed results."""
    if out == PUBLISHED:
        return RunPaths(root() / "results" / study.name)
    return RunPaths.of(out)


def compare_cells(study: Study, out: str) -> pd.DataFrame:
    """Gather the records of every cell into runs.csv and return it, holes included."""
    paths = results_paths(study, out)
    if out == PUBLISHED:
        return _of_study(read_table(paths.runs_csv), study, paths.runs_csv)
    runs = collect(study.cells, paths.cells)
    if not (runs.status == "complete").any():
        raise RecordError(
            f"{paths.cells}: no cell of {study.name} is complete; run the study first", exit_code=2
        )
    write_table(paths.runs_csv, runs)
    # Read back, so that what a notebook shows is what the file holds.
    return read_table(paths.runs_csv)


def law_table(study: Study, runs: pd.DataFrame) -> Table:
    """Select the rows that the law is fitted to: complete cells, one task, one protocol.

    Where a study has plain encoders and such with a convolutional stem, its laws are of the plain
    ones: a stem's parameters are no transformer's, and its patches are others. Where it has several
    seeds, runs that share a subset of images are one cluster, and intervals resample clusters.
    """
    law = study.law
    chosen = runs[
        (runs.task == law.task) & (runs.protocol == law.protocol) & (runs.status == "complete")
    ]
    plain = chosen[[model_shape(name).stem is None for name in chosen.model]]
    chosen = chosen if plain.empty else plain
    if chosen.empty:
        raise FitError(
            f"{study.name}: law: no complete cell has task {law.task} and protocol {law.protocol}"
        )
    chosen = chosen.reset_index(drop=True)
    if chosen.seed.nunique() == 1:
        return check_table(chosen, response="top1", factors=FACTORS)
    chosen["subset"] = chosen.images.astype(str) + "-s" + chosen.seed.astype(str)
    return check_table(chosen, response="top1", factors=FACTORS, clusters="subset")


def fit_study(study: Study, out: str) -> tuple[Fit, ...]:
    """Fit the study's laws to runs.csv and write fit.json, or compare with the committed one."""
    paths = results_paths(study, out)
    table = law_table(study, read_table(paths.runs_csv))
    fits = fit_laws(table, study.law.laws, bootstrap=study.law.bootstrap, seed=0)
    values = [fit.to_json() for fit in fits]
    if out == PUBLISHED:
        _require_equal(read_list(paths.fit_json), values, paths.fit_json)
    else:
        write_list(paths.fit_json, values)
    return fits


def predict_study(study: Study, out: str) -> pd.DataFrame:
    """Ask every law about every target and write predictions.csv, or compare with the committed."""
    paths = results_paths(study, out)
    fits = fit_laws(
        law_table(study, read_table(paths.runs_csv)),
        study.law.laws,
        bootstrap=study.law.bootstrap,
        seed=0,
    )
    predictions = predictions_frame(fits, study_targets(study))
    if out == PUBLISHED:
        committed = read_table(paths.predictions_csv)
        _require_equal(
            committed.to_dict("records"), predictions.to_dict("records"), paths.predictions_csv
        )
        return committed
    write_table(paths.predictions_csv, predictions)
    return read_table(paths.predictions_csv)


def refit_published(study: Study) -> Path:
    """Fit the committed runs of a study again, write its fit.json and predictions.csv, return where.

    After a change of the engine; a study that has changed itself must be run.
    """
    paths = results_paths(study, PUBLISHED)
    table = law_table(study, read_table(paths.runs_csv))
    fits = fit_laws(table, study.law.laws, bootstrap=study.law.bootstrap, seed=0)
    write_list(paths.fit_json, [fit.to_json() for fit in fits])
    write_table(paths.predictions_csv, predictions_frame(fits, study_targets(study)))
    return paths.folder


def study_targets(study: Study) -> dict[str, dict[str, float]]:
    """Return the study's targets by name, as values of the law's factors."""
    return {t.name: {factor: getattr(t, factor) for factor in FACTORS} for t in study.targets}


def _of_study(runs: pd.DataFrame, study: Study, path: Path) -> pd.DataFrame:
    """Refuse a committed table that is of other cells than the study has now."""
    known = {cell.id for cell in study.cells}
    if foreign := sorted(set(runs.cell) - known):
        raise RecordError(
            f"{path}: cell {foreign[0]} is none of {study.name}'s (+{len(foreign) - 1} more); "
            "the study has changed since: run it and publish again"
        )
    return runs


def _require_equal(committed: object, now: object, path: Path) -> None:
    if difference := _first_difference(committed, now, ""):
        raise RecordError(
            f"{path}: {difference}; the fit of the committed table gives another value: "
            "run the study and publish again"
        )


def _first_difference(a: object, b: object, where: str) -> str | None:
    """Name the first place where the committed JSON `a` differs from `b` by more than rounding.

    A field that `b` has gained since is no difference: every committed number must still be there.
    """
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a):
            if found := _first_difference(a.get(key), b.get(key), f"{where}.{key}"):
                return found
        return None
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        for number, (x, y) in enumerate(zip(a, b, strict=True)):
            if found := _first_difference(x, y, f"{where}[{number}]"):
                return found
        return None
    if isinstance(a, float | int) and isinstance(b, float | int):
        if math.isclose(a, b, rel_tol=RELATIVE_TOLERANCE, abs_tol=1e-9) or (a != a and b != b):
            return None
    elif a == b:
        return None
    return f"{where.lstrip('.')}: {a!r} is committed, {b!r} is computed"
