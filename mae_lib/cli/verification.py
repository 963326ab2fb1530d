"""Compare what a study left with the hashes it left beside it; set aside what is damaged."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mae_lib.errors import MaeError
from mae_lib.records.atomic import sha256_of
from mae_lib.records.quarantine import quarantine
from mae_lib.records.sealed import read_sealed
from mae_lib.records.sidecar import check_sidecar, seal_path
from mae_lib.report.book_step import book_folder, check_book
from mae_lib.report.execution import is_current
from mae_lib.report.jobs import all_jobs
from mae_lib.study.definition import Study
from mae_lib.study.paths import RunPaths


@dataclass(frozen=True)
class Artefact:
    """Something finished: where it is, how it is checked, and what must go when it is damaged."""

    path: Path
    check: Callable[[Path], object]
    aside: tuple[Path, ...]


def damage_of(study: Study, paths: RunPaths) -> tuple[int, dict[Artefact, str]]:
    """Return how many artefacts were checked, and the problem of each that is damaged.

    What is missing is no damage: `mae study status` tells of it.
    """
    found = list(_artefacts(study, paths))
    problems = {artefact: _problem(artefact) for artefact in found}
    return len(found), {artefact: text for artefact, text in problems.items() if text}


def set_aside(damaged: dict[Artefact, str]) -> list[Path]:
    """Rename damaged files (and what was made from them) to `*.corrupt`; return the new paths."""
    paths = dict.fromkeys(path for artefact in damaged for path in artefact.aside)
    return [quarantine(path) for path in paths if path.exists()]


def _artefacts(study: Study, paths: RunPaths) -> Iterator[Artefact]:
    store = paths.store(study.data.digest)
    if store.exists():
        yield Artefact(store, _check_store, (store,))
    for cell in study.cells:
        yield from _cell_artefacts(paths.cell(cell.id))
    for path in sorted(paths.baselines.glob("*.json")):
        yield Artefact(path, read_sealed, (path,))
    for path in (paths.runs_csv, paths.fit_json, paths.predictions_csv):
        if path.exists() or seal_path(path).exists():
            yield Artefact(path, check_sidecar, (path, seal_path(path)))
    for job in all_jobs(study, paths):
        if job.output.exists():
            # `mae study run` removes these by itself.
            yield Artefact(job.output, _check_execution(job), ())
    if (book_folder(paths) / "stamp.json").exists():
        yield Artefact(book_folder(paths), check_book, (book_folder(paths),))


def _cell_artefacts(folder: Path) -> Iterator[Artefact]:
    for name in ("cell.json", "training.json", "record.json"):
        if (folder / name).exists():
            yield Artefact(folder / name, read_sealed, (folder / name,))
    training = folder / "training.json"
    if _problem(Artefact(training, read_sealed, ())) is not None:
        return
    for name, key in (("weights.safetensors", "weights_sha256"), ("metrics.jsonl", None)):
        path = folder / name
        # Without its loss curve a cell is not whole, and only training makes it anew.
        aside = (path, training) if key is None else (path,)
        if path.exists():
            yield Artefact(path, _check_against(training, key or "metrics_sha256"), aside)


def _problem(artefact: Artefact) -> str | None:
    try:
        artefact.check(artefact.path)
    except MaeError as error:
        return str(error)
    return None


def _check_store(folder: Path) -> None:
    from mae_lib.images.verify import verify_store

    if problems := verify_store(folder):
        more = f" (+{len(problems) - 1} more)" if len(problems) > 1 else ""
        raise MaeError(problems[0] + more)


def _check_against(training: Path, key: str) -> Callable[[Path], None]:
    def check(path: Path) -> None:
        expected = read_sealed(training).get(key)
        if expected and sha256_of(path) != expected:
            raise MaeError(f"{path}: changed after it was written, its hash differs")

    return check


def _check_execution(job) -> Callable[[Path], None]:
    def check(path: Path) -> None:
        if not is_current(job.notebook, job.inputs(), path):
            raise MaeError(f"{path}: changed, or no complete execution on the present inputs")

    return check
