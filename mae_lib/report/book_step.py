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
    return book_folder(paths) / "html" / "index.html"


def book_folder(paths: RunPaths) -> Path:
    """Return the folder of a study's book."""
    return paths.folder / "book"


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
        stamp = read_sealed(book_folder(paths) / "stamp.json")
    except MaeError:
        return False
    return book_output(paths).is_file() and stamp["inputs"] == book_inputs(study, paths)


def check_book(folder: Path) -> None:
    """Compare every file of a built book with what was built.

    Raises: MaeError when a file is missing or was changed.
    """
    if read_sealed(folder / "stamp.json").get("html") != _tree_digest(folder / "html"):
        raise MaeError(f"{folder / 'html'}: changed after it was built")


def _tree_digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [[str(path.relative_to(folder)), sha256_of(path)] for path in files]
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]


def build_book(study: Study, paths: RunPaths) -> Path:
    """Stage and build the book of a study, and leave a stamp of what it was made from."""
    from mae_lib.report.build import build
    from mae_lib.report.stage import stage

    inputs = book_inputs(study, paths)
    source = stage(study.name, paths.folder, root())
    index = build(source, book_folder(paths))
    stamp = {"inputs": inputs, "html": _tree_digest(index.parent)}
    write_sealed(book_folder(paths) / "stamp.json", stamp)
    return index
