"""Lay out a study's book: the pages, and its executed notebooks in place of the committed ones."""

import json
import shutil
from pathlib import Path

from mae_lib.errors import RecordError
from mae_lib.report.pages import STAGED

CELL_NOTEBOOKS = ("02_pretrain_cell", "03_evaluate_cell")
# About public tables or a device, and no study: the committed outputs serve every book.
COMMON_NOTEBOOKS = ("07_refit_public_grids", "10_kernels")


def stage(study_name: str, run_folder: Path, project: Path) -> Path:
    """Fill `run_folder/book/source` with the layout of the project and return it.

    Pages 02 and 03 exist once a cell; the book shows those of the last cell of the grid, and every
    cell's numbers on one page. Raises: RecordError when a notebook has not been executed.
    """
    source = run_folder / "book" / "source"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(project / "book", source / "book", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(project / "results", source / "results")
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(project / name, source / name)
    (source / "notebooks").mkdir()
    for committed in sorted((project / "notebooks").glob("*.ipynb")):
        executed = run_folder / "notebooks" / committed.name
        if committed.stem in COMMON_NOTEBOOKS:
            executed = committed
        if committed.stem in CELL_NOTEBOOKS:
            found = sorted(
                (run_folder / "notebooks" / "cells").glob(f"*/{committed.name}"),
                key=lambda path: path.stat().st_size,
            )
            executed = found[-1] if found else executed
        if not executed.exists():
            raise RecordError(f"{executed}: not executed yet; run the study")
        shutil.copy(executed, source / "notebooks" / committed.name)
    about = {"study": study_name, "folder": str(run_folder)}
    (source / STAGED).write_text(json.dumps(about), encoding="utf-8")
    return source
