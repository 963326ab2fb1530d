"""Coverage is counted as it says, and the study that is scored never enters its multiplier."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mae_lib.bench.coverage import LEVELS, Scored, bench_coverage, summarise
from mae_lib.bench.grids import KNOWN, load_grids
from mae_lib.errors import FitError

REACH = (0.674, 1.282, 1.96)


def scored(study: str, errors, deviation: float = 1.0, grid: str = "g") -> Scored:
    errors = np.asarray(errors, float)
    return Scored(
        study, grid, "top", errors, np.full(len(errors), deviation), REACH, np.zeros(len(errors))
    )


def test_coverage_and_score_are_averaged_over_points_splits_grids_and_studies_equally():
    parts = [scored("a", [0, 0, 3, 3]), scored("a", [0]), scored("b", [3, 0], grid="h")]
    raw = summarise(parts)["raw"]
    assert raw["coverage"]["0.95"] == pytest.approx(((0.5 + 1) / 2 + 0.5) / 2)
    assert raw["worst_study"] == pytest.approx(0.5)
    outside = 40 * (3 - 1.96)
    score = ((2 * 1.96 + outside / 2 + 2 * 1.96) / 2 + 2 * 1.96 + outside / 2) / 2
    assert raw["interval_score"] == pytest.approx(score)
    assert raw["width"] == pytest.approx(2 * 1.96)


def test_the_multiplier_of_a_study_is_learnt_on_the_others_only():
    rng = np.random.default_rng(0)
    parts = [scored(name, rng.normal(size=4000)) for name in "abc"]
    one = summarise(parts)["calibrated"]["multipliers"]
    wild = [scored("a", 50 * rng.normal(size=4000)), *parts[1:]]
    two = summarise(wild)["calibrated"]["multipliers"]
    assert one["a"] == two["a"]
    assert two["b"] > 5 * one["b"]
    assert one["a"] == pytest.approx(1, rel=0.06)


def test_normal_errors_are_covered_at_every_level():
    raw = summarise([scored("a", np.random.default_rng(1).normal(size=20000))])["raw"]
    for level in LEVELS:
        assert raw["coverage"][str(level)] == pytest.approx(level, abs=0.01)


def grid_files(folder, response="loss"):
    rng = np.random.default_rng(0)
    rows = [(n, d) for n in np.geomspace(1e6, 1e9, 6) for d in np.geomspace(1e8, 1e10, 5)]
    frame = pd.DataFrame(rows, columns=["size", "tokens"])
    loss = 1.5 + 40 * frame["size"] ** -0.25 + 500 * frame.tokens**-0.33
    frame["eval"] = loss * np.exp(0.01 * rng.normal(size=len(frame)))
    frame["work"] = 6 * frame["size"] * frame.tokens
    frame.to_csv(folder / "third2030.csv", index=False)
    (folder / "third2030.yaml").write_text(
        f"response: eval\nfactors: [size, tokens]\nkind: {response}\nroles: {{compute: work}}\n"
    )


def test_a_third_partys_table_with_its_yaml_is_picked_up(tmp_path):
    grid_files(tmp_path)
    grids = load_grids(tmp_path)
    assert [(grid.study, grid.name) for grid in grids] == [("third2030", "third2030/eval")]
    found = bench_coverage(grids)
    assert found["studies"] == ["third2030"]
    # Three by tokens, two each by size and by the table's own compute: others leave out the same runs.
    assert found["splits"] == 7
    stacked = found["methods"]["stacked"]
    # The truth is a law of the stack: it covers, and hardly errs.
    assert stacked["raw"]["coverage"]["0.95"] > 0.9
    assert stacked["mae"] < 0.02
    assert found["methods"]["log_additive, naive"]["mae"] > stacked["mae"]


def test_a_table_without_yaml_and_a_folder_without_tables_are_said(tmp_path):
    grid_files(tmp_path)
    (tmp_path / "third2030.yaml").unlink()
    with pytest.raises(FitError, match="holds no table that is known"):
        load_grids(tmp_path)


def test_the_shared_tables_are_21_grids_of_6_studies(grids):
    found = [grid for grid in load_grids(grids) if grid.study in KNOWN]
    assert len(found) == 21
    assert len({grid.study for grid in found}) == 6
    sizes = {grid.name: len(grid.table.frame) for grid in found}
    assert sizes["chinchilla_besiroglu2024/loss"] == 240
    assert sizes["gadre2024_overtraining/c4_original/loss_c4_val"] == 34


def test_the_stack_beats_the_plain_one_and_the_product_law_on_the_public_grid(grids):
    found = [grid for grid in load_grids(grids) if grid.name == "orhan2023/acc1_max"]
    methods = bench_coverage(found)["methods"]
    scores = {name: one["raw"]["interval_score"] for name, one in methods.items()}
    assert methods["stacked"]["raw"]["coverage"]["0.95"] >= 0.9
    assert scores["stacked"] < scores["plain stack"]
    assert scores["stacked"] < scores["log_product, naive"]


def test_held_out_truth_changes_no_centre_and_no_width(grids):
    grid = next(g for g in load_grids(grids) if g.name.startswith("nmt") and "6Enc,6Dec" in g.name)
    frame = grid.table.frame
    top = frame.sentences > frame.sentences.quantile(0.6)
    spoilt = frame.assign(log_perplexity=np.where(top, 9.0, frame.log_perplexity))
    other = replace(grid, table=replace(grid.table, frame=spoilt))
    one, two = (bench_coverage([g])["methods"]["stacked"]["raw"] for g in (grid, other))
    # Only the widest split holds out all spoilt runs, so compare that one through its own call.
    assert one["width"] != two["width"]
    from mae_lib.bench.coverage import _methods
    from mae_lib.scaling.holdout import splits_of
    from mae_lib.scaling.stack import SCHEME

    split = splits_of(grid.table, shares=(0.4,), corner=False)[0][0]
    honest, fooled = (_methods(g, split, SCHEME)["stacked"] for g in (grid, other))
    np.testing.assert_array_equal(honest.deviation, fooled.deviation)
