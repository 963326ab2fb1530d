"""The last step of a study: its book, made from the executed notebooks and the tables beside them."""

import hashlib
import json
from pathlib import Path

from mae_lib.errors import MaeError
from mae_lib.records.atomic import sha256_of
from mae_lib.records.sealed import read_sealed, write_sealed
from mae_lib.report.jobs import all_jobs
from mae_lib.study.definition import Study
from mae_lib.study.paths import RunPaths, root

PAGES = ("book", "_config.yml", "_toc.yml", "mae_lib/charts", "mae_lib/report")


def book_output(paths: RunPaths) -> Path:
    """Return the first page of a study's book."""
    return paths.folder / "book" / "html" / "index.html"


def book_inputs(study: Study, paths: RunPaths) -> str:
    """Digest of everything that the book is made from."""
    files = [job.output for job in all_jobs(study, paths)]
    files += [paths.runs_csv, paths.fit_json, paths.predictions_csv]
    for name in PAGES:
        path = root() / name
        files += sorted(p for p in path.rglob("*") if p.is_file() and p.suffix != ".pyc") or [path]
    hashes = [sha256_of(path) if path.is_file() else "none" for path in files]
    return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()[:16]


def book_is_current(study: Study, paths: RunPaths) -> bool:
    """Whether the built book follows from what is there now."""
    try:
        stamp = read_sealed(paths.folder / "book" / "stamp.json")
    except MaeError:
        return False
    return book_output(paths).is_file() and stamp["inputs"] == book_inputs(study, paths)


def build_book(study: Study, paths: RunPaths) -> Path:
    """Stage and build the book of a study, and leave a stamp of what it was made from."""
    from mae_lib.report.build import build
    from mae_lib.report.stage import stage

    inputs = book_inputs(study, paths)
    source = stage(study.name, paths.folder, root())
    index = build(source, paths.folder / "book")
    write_sealed(paths.folder / "book" / "stamp.json", {"inputs": inputs})
    return index
