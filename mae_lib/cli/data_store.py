"""`mae data`: build and check the packed images of a study."""

from typing import Annotated

import typer


def register(data: typer.Typer) -> None:
    """Add the commands to `mae data`."""
    data.command("build")(build)
    data.command("verify")(verify)


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
    from mae_lib.images.verify import verify_store
    from mae_lib.study.load import load_study
    from mae_lib.study.paths import RunPaths

    loaded = load_study(study)
    folder = RunPaths.of(out or loaded.name).store(loaded.data.digest)
    if problems := verify_store(folder):
        more = f" (+{len(problems) - 1} more)" if len(problems) > 1 else ""
        raise StoreError(f"{problems[0]}{more}")
    print(f"{folder}: every file is as it was written")
