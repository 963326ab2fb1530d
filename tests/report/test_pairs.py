import jupytext
import nbformat
import pytest

from mae_lib.errors import MaeError
from mae_lib.report import execution


@pytest.fixture
def pair(tmp_path, monkeypatch):
    """A project with one notebook and its text, equal."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    text = "# %% [markdown]\n# # A question\n\n# %%\nprint(1)\n"
    (folder / "one.py").write_text(text)
    nbformat.write(jupytext.reads(text, fmt="py:percent"), folder / "one.ipynb", version=4)
    monkeypatch.setattr(execution, "root", lambda: tmp_path)
    return folder


def test_an_edit_of_either_twin_alone_is_one_line_that_names_the_cure(pair):
    execution.require_paired("one")
    (pair / "one.py").write_text((pair / "one.py").read_text().replace("print(1)", "print(2)"))
    with pytest.raises(
        MaeError, match=r"^notebooks/one: .*jupytext --sync notebooks/one.py"
    ) as got:
        execution.require_paired("one")
    assert got.value.exit_code == 2


def test_a_notebook_without_a_text_runs_as_it_is(pair):
    (pair / "one.py").unlink()
    execution.require_paired("one")
