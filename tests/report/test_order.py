import numpy as np
import pytest

from mae_lib.cost import cost_of
from mae_lib.records.plan_file import read_plan
from mae_lib.report.order import _terms, largest_of, measuring_plan
from mae_lib.study.load import load_study
from mae_lib.study.paths import root


@pytest.mark.parametrize("name", ["measured", "measured-128", "measured-rehearsal"])
def test_the_committed_plan_is_what_the_rule_gives(name):
    study = load_study(name)
    assert read_plan(root() / "results" / name / "plan.json", study) == measuring_plan(study)


def test_every_prefix_is_a_design_and_the_largest_come_last():
    study = load_study("measured")
    plan = measuring_plan(study)
    cells = [study.cell(cell.id) for cell in plan.cells]
    terms = dict(zip((c.id for c in study.cells), _terms(study.cells), strict=True))
    variances = []
    for end in range(12, len(cells) - len(plan.largest) + 1, 4):
        design = np.array([terms[cell.id] for cell in cells[:end]])
        # Ten terms of a surface in three factors, all of them estimable from any such prefix.
        assert np.linalg.matrix_rank(design) == 10
        inverse = np.linalg.inv(design.T @ design)
        every = np.array(list(terms.values()))
        variances.append(np.einsum("ij,jk,ik->i", every, inverse, every).max())
    assert variances == sorted(variances, reverse=True)
    # The standard error of the worst place is twice a run's noise after a quarter of the cells.
    assert variances[3] < 4
    marks = [cell.largest for cell in plan.cells]
    assert marks == sorted(marks)
    assert {c.images for c in largest_of(study.cells)} == {12_000}
    assert min(cost_of(c).params_encoder for c in largest_of(study.cells)) > 8e7
