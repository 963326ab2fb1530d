import dataclasses
import importlib.metadata
import tomllib

from measured_pieces import write_piece
from typer.testing import CliRunner

from mae_lib.cli.main import _register, app
from mae_lib.errors import StudyError
from mae_lib.study.load import load_study
from mae_lib.study.paths import root


def test_a_checkout_that_is_not_installed_knows_its_version(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    found = CliRunner().invoke(app, ["--version"])
    expected = tomllib.loads((root() / "pyproject.toml").read_text())["project"]["version"]
    assert (found.exit_code, found.stdout) == (0, f"mae {expected}\n")


def test_a_piece_of_a_study_kept_elsewhere_is_merged_by_naming_its_file(tmp_path):
    _register()
    study = dataclasses.replace(load_study("measured"), name="of-my-own")
    piece = write_piece(tmp_path / "piece", study, [], "p")
    found = CliRunner().invoke(app, ["study", "merge", str(piece)])
    assert isinstance(found.exception, StudyError)
    assert "studies/of-my-own.yaml: no such study" in str(found.exception)
    assert str(found.exception).endswith("name it: --study FILE")


def test_no_order_is_written_for_a_study_that_cannot_be_measured():
    _register()
    found = CliRunner().invoke(app, ["study", "order", "paper"])
    assert isinstance(found.exception, StudyError)
    assert str(found.exception).startswith(
        "paper: data.kind: planned, it is priced and not measured"
    )
    assert not (root() / "results" / "paper").exists()
