"""Standard errors, pure error and resampling reproduce reference values and known truths."""

import numpy as np
import pytest
from law_tables import ORHAN_CENTRE, TRUTH, law_grid, law_table, orhan
from scipy import stats

from mae_lib.errors import FitError
from mae_lib.scaling.fit import fit_law
from mae_lib.scaling.uncertainty import (
    FEW_CLUSTERS,
    bootstrap_intervals,
    cluster_count,
    cluster_effect,
    lack_of_fit,
    law_spread,
    pure_error,
    resample_responses,
    resample_weights,
    standard_errors,
)


def clustered(groups: int, repeats: int = 2, noise: float = 0.01):
    frame = law_grid(noise, repeats=repeats)
    return law_table(frame.assign(subset=frame.index % groups), clusters="subset")


def test_lack_of_fit_needs_repeats_and_rejects_a_wrong_law():
    assert fit_law(law_table(law_grid(0.01)), "log_additive", bootstrap=100).lack_of_fit is None
    table = law_table(law_grid(0.001, repeats=4))
    assert fit_law(table, "log_additive", bootstrap=100).lack_of_fit["p"] < 1e-3
    assert fit_law(table, "log_product", bootstrap=100).lack_of_fit["p"] > 1e-3


def test_clusters_and_cells_are_drawn_whole_and_as_often_as_there_are():
    table = clustered(5)
    for how, codes in (("clusters", table.cluster_codes), ("cells", table.cell_codes)):
        weights, unit = resample_weights(table, 400, 0, how)
        assert unit.startswith(how)
        groups = [weights[:, codes == code] for code in np.unique(codes)]
        assert all((group == group[:, :1]).all() for group in groups)
        drawn = np.stack([group[:, 0] for group in groups], 1)
        assert (drawn.sum(1) == len(groups)).all()
        assert drawn.mean(0) == pytest.approx(1, abs=0.2)
    assert resample_weights(table, 1, 0)[1] == "clusters (subset)"
    assert resample_weights(law_table(law_grid(0.01)), 1, 0)[1] == "cells"


def test_resampled_responses_have_the_fits_mean_and_the_residuals_variance():
    rng = np.random.default_rng(1)
    table = clustered(8)
    fitted = np.linspace(0.2, 0.4, 24)
    y = fitted + 0.01 * rng.normal(size=24)
    variance = (y - fitted).var() * 24 / 20
    for how in ("residual", "wild"):
        draws = resample_responses(table, y, fitted, 4, 4000, 0, how)
        assert draws.mean(0) == pytest.approx(fitted, abs=1e-3)
        assert (draws - fitted).var() == pytest.approx(variance, rel=0.05)
        assert (resample_weights(table, 3, 0, how)[0] == 1).all()
    for how in ("clusters", "cells"):
        assert (resample_responses(table, y, fitted, 4, 3, 0, how) == y).all()


def test_the_wild_bootstrap_turns_whole_clusters_and_has_six_values_when_they_are_few():
    fitted, y = np.zeros(24), np.tile([1.0, -1.0], 12)
    for groups, values in ((5, 6), (10, 2)):
        table = clustered(groups)
        signs = resample_responses(table, y, fitted, 0, 500, 0, "wild") / y
        codes = table.cluster_codes
        for code in range(groups):
            inside = signs[:, codes == code]
            assert inside == pytest.approx(np.broadcast_to(inside[:, :1], inside.shape))
        assert len(np.unique(signs.round(9))) == values
        assert (signs**2).mean() == pytest.approx(1, abs=0.1)


def test_resampling_is_deterministic_and_an_unknown_way_is_refused():
    table = clustered(9)
    a, b = (resample_weights(table, 50, 3)[0] for _ in range(2))
    assert (a == b).all()
    assert (a != resample_weights(table, 50, 4)[0]).any()
    with pytest.raises(FitError, match="resample: one of clusters, cells, residual, wild"):
        resample_weights(table, 5, 0, "rows")
    with pytest.raises(FitError, match="names no column of clusters"):
        resample_weights(law_table(law_grid(0.01)), 5, 0, "clusters")


def test_few_clusters_take_students_t_and_say_so():
    draws = np.random.default_rng(0).normal(1.0, 0.1, size=(20000, 2))
    wide, how = bootstrap_intervals(np.ones(2), draws, groups=4)
    assert how == "Student's t with 3 degrees of freedom: 4 clusters are fewer than 8"
    half = stats.t.ppf(0.975, 3) * 0.1 * np.sqrt(4 / 3)
    assert wide == pytest.approx(np.tile([1 - half, 1 + half], (2, 1)), abs=0.01)
    expanded, how = bootstrap_intervals(np.ones(2), draws, groups=FEW_CLUSTERS)
    assert how == "quantiles of the bootstrap, widened for 8 clusters"
    half = 0.1 * stats.t.ppf(0.975, 7) * np.sqrt(8 / 7)
    assert expanded == pytest.approx(np.tile([1 - half, 1 + half], (2, 1)), abs=0.02)
    usual, how = bootstrap_intervals(np.ones(2), draws)
    assert how == "quantiles of the bootstrap"
    assert usual == pytest.approx(np.tile([0.804, 1.196], (2, 1)), abs=0.01)
    assert np.isnan(bootstrap_intervals(np.ones(2), draws[:1])[0]).all()
    assert cluster_count(clustered(4)) == 4
    assert cluster_count(clustered(4), "residual") is None
    assert cluster_count(law_table(law_grid(0.01))) is None


