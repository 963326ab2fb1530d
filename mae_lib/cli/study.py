"""`mae study`: run a study, say what is done, find what is damaged, price what is planned."""

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from mae_lib.cli.merge import register_commands

StudyArgument = Annotated[str, typer.Argument(help="A study's name, or its YAML file.")]
OutOption = Annotated[str | None, typer.Option(help="Run folder; default: the study's name.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the main application."""
    study = typer.Typer(help="Run, inspect, verify and plan studies.", no_args_is_help=True)
    for command in (run, status, verify, plan, publish, refresh, book):
        study.command(command.__name__)(command)
    study.command("schema")(schema)
    study.command("step", hidden=True)(step)
    register_commands(study)
    app.add_typer(study, name="study")


def run(
    study: StudyArgument = "pocket",
    out: OutOption = None,
    cells: Annotated[str, typer.Option(help="Only these cell ids, with commas between.")] = "",
    profile: Annotated[
        str,
        typer.Option(help="Where jobs run: local, slurm, or a folder with a Snakemake profile."),
    ] = "local",
) -> None:
    """Run whatever is missing of a study, then build its book."""
    from mae_lib.cli.engine import run_engine
    from mae_lib.cli.profiles import profile_named
    from mae_lib.cli.summary import print_summary
    from mae_lib.cli.verification import damage_of, set_aside
    from mae_lib.errors import BusyError, StudyError
    from mae_lib.records.locks import locked
    from mae_lib.report.book_step import book_is_current
    from mae_lib.report.execution import require_paired
    from mae_lib.report.fittable import require_fittable
    from mae_lib.report.jobs import NOTEBOOKS, drop_stale
    from mae_lib.study.paths import RunPaths

    loaded, path = _load(study)
    if loaded.data.kind == "planned":
        raise StudyError(
            f"{path}: data.kind: planned, it is priced and not run; "
            f"try `mae study plan {study}`, or name its images"
        )
    paths = RunPaths.of(out or loaded.name)
    chosen = [name for name in cells.split(",") if name]
    for name in chosen:
        _require_cell(loaded, name)
    if not chosen:
        require_fittable(loaded)
    _require_images(loaded)
    for notebook in NOTEBOOKS.values():
        require_paired(notebook)
    where = profile_named(profile)
    try:
        with locked(paths.folder / ".run.lock", wait=False):
            _keep_copy(path, paths)
            _, damaged = damage_of(loaded, paths)
            set_aside(damaged)
            for problem in damaged.values():
                print(f"mae: {problem}: set aside, it is made anew", file=sys.stderr)
            stale = drop_stale(loaded, paths)
            wanted = {f"{s}/{name}" for name in chosen for s in ("pretrain", "evaluate")}
            if (stale and (not chosen or wanted & set(stale))) or not (
                chosen or book_is_current(loaded, paths)
            ):
                if not chosen:
                    shutil.rmtree(paths.folder / "book" / "html", ignore_errors=True)
                run_engine(loaded, paths, cells=",".join(chosen), profile=where)
    except BusyError:
        raise BusyError(
            f"{paths.folder}: another `mae study run` works in it; wait for it, or stop it"
        ) from None
    print_summary(loaded, paths)


def status(study: StudyArgument = "pocket", out: OutOption = None) -> None:
    """Show what is done of a study, cell by cell."""
    from mae_lib.cli.summary import print_status
    from mae_lib.study.paths import RunPaths

    loaded, _ = _load(study)
    print_status(loaded, RunPaths.of(out or loaded.name))


def verify(study: StudyArgument = "pocket", out: OutOption = None) -> None:
    """Compare every finished artefact of a study with its hash and name what is damaged."""
    from mae_lib.cli.verification import damage_of
    from mae_lib.errors import RecordError
    from mae_lib.study.paths import RunPaths

    loaded, _ = _load(study)
    checked, damaged = damage_of(loaded, RunPaths.of(out or loaded.name))
    for problem in damaged.values():
        print(problem)
    if damaged:
        raise RecordError(
            f"{loaded.name}: {len(damaged)} of {checked} artefacts are damaged; "
            "`mae study run` moves them aside and makes them anew"
        )
    if not checked:
        print(f"{loaded.name}: nothing to check, nothing has been made yet")
        return
    print(f"{loaded.name}: {checked} artefacts checked, each as it was written")


def plan(
    study: StudyArgument = "paper",
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Print a study's cells, what is infeasible in it, its FLOPs and GPU-hours."""
    from mae_lib.cli.plan import print_plan

    loaded, _ = _load(study)
    print_plan(loaded, as_json=json)


def publish(study: StudyArgument = "pocket", out: OutOption = None) -> None:
    """Copy the small evidence of a finished study to results/, with provenance."""
    from mae_lib.cli.publication import publish_results
    from mae_lib.study.paths import RunPaths

    loaded, path = _load(study)
    print(publish_results(loaded, path, RunPaths.of(out or loaded.name)))


def refresh() -> None:
    """Re-execute the committed notebooks with their default parameters, in place, and pair them."""
    from mae_lib.cli.refresh import refresh_notebooks

    refresh_notebooks()


def book() -> None:
    """Build the book from the committed notebooks and results."""
    from mae_lib.report.build import build_committed

    print(f"book: {build_committed()}")


def schema() -> None:
    """Print the JSON Schema of a study file."""
    import json

    from mae_lib.study.schema import StudyFile

    print(json.dumps(StudyFile.model_json_schema(), indent=1, sort_keys=True))


def step(key: str, out: Annotated[str, typer.Option()]) -> None:
    """Run one job of the flow (Snakemake calls this)."""
    import signal

    from mae_lib.errors import MaeError
    from mae_lib.records.orphans import die_with_parent
    from mae_lib.report.book_step import build_book
    from mae_lib.report.jobs import job
    from mae_lib.study.load import load_study
    from mae_lib.study.paths import RunPaths

    die_with_parent(signal.SIGTERM)
    # A notebook that is told to end shuts its kernel down, as on Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    paths = RunPaths.of(out)
    loaded = load_study(paths.folder / "study.yaml")
    try:
        if key == "book":
            build_book(loaded, paths)
        else:
            job(loaded, paths, key).run()
    except MaeError as error:
        print(f"mae-exit-code {error.exit_code}", flush=True)
        raise


def _load(study: str):
    from mae_lib.study.load import load_study, study_path

    return load_study(study), study_path(study)


def _require_cell(study, name: str) -> None:
    from mae_lib.errors import StudyError
    from mae_lib.study.suggest import nearest

    known = [cell.id for cell in study.cells]
    if name not in known:
        raise StudyError(
            f"--cells: {study.name} has no such cell, got {name!r}{nearest(name, known)}"
        )


def _require_images(study) -> None:
    """Missing images end the command before anything starts."""
    from mae_lib.errors import StudyError
    from mae_lib.study.paths import data_root

    if study.data.kind == "sources":
        from mae_lib.images.entries import locate

        alone = [task for task in study.data.tasks if task.source is None]
        for part in (*study.data.sources, *alone):
            locate(part, data_root())
        return
    if study.data.kind != "tars":
        return
    names = {s.file for s in study.data.sources} | {
        f for t in study.data.tasks for f in (t.train, t.test)
    }
    folder = data_root()
    if folder is not None and not folder.is_dir():
        raise StudyError(f"MAE_DATA: {folder}: no such folder; {study.name} needs photographs")
    if folder is None:
        raise StudyError(
            f"MAE_DATA: not set, but {study.name} needs {len(names)} files of photographs; "
            "set it to the folder that holds them"
        )
    if missing := sorted(name for name in names if not (folder / name).is_file()):
        more = f" (+{len(missing) - 1} more)" if len(missing) > 1 else ""
        raise StudyError(f"MAE_DATA: {folder}: no file {missing[0]}{more}; {study.name} needs it")


def _keep_copy(path: Path, paths) -> None:
    """The run folder holds the study it runs, so that its notebooks need no path."""
    from mae_lib.records.atomic import write_text

    text = path.read_text(encoding="utf-8")
    copy = paths.folder / "study.yaml"
    if not copy.exists() or copy.read_text(encoding="utf-8") != text:
        write_text(copy, text)
