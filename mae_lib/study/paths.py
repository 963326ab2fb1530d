"""Where things lie, found from the project and never from the current folder."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from mae_lib.errors import StudyError

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,79}")


def root() -> Path:
    """The project folder: MAE_ROOT, else the checkout that holds this package."""
    if wish := os.environ.get("MAE_ROOT"):
        return Path(wish).resolve()
    return Path(__file__).resolve().parents[2]


def data_root() -> Path | None:
    """The folder of real photographs, from MAE_DATA; None where it is not set."""
    wish = os.environ.get("MAE_DATA")
    return Path(wish) if wish else None


def results_folder(name: str) -> Path:
    """The published results of a study: `results/<name>`; MAE_RESULTS may name another parent."""
    parent = os.environ.get("MAE_RESULTS")
    return (Path(parent).resolve() if parent else root() / "results") / safe_name(name, "study")


def safe_name(value: object, field: str) -> str:
    """Accept `[a-z0-9_-]+` only, so that a name can never leave its folder.

    Raises: StudyError.
    """
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise StudyError(
            f"{field}: a name may hold a-z, 0-9, _ and - only (80 at most), got {value!r}"
        )
    return value


@dataclass(frozen=True)
class RunPaths:
    """The files of one run folder, `runs/<name>/`."""

    folder: Path

    @classmethod
    def of(cls, name: str) -> "RunPaths":
        """Resolve `runs/<name>` under the project; MAE_RUNS may name another parent."""
        parent = os.environ.get("MAE_RUNS")
        runs = Path(parent).resolve() if parent else root() / "runs"
        return cls(runs / safe_name(name, "out"))

    def store(self, data_digest: str) -> Path:
        """The packed images of one data recipe."""
        return self.folder / "store" / data_digest

    def cell(self, cell_id: str) -> Path:
        """The folder of one cell."""
        return self.folder / "cells" / cell_id

    @property
    def cells(self) -> Path:
        """All cell folders."""
        return self.folder / "cells"

    @property
    def baselines(self) -> Path:
        """Baselines shared by cells of one encoder shape and resolution."""
        return self.folder / "baselines"

    @property
    def runs_csv(self) -> Path:
        """The table of cells."""
        return self.folder / "runs.csv"

    @property
    def fit_json(self) -> Path:
        """The fitted laws."""
        return self.folder / "fit.json"

    @property
    def predictions_csv(self) -> Path:
        """What each law says at each target."""
        return self.folder / "predictions.csv"

    @property
    def notebooks(self) -> Path:
        """Executed notebooks."""
        return self.folder / "notebooks"
