"""Execute one notebook with papermill: into `runs/`, never in place, and under its final name only
when every cell completed. A sidecar in its metadata says from what it was made."""

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import nbformat

from mae_lib.errors import INTERRUPTED, MaeError
from mae_lib.records.atomic import replacing
from mae_lib.study.paths import root

MARK = "mae"


def execute(name: str, parameters: Mapping[str, object], *, inputs: str, output: Path) -> None:
    """Run `notebooks/<name>.ipynb` and write the executed copy to `output`.

    `inputs` is a digest of what the notebook reads: it goes into the copy's metadata, where
    `is_current` finds it.
    Raises: MaeError with the notebook's own one-line error, or what killed its kernel.
    """
    import papermill  # slow to import, and only needed here
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    source = source_path(name)
    _refuse_unknown_names(source, parameters)
    try:
        with replacing(output) as temporary, _quiet():
            partial = temporary.with_suffix(".partial.ipynb")
            try:
                papermill.execute_notebook(
                    source,
                    partial,
                    parameters=dict(parameters),
                    progress_bar=False,
                    cwd=root(),
                    log_output=False,
                )
                notebook = nbformat.read(partial, 4)
                _require_complete(notebook, name)
                notebook.metadata[MARK] = {
                    "source": source_digest(source),
                    "inputs": inputs,
                    "cells": cells_digest(notebook),
                }
                nbformat.write(notebook, temporary)
            finally:
                partial.unlink(missing_ok=True)
    except PapermillExecutionError as error:
        raise _one_line(name, error) from None
    except DeadKernelError:
        raise MaeError(
            f"notebooks/{name}: its kernel was killed, probably for memory or a full disk; "
            "free some, then run the same command again"
        ) from None


def source_path(name: str) -> Path:
    """Return the committed notebook of a name."""
    return root() / "notebooks" / f"{name}.ipynb"


def require_paired(name: str) -> None:
    """Refuse a notebook whose text was edited and its twin not, or the other way round: what runs
    would not be what was read. Raises: MaeError with the command that pairs them.
    """
    import jupytext  # slow to import, and only needed here

    notebook = source_path(name)
    text = notebook.with_suffix(".py")
    if not text.exists():
        return
    read = [jupytext.read(text, fmt="py:percent"), nbformat.read(notebook, 4)]
    texts, cells = ([(c.cell_type, c.source) for c in each.cells] for each in read)
    if texts != cells:
        raise MaeError(
            f"notebooks/{name}: the .py and the .ipynb hold different cells; pair them, the newer "
            f"wins: `jupytext --sync notebooks/{name}.py`, then run the same command again",
            exit_code=2,
        )


def source_digest(path: Path) -> str:
    """Hash the cells of a notebook, not its outputs."""
    cells = [(c.cell_type, c.source) for c in nbformat.read(path, 4).cells]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()[:16]


def is_current(name: str, inputs: str, output: Path) -> bool:
    """Whether `output` is a complete execution of this notebook on these inputs."""
    try:
        notebook = nbformat.read(output, 4)
        _require_complete(notebook, name)
    except (OSError, ValueError, MaeError, nbformat.ValidationError):
        return False
    return notebook.metadata.get(MARK) == {
        "source": source_digest(source_path(name)),
        "inputs": inputs,
        "cells": cells_digest(notebook),
    }


def cells_digest(notebook) -> str:
    """Hash the cells of an executed copy with their outputs, so that a changed one is found."""
    cells = json.dumps([dict(cell) for cell in notebook.cells], sort_keys=True)
    return hashlib.sha256(cells.encode()).hexdigest()[:16]


def _require_complete(notebook, name: str) -> None:
    """A killed kernel leaves cells that were never run and no error: count them."""
    code = [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]
    ran = [c for c in code if c.execution_count]
    errors = [o for c in code for o in c.outputs if o.output_type == "error"]
    ended = notebook.metadata.get("papermill", {}).get("end_time")
    if errors or len(ran) < len(code) or not ended:
        raise MaeError(
            f"notebooks/{name}: stopped after {len(ran)} of {len(code)} cells without an error: "
            "its kernel was killed, probably for memory; free some, or run fewer cells at once"
        )


def _refuse_unknown_names(source: Path, parameters: Mapping[str, object]) -> None:
    """papermill only warns about a name it does not know, and would run code hidden in one."""
    for name in parameters:
        if not name.isidentifier():
            raise MaeError(f"{source.name}: {name!r} is no parameter name", exit_code=2)


def _one_line(name: str, error) -> MaeError:
    exit_code = {"Interrupted": INTERRUPTED, "KeyboardInterrupt": INTERRUPTED}.get(error.ename)
    codes = {kind.__name__: kind.exit_code for kind in _error_kinds(MaeError)}
    value = error.evalue or error.ename
    if error.ename not in codes:
        value = f"{error.ename}: {value}"
    return MaeError(f"notebooks/{name}: {value}", exit_code=exit_code or codes.get(error.ename, 1))


def _error_kinds(kind: type) -> list[type]:
    return [kind, *(k for child in kind.__subclasses__() for k in _error_kinds(child))]


@contextlib.contextmanager
def _quiet():
    """Kernels announce their transport on stderr; keep it out of a user's terminal."""
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def execute_in_place(notebook, name: str):
    """Execute a notebook object with its own defaults and return it.

    Raises: MaeError with the notebook's own one-line error.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    try:
        with _quiet():
            client = NotebookClient(notebook, timeout=900, resources={"metadata": {"path": root()}})
            return client.execute()
    except CellExecutionError as error:
        raise _one_line(name, error) from None
