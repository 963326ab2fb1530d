"""A study or a namespace is a Study or a Cell, or one line that says what is wrong."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mae_lib.errors import StudyError
from mae_lib.study.load import cell_from_namespace, load_study, study_from_namespace
from mae_lib.study.paths import root
from mae_lib.study.schema import CellFields, RecipeFields

DEFAULTS = {"study": "pocket", "out": "scratch", "model": "vit_nano", "images": 800}


@pytest.mark.parametrize("name", ["pocket", "real-small", "paper"])
def test_shipped_studies_load_and_their_ids_are_safe(name):
    study = load_study(name)
    assert study.name == name
    ids = [cell.id for cell in study.cells]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch("[a-z0-9_-]+", cell_id) for cell_id in ids)


def test_pocket_and_real_small_have_the_grid_that_the_report_promises():
    for name, cells in (("pocket", 12), ("real-small", 12)):
        study = load_study(name)
        assert len(study.cells) >= cells
        assert len({cell.model for cell in study.cells}) >= 2
        assert len({cell.images for cell in study.cells}) >= 3
        assert len({cell.resolution for cell in study.cells}) >= 2


def test_the_paper_study_has_its_numbers():
    study = load_study("paper")
    shares = {source.name: source.share for source in study.data.sources}
    assert shares == {"imagenet": 0.5, "celeba": 0.315, "cifar10": 0.05, "ade20k": 0.135}
    assert {cell.resolution for cell in study.cells} == {226, 256}
    assert {cell.pixels for cell in study.cells} == {224, 256}
    assert max(cell.images for cell in study.cells) == study.data.total == 200_000


def test_a_changed_setting_changes_the_digest_and_nothing_else_does():
    cell, _ = cell_from_namespace(DEFAULTS)
    assert cell.digest == cell_from_namespace(dict(reversed(DEFAULTS.items())))[0].digest
    for change in ({"seed": 1}, {"steps": 100}, {"mask_ratio": 0.75}, {"clip_grad": 1.0}):
        assert cell_from_namespace(DEFAULTS | change)[0].digest != cell.digest
    assert cell_from_namespace(DEFAULTS | {"out": "elsewhere"})[0].digest == cell.digest


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"mask_ration": 0.5}, "did you mean 'mask_ratio'"),
        ({"mask_ratio": 1.2}, "less than 1, got 1.2"),
        ({"mask_ratio": float("nan")}, "finite"),
        ({"mask_ratio": 0.999}, "leaves 0 visible"),
        ({"model": "vit_smal"}, "did you mean 'vit_small'"),
        ({"images": "many"}, "valid integer"),
        ({"images": 10**6}, "holds 8,000 images"),
        ({"resolution": 4, "patch_size": 8}, "at least the patch of 8"),
        ({"resolution": 30}, "multiple of 8"),
        ({"resolution": 128}, "stores 64 pixels a side, got 128"),
        ({"steps": 3.5}, "got 3.5"),
        ({"steps": True}, "a number or a name was expected, got True"),
        ({"decoder_dim": 64, "decoder_heads": 3}, "must divide"),
        ({"decoder_heads": 3}, "a multiple of its 3 heads and of 4"),
        ({"model": "vit_micro", "decoder_dim": 64}, "got 64; 60 or 72 would do"),
        ({"precision": "fp16"}, "'fp32', 'bf16', 'fp64' or 'fp8'"),
        ({"study": "pockt"}, "did you mean 'pocket'"),
        ({"out": "../x"}, "a-z, 0-9"),
        ({"out": "/etc/x"}, "a-z, 0-9"),
        ({"out": "C:\\x"}, "a-z, 0-9"),
        ({"out": "a\0b"}, "a-z, 0-9"),
        ({"out": None}, "a-z, 0-9"),
        ({"study": "../pocket"}, "a-z, 0-9"),
    ],
)
def test_a_wrong_parameter_ends_in_one_line_that_names_it(change, says):
    with pytest.raises(StudyError, match=re.escape(says)) as caught:
        cell_from_namespace(DEFAULTS | change)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(name=st.text(min_size=1, max_size=12).filter(lambda name: not name.startswith("_")))
def test_any_unknown_name_is_refused(name):
    known = {"study", "out", "In", "Out", "exit", "quit", "get_ipython", "open"}
    known |= set(CellFields.model_fields) | set(RecipeFields.model_fields)
    if name in known:
        return
    with pytest.raises(StudyError, match="unknown name"):
        cell_from_namespace(DEFAULTS | {name: 1})


def test_notebooks_about_a_study_take_its_name_and_folder_only():
    study, out = study_from_namespace({"study": "pocket", "out": "published"})
    assert (study.name, out) == ("pocket", "published")
    with pytest.raises(StudyError, match="unknown name"):
        study_from_namespace({"study": "pocket", "out": "published", "resolution": 32})


def edited(tmp_path: Path, change) -> Path:
    content = yaml.safe_load((root() / "studies" / "pocket.yaml").read_text())
    change(content)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c["recipe"].update(stepz=3), "recipe.stepz: unknown field"),
        (lambda c: c["grid"].update(mask_ratio=1.2), "grid.mask_ratio"),
        (lambda c: c["grid"].update(models=["vit_nan"]), "did you mean 'vit_nano'"),
        (lambda c: c["data"]["sources"][0].update(share=0.4), "sum to 1, got 0.9"),
        (lambda c: c["data"]["tasks"][0].pop("test_images"), "test_images"),
        (lambda c: c["grid"].pop("patch_grid"), "either patch_grid or patch_size"),
        (lambda c: c["law"].update(task="shape"), "none of data.tasks"),
        (lambda c: c.update(name="../up"), "name"),
        (lambda c: c.pop("question"), "question"),
    ],
)
def test_a_wrong_study_file_ends_in_one_line_that_names_file_and_field(tmp_path, change, says):
    path = edited(tmp_path, change)
    with pytest.raises(StudyError, match=re.escape(says)) as caught:
        load_study(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: [", "is not YAML"),
        ("name: a\nname: b\n", "given twice"),
        ("- 1\n", "mapping"),
        ("", "mapping"),
        ("name: !!python/object/apply:os.system ['true']\n", "is not YAML"),
        ("a\0b", "is not YAML"),
    ],
)
def test_a_file_that_is_no_study_ends_in_one_line(tmp_path, text, says):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(StudyError, match=says) as caught:
        load_study(path)
    assert "\n" not in str(caught.value)


def test_a_folder_or_another_file_in_place_of_a_study_ends_in_one_line(tmp_path):
    for path, says in (
        (tmp_path, f"study: {tmp_path} is a folder; name a study's file: none lies in it"),
        (
            root() / "studies",
            "it holds measured-128.yaml, measured-rehearsal.yaml, measured.yaml (+",
        ),
        (tmp_path / "x.txt", f"a file that ends in .yaml, is wanted, got '{tmp_path}/x.txt'"),
    ):
        with pytest.raises(StudyError, match=re.escape(says)) as caught:
            load_study(path)
        assert "\n" not in str(caught.value)
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(StudyError, match=r"folder\.yaml is a folder; name"):
        load_study(tmp_path / "folder.yaml")


def test_an_edited_copy_is_another_study_with_other_cells(tmp_path):
    path = edited(tmp_path, lambda c: (c.update(name="mine"), c["recipe"].update(steps=7)))
    mine, pocket = load_study(path), load_study("pocket")
    assert not {cell.id for cell in mine.cells} & {cell.id for cell in pocket.cells}


def test_the_committed_json_schema_is_the_one_in_the_code():
    import json

    from mae_lib.study.schema import StudyFile

    committed = json.loads((root() / "studies" / "study.schema.json").read_text())
    assert committed == StudyFile.model_json_schema()


def test_the_names_that_a_study_may_use_are_those_of_the_layers_that_define_them():
    from mae_lib.images.procedural import FAMILIES
    from mae_lib.scaling.laws import LAWS
    from mae_lib.study import known

    assert set(known.LAWS) == set(LAWS)
    assert tuple(FAMILIES) == known.FAMILIES