def test_cluster_robust_errors_equal_the_formula_written_out():
    rng = np.random.default_rng(0)
    design, residuals, clusters = rng.normal(size=(30, 3)), rng.normal(size=30), np.arange(30) % 6
    inverse = np.linalg.inv(design.T @ design)
    meat = np.zeros((3, 3))
    for g in range(6):
        score = design[clusters == g].T @ residuals[clusters == g]
        meat += np.outer(score, score)
    variance = 6 / 5 * 29 / 27 * inverse @ meat @ inverse
    found = standard_errors(design, residuals, clusters)
    assert found["cr1"] == pytest.approx(np.sqrt(np.diag(variance)))
    assert found["ols"] == pytest.approx(np.sqrt(np.diag(inverse) * (residuals @ residuals) / 27))
    assert standard_errors(design, residuals, None)["cr1"] is None


def test_the_cluster_effect_finds_a_known_intraclass_correlation():
    rng = np.random.default_rng(5)
    found = []
    for _ in range(60):
        frame = law_grid(0.0, repeats=6)
        subset = np.tile(np.arange(6), 12)
        y = frame.top1 + 0.01 * rng.normal(size=6)[subset] + 0.01 * rng.normal(size=72)
        table = law_table(frame.assign(top1=y, subset=subset), clusters="subset")
        effect = cluster_effect(table)
        assert effect["df"] == [5, 55]
        found.append(effect["variance_cluster"])
    # five standard errors of the mean of 60 estimates, each of 5 degrees of freedom
    assert np.mean(found) == pytest.approx(1e-4, rel=5 * np.sqrt(2 / 5 / 60))
    assert cluster_effect(law_table(law_grid(0.01, repeats=2))) is None
    assert cluster_effect(clustered(12, repeats=1)) is None


def cover(groups: int, how: str, repeats: int = 100) -> float:
    """Return how often slopes' intervals hold the truth where runs of one subset move together."""
    truth, hits = np.array(TRUTH["log_additive"])[1:], 0
    for seed in range(repeats):
        rng = np.random.default_rng(seed)
        frame = law_grid(0.0, law="log_additive", repeats=2).sample(24, random_state=seed)
        subset = np.arange(24) % groups
        y = frame.top1 + 0.006 * rng.normal(size=groups)[subset] + 0.006 * rng.normal(size=24)
        table = law_table(frame.assign(top1=y, subset=subset), clusters="subset")
        fit = fit_law(table, "log_additive", bootstrap=200, seed=seed, resample=how)
        low, high = fit.intervals[1:].T.astype(float)
        hits += int(((low <= truth) & (truth <= high)).sum())
    return hits / (3 * repeats)


@pytest.mark.parametrize(("groups", "how"), [(6, "clusters"), (6, "wild"), (12, "clusters")])
def test_clustered_truths_lie_inside_the_intervals_as_often_as_they_say(groups, how):
    # 95 % nominal; five binomial errors of 100 tables below it is 0.84
    assert cover(groups, how) >= 0.84


def test_laws_that_differ_have_a_spread():
    assert law_spread([0.47, 0.97]) == {
        "low": 0.47, "high": 0.97, "sd": pytest.approx(0.3536, abs=1e-4), "laws": 2
    }  # fmt: skip
    assert law_spread([0.5])["sd"] == 0


# Reference values of the public grid of arXiv 2308.03712 (78 runs), computed independently.
def test_the_public_grids_standard_errors_are_the_reference_values(grids):
    table = orhan(grids, clusters="subset")
    fit = fit_law(table, "log_additive", bootstrap=100, centre=ORHAN_CENTRE)
    found = standard_errors(fit.design, table.y - fit.fitted(), table.cluster_codes)
    assert 100 * found["ols"] == pytest.approx([0.23962, 0.07128, 0.19780, 0.73652], abs=1e-5)
    assert 100 * found["cr1"] == pytest.approx([0.33316, 0.12462, 0.23606, 0.62807], abs=1e-5)


def test_the_public_grids_pure_error_and_subset_effect_are_the_reference_values(grids):
    table = orhan(grids, clusters="subset")
    pure = pure_error(table)
    assert 1e4 * pure["sse"] == pytest.approx(79.2257, abs=1e-4)
    assert (pure["df"], pure["cells"]) == (48, 30)
    assert 100 * pure["sd"] == pytest.approx(1.285, abs=1e-3)
    effect = cluster_effect(table)
    assert effect["f"] == pytest.approx(8.69, abs=5e-3)
    assert effect["df"] == [8, 40]
    assert effect["icc"] == pytest.approx(0.562, abs=5e-4)
    assert 1e4 * effect["variance_cluster"] == pytest.approx(0.927, abs=5e-4)
    assert 1e4 * effect["variance_residual"] == pytest.approx(0.723, abs=5e-4)


def test_the_public_grids_lack_of_fit_is_the_reference_value(grids):
    table = orhan(grids)
    fit = fit_law(table, "log_product", bootstrap=100, centre=ORHAN_CENTRE)
    found = lack_of_fit(table, fit.sse, fit.k)
    assert found["f"] == pytest.approx(4.428, rel=1e-3)
    assert found["df"] == [26, 48]
    named = orhan(grids, cells=("arch", "res", "data_frac"))
    assert lack_of_fit(named, fit.sse, fit.k) == found
