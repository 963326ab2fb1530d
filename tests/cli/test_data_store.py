"""`mae data` about a build: build, verify, duplicates, croissant, datasheet, as a user types them."""

import json
from pathlib import Path

import pytest
import yaml
from photograph_folders import write_two
from typer.testing import CliRunner

from mae_lib.cli.main import _register, app
from mae_lib.errors import StoreError, StudyError
from mae_lib.study.paths import root

_register()


@pytest.fixture
def study(tmp_path, runs_folder, monkeypatch):
    """A study of kind sources on two small folders, one of whose images evaluation shows too."""
    sets = tmp_path / "sets"
    write_two(sets, train=40, test=60)
    tests = sorted((sets / "one" / "test").rglob("*.jpg"))
    trains = sorted((sets / "two" / "train").rglob("*.jpg"))
    for train in trains[:2]:
        train.write_bytes(tests[0].read_bytes())
    (trains[2]).write_bytes(b"<html>log in</html>")
    monkeypatch.setenv("MAE_DATA", str(sets))
    content = yaml.safe_load((root() / "studies" / "pocket.yaml").read_text())
    content["name"] = "two-folders"
    content["data"] = {
        "kind": "sources",
        "total": 60,
        "size": 16,
        "set_aside_limit": 0.1,
        "sources": [
            {"name": name, "share": 0.5, "layout": "folder", "path": name}
            for name in ("one", "two")
        ],
        "tasks": [{"name": "one", "source": "one"}],
    }
    content["grid"] |= {"images": [60], "resolutions": [16], "models": ["vit_pico"]}
    content["law"] |= {"task": "one"}
    path = tmp_path / "two-folders.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def run(*arguments) -> str:
    found = CliRunner().invoke(app, ["data", *map(str, arguments)])
    if found.exception and not isinstance(found.exception, SystemExit):
        raise found.exception
    assert found.exit_code == 0, found.output
    return found.output


def test_a_build_says_what_it_made_and_what_it_left_out(study, runs_folder):
    said = run("build", study)
    assert "60 images of 16 x 16 pixels" in said
    assert "mixture   one 30, two 30" in said
    assert "twin, named in" in said
    (folder,) = (runs_folder / "two-folders" / "store").glob("*/")
    aside = (folder / "set_aside.csv").read_text()
    assert aside.count("the same bytes") == 2
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["recipe"]["twins"] == "drop"
    assert run("build", study).splitlines()[0] == said.splitlines()[0]
    assert "every file is as it was written" in run("verify", study)
    content = (folder / "images.npy").read_bytes()
    (folder / "images.npy").write_bytes(content[:5000] + b"\x00\x01" + content[5002:])
    with pytest.raises(StoreError, match=r"rows 0 to 59 \(block 0\) changed"):
        run("verify", study)


def test_duplicates_croissant_and_datasheet_are_written_beside_the_images(study, tmp_path):
    said = run("duplicates", study, "--csv", tmp_path / "pairs.csv")
    assert "pHash bits and" in said
    assert "one: 30 images of its training part are pretrained on, by design" in said
    assert (tmp_path / "pairs.csv").read_text().startswith("kind,array_1")
    croissant = run("croissant", study).strip().replace("\n", "")
    assert json.loads(Path(croissant).read_text())["name"] == "two-folders"
    sheet = run("datasheet", study).strip().replace("\n", "")
    assert "twin" in Path(sheet).read_text()


def test_a_field_that_does_not_fit_the_kind_is_one_line(study):
    content = yaml.safe_load(study.read_text())
    for change, says in (
        ({"smaller": [16]}, "smaller: sides below size 16 were expected, got 16"),
        ({"smaller": [8, 8]}, "smaller: the same side is given twice"),
        ({"decoder": "opencv"}, "decoder"),
        ({"twins": "maybe"}, "twins"),
        ({"set_aside_limit": 2}, "set_aside_limit"),
    ):
        study.write_text(yaml.safe_dump(content | {"data": content["data"] | change}))
        with pytest.raises(StudyError, match=says) as caught:
            run("build", study)
        assert "\n" not in str(caught.value)
    drawn = yaml.safe_load((root() / "studies" / "pocket.yaml").read_text())
    drawn["data"]["twins"] = "drop"
    study.write_text(yaml.safe_dump(drawn))
    with pytest.raises(StudyError, match="twins: for photographs only, kind is procedural"):
        run("build", study)
