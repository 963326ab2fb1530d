import pytest

from mae_lib.errors import RecordError, StudyError
from mae_lib.records.plan_file import read_plan, write_plan
from mae_lib.study.definition import Study
from mae_lib.study.load import cell_from_namespace, load_study
from mae_lib.study.paths import root
from mae_lib.study.plain import read_study

STUDIES = sorted(path.stem for path in (root() / "studies").glob("*.yaml"))


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_read_without_the_schema_is_the_same_study(name):
    plain, checked = read_study(name), load_study(name)
    # Only what makes a cell: sections on how it is run are no business of a piece.
    for field in ("name", "question", "data", "cells", "law", "targets"):
        assert getattr(plain, field) == getattr(checked, field)
    assert [c.digest for c in plain.cells] == [c.digest for c in checked.cells]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("mask_ratio: 0.8", "mask_ration: 0.8", "grid.mask_ration: unknown field, got 0.8"),
        ("steps: 60", "steps: sixty", "recipe.steps: int was expected, got 'sixty'"),
        ("steps: 60", "steps: true", "recipe.steps: int was expected, got True"),
        ("images: [120, 375, 1200]", "images: 120", "grid.blocks.0.images: a list was expected"),
        ("  total: 12000\n", "", "data.total: missing"),
        ("format: 1", "format: 2", "format: 1 is read here, got 2"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, old, new, problem):
    path = tmp_path / "s.yaml"
    text = (root() / "studies" / "measured-rehearsal.yaml").read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(StudyError) as found:
        read_study(path)
    assert str(found.value).startswith(f"{path}: {problem}")
    assert "\n" not in str(found.value)


def test_blocks_may_overlap_and_a_stem_has_its_own_patch():
    study = load_study("measured")
    cells = study.cells
    assert len({cell.id for cell in cells}) == len(cells) == 92
    assert {c.resolution // c.patch_size for c in cells if "hybrid" not in c.model} == {8}
    assert {c.patch_size for c in cells if "hybrid" in c.model} == {16}
    crossed = {m: {c.resolution for c in cells if c.model == m} for m in {c.model for c in cells}}
    assert sum(len(levels) >= 3 for levels in crossed.values()) >= 3
    assert {c.recipe.steps * c.recipe.batch_size for c in cells} == {512_000}


def test_a_plan_keeps_digests_and_refuses_others(tmp_path):
    study = load_study("measured-rehearsal")
    committed = read_plan(root() / "results" / study.name / "plan.json", study)
    path = tmp_path / "plan.json"
    write_plan(path, committed)
    assert read_plan(path, study) == committed
    other = load_study("measured-128")
    with pytest.raises(RecordError, match="mae study order measured-128"):
        read_plan(path, Study(other.name, other.question, other.data, other.cells, other.law))
    path.write_text(path.read_text().replace('"seconds": 6.0', '"seconds": 5.0', 1))
    with pytest.raises(RecordError, match="seal"):
        read_plan(path, study)


def test_a_stem_s_cell_is_the_same_by_a_notebook_s_parameters():
    study = load_study("measured")
    hybrid = next(cell for cell in study.cells if cell.model == "vit_hybrid")
    given = {"model": hybrid.model, "images": hybrid.images, "resolution": hybrid.resolution}
    cell, _ = cell_from_namespace({"study": "measured", "out": "nowhere"} | given)
    assert cell.digest == hybrid.digest
