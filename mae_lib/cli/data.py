"""`mae data`: where the images come from, and the packed store made of them."""

import typer

from mae_lib.cli import data_store


def register(app: typer.Typer) -> None:
    """Add the commands to the main application."""
    data = typer.Typer(
        help="Fetch image sets, see what is there, build and check the packed images of a study.",
        no_args_is_help=True,
    )
    data_store.register(data)
    app.add_typer(data, name="data")
