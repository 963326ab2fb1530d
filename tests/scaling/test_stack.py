"""The stack weighs laws by their own held-out errors, and its interval adds three parts."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mae_lib.errors import FitError
from mae_lib.scaling.frontier import (
    beyond,
    direction,
    nearness,
    nested_splits,
    position,
    top_rows,
)
from mae_lib.scaling.local import local_law
from mae_lib.scaling.stack import (
    SCHEME,
    Member,
    Scheme,
    combine,
    log_loss,
    members_at,
    pure_variance,
    quantile_at,
    stack_at,
)
from mae_lib.scaling.table import check_table

ONE = np.array([1.0])


def losses(noise: float = 0.0, seed: int = 0, repeats: int = 1):
    """Runs of a power law with a floor of 1.7 in both factors."""
    rows = [(n, d) for n in np.geomspace(1e6, 1e9, 6) for d in np.geomspace(1e8, 1e11, 6)]
    frame = pd.DataFrame(rows * repeats, columns=["params", "tokens"])
    loss = 1.7 + 60 * frame.params**-0.3 + 800 * frame.tokens**-0.35
    loss = loss * np.exp(noise * np.random.default_rng(seed).normal(size=len(loss)))
    return check_table(
        frame.assign(loss=loss, seed=range(len(frame))), response="loss",
        factors=["params", "tokens"],
    )  # fmt: skip


def member(value: float, spread: float, error: float, law: str = "a") -> Member:
    return Member(law, 0.0, np.array([value]), np.array([spread]), error)


def ask(table, point, **options):
    x = np.array([point])
    return stack_at(table, x, position(table, direction(table, x[0])), **options)


def test_weights_are_the_inverse_power_of_the_held_out_errors():
    found = combine([member(1.0, 0, 0.1), member(2.0, 0, 0.2)], Scheme(power=2.0))
    np.testing.assert_allclose(found.weights[:, 0], [0.8, 0.2])
    np.testing.assert_allclose(found.centre, 1.2)


def test_the_three_parts_are_within_between_and_held_out():
    members = [member(1.0, 0.04, 0.1), member(2.0, 0.09, 0.1)]
    found = combine(members, Scheme(within=1.0))
    np.testing.assert_allclose(found.within, 0.5 * 0.04 + 0.5 * 0.09)
    np.testing.assert_allclose(found.between, 0.25)
    np.testing.assert_allclose(found.held_out, 0.01)
    np.testing.assert_allclose(found.deviation**2, found.within + found.between + found.held_out)
    np.testing.assert_allclose(combine(members, Scheme(within=0.5)).within, found.within / 2)


def test_a_law_without_a_possible_value_is_dropped_there_and_named():
    one = Member("a", 0.0, np.array([0.1, np.nan]), np.ones(2), 0.01)
    two = Member("b", 0.0, np.array([0.3, 0.2]), np.ones(2), 0.10)
    found = combine([one, two])
    assert found.dropped == ((), ("a",))
    np.testing.assert_allclose(found.weights[:, 1], [0, 1])
    np.testing.assert_allclose(found.centre[1], 0.2)
    np.testing.assert_allclose(found.between[1], 0)


def test_a_point_that_no_law_can_answer_has_no_value():
    found = combine([member(np.nan, 1.0, 0.1)])
    assert np.isnan(found.centre[0])


def test_nearness_is_one_at_the_frontier_and_falls_over_the_range():
    along, rows = np.array([0.0, 1.0, 2.0, 9.0]), np.array([True, True, True, False])
    np.testing.assert_allclose(nearness(along, rows, 2.0), [np.exp(-2), np.exp(-1), 1, 0])
    np.testing.assert_allclose(nearness(along, rows, 0.0), [1, 1, 1, 0])


def test_nested_splits_leave_out_the_top_and_keep_all_factors_varying():
    table = losses()
    for split in nested_splits(table, table.logs[:, 0]):
        assert table.logs[split.test, 0].min() > table.logs[split.train, 0].max()
        assert (np.ptp(table.logs[split.train], axis=0) > 0).all()
        assert not (split.test & split.train).any()


def test_where_the_direction_allows_no_split_the_factors_own_are_taken():
    table = losses()
    few = replace(table, frame=table.frame[table.frame.params < 5e6].reset_index(drop=True))
    along = few.logs[:, 0]
    splits = nested_splits(few, along)
    assert splits
    assert all(len(set(along[split.train])) == 2 for split in splits)


def test_ties_with_the_cut_stay_in_and_one_level_at_least_goes_out():
    along = np.array([0, 0, 0, 1, 1, 1], float)
    assert top_rows(along, np.ones(6, bool), 0.4).tolist() == [False] * 3 + [True] * 3
    assert top_rows(along, np.ones(6, bool), 0.9).tolist() == [False] * 3 + [True] * 3


def test_direction_counts_only_factors_in_which_the_point_is_outside():
    table = losses()
    np.testing.assert_allclose(direction(table, np.array([1e12, 1e9])), [1, 0])
    np.testing.assert_allclose(direction(table, np.array([1e12, 1e14])), [0.5**0.5] * 2)
    np.testing.assert_allclose(direction(table, np.array([1e3, 1e9])), [-1, 0])
    assert np.linalg.norm(direction(table, np.array([1e8, 1e9]))) == pytest.approx(1)
    middle = np.exp(table.logs.mean(0))
    assert np.linalg.norm(direction(table, middle)) == pytest.approx(1)
    np.testing.assert_allclose(beyond(table, np.array([1e12, 1e9])), [[1, 0]])


def test_noise_free_runs_of_a_law_in_the_stack_are_extrapolated_exactly():
    found = ask(losses(), (1e10, 1e12))
    truth = np.log(1.7 + 60 * 1e10**-0.3 + 800 * 1e12**-0.35)
    assert found.centre[0] == pytest.approx(truth, abs=1e-4)
    assert found.by_law(0)["power_sum"] > 0.99


def test_weighted_fits_of_one_batch_are_those_of_each_alone():
    table = losses(0.01)
    law = local_law(table, "power_sum")
    weights = np.random.default_rng(0).uniform(0.1, 1, (3, len(table.frame)))
    together = law.fit(weights).params
    for one, params in zip(weights, together, strict=True):
        alone = law.fit(one[None]).params[0]
        np.testing.assert_allclose(
            law.log_value(alone, law.z), law.log_value(params, law.z), atol=1e-6
        )


@pytest.mark.parametrize("name", ["power_product", "power_sum", "m4", "log_additive"])
def test_the_leverage_of_a_member_is_that_of_its_weighted_design(name):
    table = losses(0.01)
    law = local_law(table, name)
    weights = nearness(table.logs[:, 0], np.ones(36, bool), 2.0)
    params = law.fit(weights[None]).params[0]
    x = np.array([[3e9, 1e11]])
    near, far = (law.answer(params, weights, x, most)[1] for most in (0.0, np.inf))
    miss = law.log_loss - law.log_value(params, law.z)
    variance = (weights * miss**2).sum() / (weights.sum() * (1 - law.k / 36))
    assert near[0] == pytest.approx(variance)
    assert far[0] > near[0]


def test_accuracy_and_its_error_are_one_table_to_the_stack():
    rng = np.random.default_rng(1)
    rows = [(d, n) for d in np.geomspace(1, 1e4, 5) for n in np.geomspace(1e6, 1e8, 4)]
    frame = pd.DataFrame(rows, columns=["data", "params"])
    error = 0.2 + 0.5 * frame.data**-0.2 + rng.normal(0, 0.002, len(frame))
    accuracy = check_table(frame.assign(y=1 - error), response="y", factors=["data", "params"],
                           kind="accuracy")  # fmt: skip
    wrong = check_table(frame.assign(y=error), response="y", factors=["data", "params"],
                        kind="error")  # fmt: skip
    one, two = (ask(table, (1e5, 1e8)) for table in (accuracy, wrong))
    # 1 - (1 - e) differs from e in its last bit, and the search ends where its tolerance says.
    np.testing.assert_allclose(one.centre, two.centre, rtol=1e-4)
    np.testing.assert_allclose(log_loss(accuracy), log_loss(wrong))


def test_a_member_is_not_better_than_the_scatter_of_repeated_cells():
    table = losses(0.05, repeats=2)
    floor = pure_variance(table)
    assert floor == pytest.approx(0.05**2, rel=0.6)
    members, _ = members_at(table, np.array([[2e9, 1e11]]), table.logs[:, 0])
    assert min(m.error for m in members) >= np.sqrt(floor) * (1 - 1e-12)
    assert pure_variance(losses()) == 0


def test_few_clusters_widen_the_interval_and_say_so():
    table = losses(0.01)
    frame = table.frame.assign(group=np.arange(36) % 4)
    wide, note = quantile_at(replace(table, frame=frame, clusters="group"), 0.95)
    assert wide == pytest.approx(3.182, abs=1e-3)
    assert "4 clusters" in note
    normal, silence = quantile_at(table, 0.95)
    assert normal < 2.1
    assert silence is None


def test_too_few_runs_to_hold_any_out_are_refused_in_one_line():
    table = losses()
    few = replace(table, frame=table.frame.iloc[[0, 7, 14]].reset_index(drop=True))
    with pytest.raises(FitError, match="no law can be refitted") as caught:
        ask(few, (1e10, 1e12))
    assert "\n" not in str(caught.value)


def test_the_stack_is_deterministic():
    table = losses(0.02)
    one, two = (ask(table, (1e10, 1e12), scheme=SCHEME) for _ in range(2))
    np.testing.assert_array_equal(one.values, two.values)
    np.testing.assert_array_equal(one.weights, two.weights)
