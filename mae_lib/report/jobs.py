"""The flow as a list: each job is one notebook on one set of inputs, known by their hashes.

Snakemake runs the jobs and their order (workflow/Snakefile); whether a job is up to date is decided
here, by content, because time stamps miss both a damaged file and a settings change.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from mae_lib.errors import MaeError, StudyError
from mae_lib.records.sealed import read_sealed
from mae_lib.records.sidecar import check_sidecar
from mae_lib.report.execution import execute, is_current
from mae_lib.study.definition import Cell, Study, settings_of
from mae_lib.study.paths import RunPaths

CELL_STEPS = ("pretrain", "evaluate")
STUDY_STEPS = ("compare", "fit", "extrapolate")
NOTEBOOKS = {
    "dataset": "01_rebuild_dataset",
    "pretrain": "02_pretrain_cell",
    "evaluate": "03_evaluate_cell",
    "compare": "04_compare_cells",
    "fit": "05_fit_law",
    "extrapolate": "06_extrapolate",
}


@dataclass(frozen=True)
class Job:
    """One step of a study: `dataset`, `pretrain` and `evaluate` with a cell, or a later one."""

    step: str
    study: Study
    paths: RunPaths
    cell: Cell | None = None

    @property
    def key(self) -> str:
        """The name by which Snakemake asks for the job."""
        return f"{self.step}/{self.cell.id}" if self.cell else self.step

    @property
    def notebook(self) -> str:
        """The notebook that does it."""
        return NOTEBOOKS[self.step]

    @property
    def output(self) -> Path:
        """The executed copy."""
        folder = self.paths.notebooks
        if self.cell:
            folder = folder / "cells" / self.cell.id
        return folder / f"{self.notebook}.ipynb"

    @property
    def parameters(self) -> dict:
        """What papermill injects: plain scalars only."""
        names = {"study": self.study.name, "out": self.paths.folder.name}
        return names | (cell_parameters(self.cell) if self.cell else {})

    def inputs(self) -> str:
        """Digest of what the notebook reads; it changes when an input changes."""
        return hashlib.sha256(json.dumps(self._inputs()).encode()).hexdigest()[:16]

    def _inputs(self) -> list[str]:
        if self.step == "dataset":
            return [self.study.data.digest]
        if self.step == "pretrain":
            return [self.cell.digest]
        if self.step == "evaluate":
            return [self.cell.digest, _weights(self.paths.cell(self.cell.id))]
        if self.step == "compare":
            return [_record(self.paths.cell(cell.id)) for cell in self.study.cells]
        law = json.dumps(dataclasses.asdict(self.study.law))
        if self.step == "fit":
            return [_sha(self.paths.runs_csv), law]
        targets = json.dumps([dataclasses.asdict(target) for target in self.study.targets])
        return [_sha(self.paths.runs_csv), _sha(self.paths.fit_json), law, targets]

    def produced(self) -> bool:
        """Whether the files that the notebook leaves beside its copy are there and whole."""
        try:
            if self.step == "dataset":
                read_sealed(self.paths.store(self.study.data.digest) / "manifest.json")
            elif self.step == "pretrain":
                folder = self.paths.cell(self.cell.id)
                trained = read_sealed(folder / "training.json")
                read_sealed(folder / "cell.json")
                return not trained["weights_sha256"] or (folder / "weights.safetensors").exists()
            elif self.step == "evaluate":
                read_sealed(self.paths.cell(self.cell.id) / "record.json")
            elif self.step == "compare":
                check_sidecar(self.paths.runs_csv)
            elif self.step == "fit":
                check_sidecar(self.paths.fit_json)
            else:
                check_sidecar(self.paths.predictions_csv)
        except MaeError:
            return False
        return True

    def is_current(self) -> bool:
        """Whether nothing is left to do."""
        return self.produced() and is_current(self.notebook, self.inputs(), self.output)

    def run(self) -> None:
        """Execute the notebook."""
        execute(self.notebook, self.parameters, inputs=self.inputs(), output=self.output)


def all_jobs(study: Study, paths: RunPaths) -> tuple[Job, ...]:
    """Return every job of a study in an order that respects what each one reads."""
    per_cell = [Job(s, study, paths, cell) for cell in study.cells for s in CELL_STEPS]
    after = [Job(step, study, paths) for step in STUDY_STEPS]
    return (Job("dataset", study, paths), *per_cell, *after)


def job(study: Study, paths: RunPaths, key: str) -> Job:
    """Look a job up by its key.

    Raises: StudyError.
    """
    for candidate in all_jobs(study, paths):
        if candidate.key == key:
            return candidate
    raise StudyError(f"step: {study.name} has no such step, got {key!r}")


def cell_parameters(cell: Cell) -> dict:
    """Return a cell and its recipe as the scalars of notebooks 02 and 03."""
    names = ("model", "images", "resolution", "patch_size", "mask_ratio", "seed")
    recipe = {k: v for k, v in settings_of(cell.recipe).items() if v is not None}
    return {name: getattr(cell, name) for name in names} | recipe


def drop_stale(study: Study, paths: RunPaths) -> list[str]:
    """Remove executed copies that no longer follow from their inputs; return their keys.

    Whatever reads a stale step's result is stale too.
    """
    stale: list[str] = []
    for item in all_jobs(study, paths):
        upstream = {"evaluate": f"pretrain/{item.cell.id}"} if item.cell else {}
        depends = upstream.get(item.step) in stale or (item.step in STUDY_STEPS and bool(stale))
        if depends or not item.is_current():
            stale.append(item.key)
            item.output.unlink(missing_ok=True)
    return stale


def _weights(folder: Path) -> str:
    try:
        return str(read_sealed(folder / "training.json")["weights_sha256"])
    except MaeError:
        return "none"


def _record(folder: Path) -> str:
    try:
        return json.dumps(read_sealed(folder / "record.json")["rows"])
    except MaeError:
        return "none"


def _sha(path: Path) -> str:
    try:
        return check_sidecar(path)
    except MaeError:
        return "none"
