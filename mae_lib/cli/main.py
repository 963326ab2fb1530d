"""`mae`, and `python -m mae_lib`: the command line. Heavy imports wait until a command needs them."""

import signal
import sys
from typing import Annotated

import typer
from typer.exceptions import TyperException

from mae_lib.cli.usage import typer_problem, usage_line
from mae_lib.errors import INTERRUPTED, MaeError

_CTRL_C = 130

app = typer.Typer(
    name="mae",
    help="Pretrain masked auto-encoders over a grid, fit scaling laws, and see how far they reach.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(wish: bool | None) -> None:
    if wish:
        print(f"mae {_installed_or_checked_out()}")
        raise typer.Exit


def _installed_or_checked_out() -> str:
    """A checkout runs without being installed, as `make study` does: then its own file says."""
    import importlib.metadata
    import tomllib

    from mae_lib.study.paths import root

    try:
        return importlib.metadata.version("mae-lib")
    except importlib.metadata.PackageNotFoundError:
        return tomllib.loads((root() / "pyproject.toml").read_text())["project"]["version"]


@app.callback()
def _main(
    version: Annotated[
        bool | None,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = None,
) -> None:
    pass


def _register() -> None:
    from mae_lib.cli import bench, cost, data, export, law, plan_law, predict, refit, study

    for module in (study, data, law, predict, refit, plan_law, cost, export, bench):
        module.register(app)


def main() -> None:
    """Run a command; an error of ours is one line on stderr and its exit code."""
    _register()
    # A scheduler's SIGTERM ends a command as Ctrl-C does, so that its workers end with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = app(prog_name="mae", standalone_mode=False)
        # Typer ends so, and silently, on a KeyboardInterrupt inside a command.
        sys.exit(_interrupted() if code == _CTRL_C else code)
    except TyperException as error:
        sys.exit(_misused(error, sys.argv[1:]))
    except MaeError as error:
        print(f"mae: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(_interrupted())
    except MemoryError:
        print("mae: out of memory; free some, or run fewer cells at once", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"mae: {where}{error.strerror or error}", file=sys.stderr)
        sys.exit(1)


def _misused(error: TyperException, words: list[str]) -> int:
    """Tell a wrong call in one line; a call without a command has been answered with its help."""
    if problem := typer_problem(error):
        print(usage_line(_called(words), problem), file=sys.stderr)
    return error.exit_code


def _called(words: list[str]) -> str:
    """Return the command that the words name: `mae study run`."""
    path, command = ["mae"], typer.main.get_command(app)
    for word in words:
        if (command := getattr(command, "commands", {}).get(word)) is None:
            break
        path.append(word)
    return " ".join(path)


def _interrupted() -> int:
    print("mae: interrupted; the same command goes on from here", file=sys.stderr)
    return INTERRUPTED
