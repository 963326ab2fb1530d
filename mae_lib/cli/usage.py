"""One line for a command that was called wrongly, of typer and of argparse alike."""

import argparse
from typing import NoReturn

CODE = 2


def usage_line(command: str, problem: str) -> str:
    """Say which command, which option or argument, what is wrong, and where its help is."""
    said = " ".join(problem.split()).rstrip(".").replace(". Did you", "; did you")
    return f"{command}: {said}; see {command} --help"


def typer_problem(error: Exception) -> str:
    """Return what typer found wrong, its option or argument first; empty where it showed its help.

    Its classes are private: the fields tell them apart.
    """
    if (parameter := getattr(error, "param", None)) is not None:
        name = parameter.get_error_hint().replace("'", "")
        return f"{name}: {_wrong_value(error) or f'missing {parameter.param_type_name}'}"
    said = str(getattr(error, "message", error))
    if near := getattr(error, "possibilities", None):
        said += f". Did you mean {' or '.join(sorted(near))}?"
    return said[:1].lower() + said[1:]


def _wrong_value(error: Exception) -> str:
    """Pydantic, where it is the cause, has kept the value."""
    found = getattr(error.__cause__, "errors", None)
    if found is None:
        return str(getattr(error, "message", error))
    first = found()[0]
    wanted = first["msg"].partition(", unable")[0].replace("Input should", "must")
    return f"{wanted}, got {first['input']!r}"


class OneLineParser(argparse.ArgumentParser):
    """An argparse parser whose usage errors are one line and exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Print the line and exit."""
        self.exit(CODE, usage_line(self.prog, message.removeprefix("argument ")) + "\n")
