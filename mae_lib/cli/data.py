"""`mae data`: where the images come from, and the packed store made of them."""

from pathlib import Path
from typing import Annotated

import typer

from mae_lib.cli import data_store, travel

Root = Annotated[
    str | None, typer.Option("--root", help="Folder of image sets; default: MAE_DATA.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the main application."""
    data = typer.Typer(
        help="Fetch image sets, see what is there, build and check the packed images of a study.",
        no_args_is_help=True,
    )
    data.command("fetch")(fetch)
    data.command("sources")(sources)
    data.command("feasibility")(feasibility)
    data_store.register(data)
    travel.register(data)
    app.add_typer(data, name="data")


def fetch(
    name: Annotated[
        str, typer.Argument(help="cifar10, imagenet, celeba, ade20k, tiny-imagenet, imagenette.")
    ],
    root: Root = None,
) -> None:
    """Download a set that anyone may have, or print the steps to one that has terms of use."""
    from mae_lib.images.publishers import instructions, publisher_of

    publisher = publisher_of(name)
    if not publisher.free:
        print("\n".join(instructions(publisher, root or "MAE_DATA")))
        return
    folder = _folder(root)
    for file in publisher.files:
        path = _download(file, folder)
        print(f"{path}: {file.size:,} bytes, sha256 {file.sha256} as published")
    print(f"cite {publisher.page}; then: mae data sources")


def sources(
    root: Root = None,
    study: Annotated[
        str | None, typer.Option(help="A study: print where each of its sources is instead.")
    ] = None,
) -> None:
    """Show the image sets that are there, with images, labels and splits, and which are not."""
    from mae_lib.images.inventory import inventory, missing_sets, study_inventory
    from mae_lib.images.publishers import PUBLISHERS

    folder = _folder(root)
    if study is not None:
        from mae_lib.study.load import load_study

        loaded = load_study(study)
        _print_frame(study_inventory(loaded.data, folder), f"sources of {loaded.name} in {folder}")
        return
    found = inventory(folder)
    _print_frame(found.drop(columns="problem"), f"{len(found)} image sets in {folder}")
    for row in found.itertuples():
        if row.problem:
            print(f"cannot be used: {row.problem}")
    for name in missing_sets(found):
        print(f"not there: {PUBLISHERS[name].title}; `mae data fetch {name}` says how")


def feasibility(
    study: Annotated[str, typer.Argument(help="A study's name, or its YAML file.")] = "paper",
    root: Root = None,
) -> None:
    """Compare the images that a study asks for with those that are there, and that exist at all."""
    from mae_lib.images.public_sizes import PUBLIC
    from mae_lib.study.load import load_study
    from mae_lib.study.paths import data_root

    data = load_study(study).data
    if data.kind == "procedural":
        print(f"{study}: {data.total:,} images are drawn by code, as many as are asked for")
        return
    folder = _folder(root) if root or data_root() else None
    if folder is None:
        print("MAE_DATA: not set, so only the public sizes are compared")
    else:
        _print_here(data, folder)
    if all(source.name in PUBLIC for source in data.sources):
        _print_public(data)


def _folder(root: str | None) -> Path:
    from mae_lib.images.layouts.registry import require_folder
    from mae_lib.study.paths import data_root

    return require_folder(Path(root) if root else data_root())


def _download(file, folder: Path) -> Path:
    """Fetch with a bar on a terminal, and without one where lines are kept."""
    import sys

    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    from mae_lib.images.fetch import fetch as fetch_file

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    quiet = not sys.stdout.isatty()
    with Progress("{task.description}", *columns, transient=True, disable=quiet) as bar:
        task = bar.add_task(file.name, total=file.size)
        return fetch_file(
            file,
            folder,
            progress=lambda done, _: bar.update(task, completed=done),
            notice=lambda line: bar.console.print(line, markup=False, soft_wrap=True),
        )


def _print_here(data, folder: Path) -> None:
    from mae_lib.errors import StudyError
    from mae_lib.images.inventory import counts_of, study_inventory
    from mae_lib.images.mixture import feasibility_frame, settle

    found = study_inventory(data, folder)
    counts = counts_of(found)
    _print_frame(feasibility_frame(data.total, data.sources, counts), f"asked, and in {folder}")
    for row in found.itertuples():
        if row.problem:
            print(f"not there: {row.problem}")
    if None in counts.values():
        return
    try:
        print(settle(data.total, data.sources, counts, data.shortfall).summary())
    except StudyError as error:
        print(f"infeasible: {error}")


def _print_public(data) -> None:
    from mae_lib.images.public_sizes import feasibility as public_sizes
    from mae_lib.images.public_sizes import feasible_totals, later_totals

    sizes = public_sizes(data.total, data.sources)
    _print_frame(sizes, "asked, and published")
    for row in sizes[sizes.missing > 0].itertuples():
        print(
            f"infeasible: {row.source}: {row.asked:,} images asked, {row.train:,} in its training "
            f"part ({row.with_validation:,} with validation)"
        )
    now, later = feasible_totals(data.sources), later_totals(data.sources)
    print(
        f"in these proportions at most {now['train']:,} images "
        f"({now['with_validation']:,} with validation)"
    )
    if later != now:
        print(
            f"with the full ADE20K of 2021 at most {later['train']:,} "
            f"({later['with_validation']:,} with validation)"
        )


def _print_frame(frame, title: str) -> None:
    from rich import box
    from rich.table import Table

    from mae_lib.charts.frames import number
    from mae_lib.cli.summary import wide_console

    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    for name in frame.columns:
        right = frame[name].dtype.kind in "if"
        table.add_column(
            str(name).replace("_", " "), justify="right" if right else "left", overflow="fold"
        )
    for row in frame.astype(object).where(frame.notna(), None).itertuples(index=False):
        table.add_row(*(number(value) for value in row))
    wide_console().print(table)
