"""`mae data build` and what is said about a build: verify, duplicates, croissant, datasheet."""

from pathlib import Path
from typing import Annotated

import typer

Study = Annotated[str, typer.Argument(help="A study's name, or its YAML file.")]
Out = Annotated[str | None, typer.Option(help="Run folder; default: the study's name.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes; default: one a core.")]


def register(data: typer.Typer) -> None:
    """Add the commands to `mae data`."""
    for command in (build, verify, duplicates, croissant, datasheet):
        data.command(command.__name__)(command)


def build(study: Study = "pocket", out: Out = None, workers: Workers = None) -> None:
    """Pack a study's images, or say that they are packed; a build that was cut goes on."""
    import time

    from mae_lib.images.datasheet import manifest_seal

    started = time.monotonic()
    store = _build(study, out, workers)
    seconds = time.monotonic() - started
    count, side = store.images.shape[:2]
    print(f"{store.folder}: {count:,} images of {side} x {side} pixels")
    counts, sources = store.manifest["counts"], store.manifest["recipe"]["sources"]
    mixture = ", ".join(f"{s['name']} {counts.get(s['name'], 0):,}" for s in sources)
    print(f"mixture   {mixture}")
    for kind, number in store.manifest.get("set_aside", {}).items():
        print(f"set aside {number:,} {kind}, named in {store.folder / 'set_aside.csv'}")
    print(f"pixels    {store.images.nbytes:,} bytes, {store.manifest['files']['images.npy']}")
    print(f"manifest  {manifest_seal(store)}")
    print(f"time      {seconds:.1f} s")


def verify(study: Study = "pocket", out: Out = None) -> None:
    """Compare every packed file, block by block, with its hash."""
    from mae_lib.errors import StoreError
    from mae_lib.images.verify import verify_store

    _, folder = _folder(study, out)
    if problems := verify_store(folder):
        more = f" (+{len(problems) - 1} more)" if len(problems) > 1 else ""
        raise StoreError(f"{problems[0]}{more}")
    print(f"{folder}: every file is as it was written")


def duplicates(
    study: Study = "pocket",
    out: Out = None,
    workers: Workers = None,
    csv: Annotated[Path | None, typer.Option(help="Also write the pairs here.")] = None,
) -> None:
    """List images that are there twice, or that evaluation shows too."""
    from mae_lib.images.duplicates import summary
    from mae_lib.images.hygiene import duplicates as find
    from mae_lib.images.hygiene import near_of, shared_with_training
    from mae_lib.records.csv_file import write_csv

    store = _build(study, out, workers)
    pairs = find(store, workers=workers)
    near = near_of(store.manifest["recipe"]["kind"])
    print(
        f"near: at most {near.phash_bits} of 64 pHash bits and {near.dhash_bits} dHash bits apart, "
        f"edges correlate {near.correlation:g} or more"
    )
    if len(pairs):
        print(summary(pairs).to_string(index=False))
    print(f"{len(pairs):,} pairs, listed in {store.folder / 'hygiene' / 'duplicates.csv'}")
    for task, count in shared_with_training(store).items():
        print(f"{task}: {count:,} images of its training part are pretrained on, by design")
    if csv is not None:
        write_csv(csv, pairs)


def croissant(study: Study = "pocket", out: Out = None, workers: Workers = None) -> None:
    """Write Croissant metadata (JSON-LD) beside a study's packed images."""
    from mae_lib.images.croissant import write_croissant
    from mae_lib.study.load import load_study

    store, loaded = _build(study, out, workers), load_study(study)
    path = store.folder / "croissant.json"
    print(write_croissant(store, path, name=loaded.name, description=loaded.question))


def datasheet(study: Study = "pocket", out: Out = None, workers: Workers = None) -> None:
    """Write a datasheet (Markdown) beside a study's packed images."""
    from mae_lib.images.datasheet import datasheet as write
    from mae_lib.images.hygiene import duplicates as find
    from mae_lib.records.atomic import write_text
    from mae_lib.study.load import load_study

    store, loaded = _build(study, out, workers), load_study(study)
    pairs = find(store, workers=workers)
    path = store.folder / "datasheet.md"
    write_text(path, write(store, name=loaded.name, question=loaded.question, pairs=pairs))
    print(path)


def _folder(study: str, out: str | None):
    """Return a study and the folder of its packed images."""
    from mae_lib.study.load import load_study
    from mae_lib.study.paths import RunPaths

    loaded = load_study(study)
    return loaded, RunPaths.of(out or loaded.name).store(loaded.data.digest)


def _build(study: str, out: str | None, workers: int | None):
    """Build or open a study's store, with a bar on a terminal and without one in a log."""
    import sys

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from mae_lib.images.store import build_store
    from mae_lib.study.paths import data_root

    loaded, folder = _folder(study, out)
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), "images")
    quiet = not sys.stdout.isatty()
    with Progress(*columns, TimeRemainingColumn(), transient=True, disable=quiet) as bar:
        task = bar.add_task("packing", total=None)
        return build_store(
            loaded.data,
            folder,
            data_root=data_root(),
            workers=workers,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
