import dataclasses

import pytest

from mae_lib.errors import StudyError
from mae_lib.report.fittable import require_fittable
from mae_lib.study.load import load_study


@pytest.mark.parametrize("name", ["pocket", "real-small", "measured", "measured-128"])
def test_a_study_of_this_repository_can_end_in_a_law(name):
    require_fittable(load_study(name))


@pytest.mark.parametrize(("field", "column"), [("images", "images"), ("resolutions", "resolution")])
def test_one_level_of_a_factor_is_refused_before_anything_is_trained(field, column):
    study = load_study("pocket")
    first = getattr(study.cells[0], column)
    cells = tuple(cell for cell in study.cells if getattr(cell, column) == first)
    with pytest.raises(StudyError, match=rf"^pocket: grid: {field}: one level"):
        require_fittable(dataclasses.replace(study, cells=cells))


def test_one_model_is_refused_unless_patches_give_it_several_sizes():
    study = load_study("pocket")
    one = tuple(cell for cell in study.cells if cell.model == "vit_pico")
    require_fittable(dataclasses.replace(study, cells=one))
    same = tuple(cell for cell in one if cell.resolution == 16)
    with pytest.raises(StudyError, match=r"^pocket: grid: models: one level"):
        require_fittable(dataclasses.replace(study, cells=same))


def test_a_hybrids_level_does_not_count_beside_plain_encoders():
    study = load_study("measured")
    cells = [c for c in study.cells if c.model == "vit_hybrid" or c.resolution == 32]
    with pytest.raises(StudyError, match="grid: resolutions: one level"):
        require_fittable(dataclasses.replace(study, cells=tuple(cells)))


def test_a_study_without_a_target_is_refused_before_anything_is_trained():
    study = dataclasses.replace(load_study("pocket"), targets=())
    with pytest.raises(StudyError, match=r"^pocket: targets: none"):
        require_fittable(study)
