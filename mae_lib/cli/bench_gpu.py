"""`mae bench gpu` from the full command line: the words go on to the door that needs torch alone."""

from typing import Annotated

import typer

from mae_lib.cli import bare


def register(bench: typer.Typer) -> None:
    """Add the command to the group of benchmarks."""
    settings = {"ignore_unknown_options": True}
    bench.command("gpu", context_settings=settings, add_help_option=False)(gpu)


def gpu(words: Annotated[list[str] | None, typer.Argument(help="Its own options.")] = None) -> None:
    """Measure a GPU in under nine minutes; `mae bench gpu --help` shows its options."""
    raise typer.Exit(bare.main(["bench", "gpu", *(words or [])]))
