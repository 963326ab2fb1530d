"""What a design cannot know is said in words: aliases, bounds, levels, distance, leverage."""

import numpy as np
import pandas as pd
import pytest
from law_tables import FACTORS, ORHAN_CENTRE, law_grid, law_table, orhan

from mae_lib.errors import FitError
from mae_lib.scaling.describe import describe_fit, law_notes
from mae_lib.scaling.fit import fit_law
from mae_lib.scaling.identify import at_target, identifiability
from mae_lib.scaling.laws import law_named
from mae_lib.scaling.levels import level_codes, level_names
from mae_lib.scaling.table import check_table


def test_two_factors_that_move_together_are_named_as_aliased():
    frame = law_grid(0.01)
    frame["resolution"] = frame.params_encoder / 1e4
    block = fit_law(law_table(frame), "log_additive", bootstrap=100).identifiability
    assert block["rank"] == 3
    assert "per_ln_params_encoder x per_ln_resolution" in block["null_directions"][0]
    assert "params_encoder and resolution vary together" in block["null_directions"][0]


def test_a_nearly_lost_direction_is_named_though_the_rank_is_full():
    frame = law_grid(0.01)
    wobble = 1 + 1e-5 * np.random.default_rng(0).normal(size=len(frame))
    frame["resolution"] = frame.params_encoder / 1e4 * wobble
    block = fit_law(law_table(frame), "log_additive", bootstrap=0).identifiability
    assert (block["rank"], block["effective_rank"]) == (4, 3)
    assert "is nearly aliased: params_encoder and resolution vary" in block["null_directions"][0]
    assert block["condition"] > 1e4


def test_a_good_design_has_full_rank_and_no_directions():
    block = fit_law(law_table(law_grid(0.01)), "log_product", bootstrap=0).identifiability
    assert block["rank"] == block["effective_rank"] == block["parameters"] == 4
    assert block["null_directions"] == []
    assert block["condition"] < 5


def test_an_interaction_that_one_level_carries_is_aliased_and_says_which_factor_varies_where():
    frame = law_grid(0.01)
    frame.loc[frame.params_encoder < 2e5, "resolution"] = 16
    table = law_table(frame)
    z = table.logs - table.logs.mean(0)
    law = law_named("log_additive")
    # A law of one's own with all pairwise terms, none of them dropped beforehand.
    pairs = [(0, 1), (0, 2), (1, 2)]
    jacobian = np.column_stack([np.ones(12), z, *(z[:, i] * z[:, j] for i, j in pairs)])

    class Bilinear:
        note, dropped, levels_needed, levels_of = "", (), 2, "every"

        @staticmethod
        def names(factors):
            return (
                *law.names(factors),
                *(f"per_ln_{FACTORS[i]}_ln_{FACTORS[j]}" for i, j in pairs),
            )

    block = identifiability(Bilinear, table, FACTORS, np.zeros(7), z, jacobian=jacobian)
    assert block["rank"] == 6
    assert "resolution varies at one params_encoder only" in block["null_directions"][0]


def test_parameters_on_a_bound_are_named_and_have_no_standard_error():
    x = np.repeat([1e3, 1e4, 1e5, 1e6], 3)
    noise = 0.01 * np.random.default_rng(0).normal(size=12)
    frame = pd.DataFrame({"images": x, "loss": 5 * x**-0.05 - 1 + noise})
    table = check_table(frame, response="loss", factors=("images",))
    fit = fit_law(table, "power_product", bootstrap=50)
    assert "floor on its lower bound 0" in fit.identifiability["on_bound"]
    found = describe_fit(fit)
    assert found["standard_errors"]["ols"]["floor"] is None
    assert found["standard_errors"]["ols"]["exponent_images"] > 0
    assert any("floor on its lower bound 0: no standard error" in note for note in found["notes"])


def test_levels_that_lie_close_together_count_as_one():
    sizes = np.log([21.6e6, 85.7e6, 303e6, 630.7e6, 631.7e6, 631.9e6])
    assert level_codes(sizes).tolist() == [0, 1, 2, 3, 3, 3]
    assert level_codes(np.log([224, 448, 476])).tolist() == [0, 1, 1]
    # where the whole factor hardly moves, small steps are levels
    assert level_codes(np.log([226, 256])).tolist() == [0, 1]
    assert level_names(np.log([224, 448, 476])) == {0: "224", 1: "461.8"}
    block = fit_law(law_table(law_grid(0.01)), "log_additive", bootstrap=0).identifiability
    assert block["levels"] == {"images": 3, "params_encoder": 2, "resolution": 2}
    assert block["too_few_levels"] == ["params_encoder", "resolution"]


def test_a_target_has_its_distance_by_factor():
    fit = fit_law(law_table(law_grid(0.01)), "log_additive", bootstrap=0)
    found = at_target(fit, {"images": 80000, "params_encoder": 2e5, "resolution": 8})
    assert found["rho"] == pytest.approx({"images": 0.5, "params_encoder": 0, "resolution": 1})
    assert found["rho_max"] == pytest.approx(1)
    with pytest.raises(FitError, match="at: images: must be a number above 0, got nothing"):
        at_target(fit, {"resolution": 8})


def test_the_mean_leverage_of_the_rows_is_parameters_over_rows():
    table = law_table(law_grid(0.01))
    fit = fit_law(table, "log_product", bootstrap=0)
    rows = [dict(zip(FACTORS, row, strict=True)) for row in table.x]
    assert np.mean([at_target(fit, at)["leverage"] for at in rows]) == pytest.approx(4 / 12)
    logs = fit_law(table, "log_product", bootstrap=0, objective="log")
    assert np.mean([at_target(logs, at)["leverage"] for at in rows]) == pytest.approx(4 / 12)


def test_the_printed_design_is_22_ranges_away_from_4096_pixels():
    frame = pd.DataFrame({"resolution": [226, 226, 256, 256], "top1": [0.3, 0.31, 0.35, 0.36]})
    table = check_table(frame, response="top1", factors=("resolution",))
    fit = fit_law(table, "log_additive", bootstrap=0)
    assert at_target(fit, {"resolution": 4096})["rho_max"] == pytest.approx(22.2443, abs=1e-4)


def test_the_public_grids_leverage_is_the_reference_value(grids):
    fit = fit_law(orhan(grids), "log_additive", bootstrap=0, centre=ORHAN_CENTRE)
    for hours, n_params, res, expected in (
        (5000, 632e6, 476, 0.0845), (20000, 2.5e9, 952, 0.2408), (5000, 522e9, 4096, 0.8889)
    ):  # fmt: skip
        at = {"hours": hours, "n_params": n_params, "res": res}
        assert at_target(fit, at)["leverage"] == pytest.approx(expected, abs=1e-4)


def test_the_public_grids_interaction_is_aliased_by_name(grids):
    fit = fit_law(orhan(grids), "log_bilinear", bootstrap=0)
    words = "n_params x res is aliased: res varies at one n_params only"
    assert words in fit.identifiability["null_directions"]
    assert f"log_bilinear: {words}" in law_notes([describe_fit(fit)])
