"""Compare what a study left with the hashes it left beside it."""

from mae_lib.errors import MaeError
from mae_lib.records.atomic import sha256_of
from mae_lib.records.sealed import read_sealed
from mae_lib.records.sidecar import check_sidecar, seal_path
from mae_lib.report.execution import is_current
from mae_lib.report.jobs import all_jobs
from mae_lib.study.definition import Study
from mae_lib.study.paths import RunPaths


def problems_of(study: Study, paths: RunPaths) -> tuple[int, list[str]]:
    """Return how many artefacts were checked, and one line for each that is damaged.

    What is missing is no damage: `mae study status` tells of it.
    """
    from mae_lib.images.store import verify_store

    checked, problems = 0, []
    store = paths.store(study.data.digest)
    if store.exists():
        checked += 1
        problems += verify_store(store)
    for cell in study.cells:
        folder = paths.cell(cell.id)
        for name in ("cell.json", "training.json", "record.json"):
            if (folder / name).exists():
                checked += 1
                problems += _problem(read_sealed, folder / name)
        weights = folder / "weights.safetensors"
        if weights.exists() and (folder / "training.json").exists():
            checked += 1
            problems += _problem(_check_weights, weights)
    for path in (paths.runs_csv, paths.fit_json, paths.predictions_csv):
        if path.exists() or seal_path(path).exists():
            checked += 1
            problems += _problem(check_sidecar, path)
    for job in all_jobs(study, paths):
        if job.output.exists():
            checked += 1
            if not is_current(job.notebook, job.inputs(), job.output):
                problems.append(f"{job.output}: is no complete execution on the present inputs")
    return checked, problems


def _check_weights(path) -> None:
    expected = read_sealed(path.with_name("training.json"))["weights_sha256"]
    if sha256_of(path) != expected:
        raise MaeError(f"{path}: changed after it was written, its hash differs")


def _problem(check, path) -> list[str]:
    try:
        check(path)
    except MaeError as error:
        return [str(error)]
    return []
