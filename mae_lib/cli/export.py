"""`mae export`: publish weights in the names of Hugging Face, timm or facebookresearch/mae."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the main application."""
    app.command("export")(export)


def export(
    source: Annotated[
        str,
        typer.Argument(metavar="CELL", help="A finished cell's id, or a checkpoint to convert."),
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    to: Annotated[str, typer.Option(help="hf, timm or mae.")] = "hf",
    out: Annotated[str | None, typer.Option(help="The run folder that holds the cell.")] = None,
    model: Annotated[
        str | None, typer.Option(help="The shape of a checkpoint that brings no config.json.")
    ] = None,
) -> None:
    """Write config, safetensors, a model card and provenance of a finished cell into DIR."""
    from mae_lib.study.paths import RunPaths, safe_name
    from mae_lib.training.export import convert_checkpoint, export_cell, find_cell

    if Path(source).suffix or "/" in source:
        written = convert_checkpoint(Path(source), to, folder, model=model)
    else:
        runs = RunPaths.of("any").folder.parent
        chosen = safe_name(out, "--out") if out else None
        written = export_cell(find_cell(source, runs, out=chosen), to, folder)
    for path in sorted(written.iterdir()):
        print(f"{path}: {path.stat().st_size:,} bytes")
