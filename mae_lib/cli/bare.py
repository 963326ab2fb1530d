"""The door for a machine that has torch and little else: two commands by argparse, without pydantic.

A GPU machine may have no typer, no YAML schema, no notebooks. What runs there is named here; the
full command line offers the same commands.
"""

import importlib
import sys
from collections.abc import Sequence

from mae_lib.cli.usage import OneLineParser
from mae_lib.errors import MaeError

# Each module has `add_arguments(parser)` and `run(arguments)`.
COMMANDS: dict[tuple[str, str], str] = {
    ("bench", "gpu"): "mae_lib.bench.gpu",
    ("study", "piece"): "mae_lib.cli.piece",
}


def wanted(arguments: Sequence[str]) -> bool:
    """Say whether the command is one of those that need no full command line."""
    return tuple(arguments[:2]) in COMMANDS


def main(arguments: Sequence[str]) -> int:
    """Run a bare command; an error of ours is one line on stderr, its exit code is returned.

    Raises: SystemExit with code 2, after one line too, for a command that was called wrongly.
    """
    group, command = arguments[:2]
    module = importlib.import_module(COMMANDS[group, command])
    parser = OneLineParser(prog=f"mae {group} {command}", description=module.__doc__)
    module.add_arguments(parser)
    try:
        module.run(parser.parse_args(arguments[2:]))
    except MaeError as error:
        print(f"mae: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("mae: interrupted; what was finished is kept", file=sys.stderr)
        return 143
    return 0
