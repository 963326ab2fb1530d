"""`mae study order | baselines | register | merge`: what goes before and after a measured piece."""

from pathlib import Path
from typing import Annotated

import typer

StudyArgument = Annotated[str, typer.Argument(help="A study's name, or its YAML file.")]


def register_commands(study: typer.Typer) -> None:
    """Add the commands to `mae study`."""
    for command in (order, baselines, register, merge):
        study.command(command.__name__)(command)
    passed_on = {"ignore_unknown_options": True}
    study.command("piece", context_settings=passed_on, add_help_option=False)(piece)


def piece(
    words: Annotated[list[str] | None, typer.Argument(help="Its own options.")] = None,
) -> None:
    """Measure the next cells that fit into some minutes (`mae study piece --help`)."""
    from mae_lib.cli import bare

    if code := bare.main(["study", "piece", *(words or [])]):
        raise typer.Exit(code)


def order(study: StudyArgument) -> None:
    """Write results/STUDY/plan.json: the order of its cells, so that any prefix is a design."""
    from mae_lib.errors import StudyError
    from mae_lib.records.plan_file import write_plan
    from mae_lib.report.order import measuring_plan
    from mae_lib.study.load import load_study
    from mae_lib.study.paths import results_folder

    loaded = load_study(study)
    if loaded.data.kind == "planned":
        raise StudyError(
            f"{loaded.name}: data.kind: planned, it is priced and not measured; try "
            f"`mae study plan {study}`, or name its images"
        )
    path, plan = results_folder(loaded.name) / "plan.json", measuring_plan(loaded)
    write_plan(path, plan)
    seconds = sum(cell.seconds for cell in plan.cells)
    print(
        f"{path}: {len(plan.cells)} cells, {len(plan.largest)} of them predicted first; "
        f"{seconds:,.0f} s planned on one H100, one at a time"
    )


def baselines(study: StudyArgument) -> None:
    """Measure the raw pixels of a study's tasks once; pieces read them from results/STUDY/."""
    from mae_lib.evaluation.baselines import pixel_baseline
    from mae_lib.evaluation.features import PIXEL_SIDE
    from mae_lib.records.sealed import read_sealed
    from mae_lib.report.merge import add_baselines
    from mae_lib.study.load import load_study
    from mae_lib.study.paths import RunPaths, results_folder
    from mae_lib.training.assess import open_images

    loaded = load_study(study)
    paths = RunPaths.of(loaded.name)
    store = open_images(loaded.cells[0], paths)
    tasks = {task.name: store.task(task.name) for task in loaded.data.tasks}
    for cell in {min(c.pixels, PIXEL_SIDE): c for c in loaded.cells}.values():
        pixel_baseline(cell, tasks, paths.baselines)
    files = {p.name: read_sealed(p) for p in sorted(paths.baselines.glob("pixels-*.json"))}
    add_baselines(results_folder(loaded.name), files)
    print(f"{results_folder(loaded.name) / 'baselines.json'}: {len(files)} sides of raw pixels")


def register(study: StudyArgument) -> None:
    """Predict the largest cells from the merged smaller ones, before they are measured."""
    from mae_lib.report.registered import FILE
    from mae_lib.report.registered import register as write_prediction
    from mae_lib.study.load import load_study
    from mae_lib.study.paths import results_folder

    loaded = load_study(study)
    folder = results_folder(loaded.name)
    value = write_prediction(loaded, folder)
    for row in value["predictions"]:
        said = row["stacked"]
        span = "no interval" if said["low"] is None else f"[{said['low']:.4f}, {said['high']:.4f}]"
        answer = "no value" if said["value"] is None else f"{said['value']:.4f}"
        print(f"{', '.join(row['cells'])}: {answer} {span}")
    print(f"{folder / FILE}: from {len(value['rows_used'])} cells; commit it before the next piece")


def merge(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Folders of `mae study piece`; none: tables only.")
    ] = None,
    study: Annotated[
        str, typer.Option(help="The study; default: the one that the first piece names.")
    ] = "",
) -> None:
    """Check pieces that came back, add them to results/, and make the tables anew."""
    from mae_lib.errors import StudyError
    from mae_lib.report.merge import merge_pieces, read_piece
    from mae_lib.study.load import load_study
    from mae_lib.study.paths import results_folder

    if not (folders or study):
        raise StudyError("merge: name the folder of a piece, or a study with --study")
    try:
        loaded = load_study(study or read_piece(folders[0])["study"])
    except StudyError as error:
        if study or "no such study" not in str(error):
            raise
        raise StudyError(f"{error}; if its file lies elsewhere, name it: --study FILE") from None
    results = results_folder(loaded.name)
    done = merge_pieces(loaded, folders or [], results)
    print(f"{results}: {len(done.new)} cells are new, {done.measured} of {done.cells} measured")
    if done.note:
        print(f"no law is fitted yet: {done.note}")
