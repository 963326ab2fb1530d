"""Make the committed notebooks from their text: pair, execute with the defaults, strip what varies."""

import os
import tempfile

import nbformat

from mae_lib.records.atomic import write_text
from mae_lib.report.execution import execute_in_place
from mae_lib.study.paths import root


def refresh_notebooks() -> None:
    """Rebuild every notebooks/*.ipynb from its .py twin and execute it with its own defaults.

    Runs go to a temporary folder, so that notebooks 01 to 03 really rebuild their cell.
    """
    import jupytext

    with tempfile.TemporaryDirectory() as runs:
        os.environ["MAE_RUNS"] = runs
        for text in sorted((root() / "notebooks").glob("*.py")):
            notebook = jupytext.read(text, fmt="py:percent")
            executed = execute_in_place(notebook, text.stem)
            write_text(text.with_suffix(".ipynb"), nbformat.writes(without_times(executed)) + "\n")
            print(f"notebooks/{text.stem}.ipynb")


def without_times(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop what differs between two executions: times, ids of this machine, papermill's notes."""
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        cell.metadata = {k: v for k, v in cell.metadata.items() if k == "tags" and v}
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    return notebook
