"""`mae data`: build, check and carry the packed images of a study."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands to the main application."""
    data = typer.Typer(help="Build and check the packed images of a study.", no_args_is_help=True)
    data.command("build")(build)
    data.command("verify")(verify)
    data.command("travel")(travel)
    app.add_typer(data, name="data")


def build(
    study: Annotated[str, typer.Argument(help="A study's name, or its YAML file.")] = "pocket",
    out: Annotated[str | None, typer.Option(help="Run folder; default: the study's name.")] = None,
) -> None:
    """Pack a study's images, or say that they are packed."""
    from mae_lib.images.store import build_store
    from mae_lib.study.load import load_study
    from mae_lib.study.paths import RunPaths, data_root

    loaded = load_study(study)
    folder = RunPaths.of(out or loaded.name).store(loaded.data.digest)
    store = build_store(loaded.data, folder, data_root=data_root())
    count, side = store.images.shape[:2]
    print(f"{store.folder}: {count:,} images of {side} x {side} pixels")


def verify(
    study: Annotated[str, typer.Argument(help="A study's name, or its YAML file.")] = "pocket",
    out: Annotated[str | None, typer.Option(help="Run folder; default: the study's name.")] = None,
) -> None:
    """Compare every packed file with its hash."""
    from mae_lib.errors import StoreError
    from mae_lib.images.store import verify_store
    from mae_lib.study.load import load_study
    from mae_lib.study.paths import RunPaths

    loaded = load_study(study)
    folder = RunPaths.of(out or loaded.name).store(loaded.data.digest)
    if problems := verify_store(folder):
        more = f" (+{len(problems) - 1} more)" if len(problems) > 1 else ""
        raise StoreError(f"{problems[0]}{more}")
    print(f"{folder}: every file is as it was written")


def travel(
    study: Annotated[str, typer.Argument(help="A study's name, or its YAML file.")],
    out: Annotated[Path, typer.Option(help="The file to write, at most 44 MiB.")],
    also: Annotated[
        str, typer.Option(help="Tars of MAE_DATA to read out only, with commas between.")
    ] = "",
) -> None:
    """Pack a study's photographs into one file for `mae study piece` on a machine without them."""
    from mae_lib.images.store import build_store
    from mae_lib.images.travel import pack_travel
    from mae_lib.study.load import load_study
    from mae_lib.study.paths import RunPaths, data_root

    loaded = load_study(study)
    folder = RunPaths.of(loaded.name).store(loaded.data.digest)
    store = build_store(loaded.data, folder, data_root=data_root())
    extra = [name for name in also.split(",") if name]
    packed = pack_travel(loaded.data, store, data_root(), out, also=extra)
    for part in packed.parts:
        print(f"{part.name}: {part.size / 2**20:.1f} MiB, packed {part.packed / 2**20:.1f}")
    print(f"{out}: {out.stat().st_size / 2**20:.1f} MiB, sha256 {packed.sha256}")
