"""`mae data travel`: one file of a study's photographs for a machine without them."""

from pathlib import Path
from typing import Annotated

import typer


def register(data: typer.Typer) -> None:
    """Add the command to `mae data`."""
    data.command("travel")(travel)


def travel(
    study: Annotated[str, typer.Argument(help="A study's name, or its YAML file.")],
    out: Annotated[Path, typer.Option(help="The file to write, at most 44 MiB.")],
    also: Annotated[
        str, typer.Option(help="Tars of MAE_DATA to read out only, with commas between.")
    ] = "",
) -> None:
    """Pack a study's photographs into one file for `mae study piece` on a machine without them."""
    from mae_lib.images.store import build_store
    from mae_lib.images.travel import pack_travel, require_tars
    from mae_lib.study.load import load_study
    from mae_lib.study.paths import RunPaths, data_root

    loaded = load_study(study)
    require_tars(loaded.data)
    folder = RunPaths.of(loaded.name).store(loaded.data.digest)
    store = build_store(loaded.data, folder, data_root=data_root())
    extra = [name for name in also.split(",") if name]
    packed = pack_travel(loaded.data, store, data_root(), out, also=extra)
    for part in packed.parts:
        print(f"{part.name}: {part.size / 2**20:.1f} MiB, packed {part.packed / 2**20:.1f}")
    print(f"{out}: {out.stat().st_size / 2**20:.1f} MiB, sha256 {packed.sha256}")
