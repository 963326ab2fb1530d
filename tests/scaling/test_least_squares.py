"""Batched fits equal scipy's one by one, hold bounds, and count what they cannot fit."""

import numpy as np
import pytest
from scipy import optimize

from mae_lib.scaling.laws import LAWS, Design
from mae_lib.scaling.least_squares import collapse, refit, solve_linear
from mae_lib.scaling.levenberg import minimise, solve_positive
from mae_lib.scaling.objectives import Objective
from mae_lib.scaling.variable_projection import amplitudes, project


def problem(name: str, m: int, params, count: int = 40, seed: int = 0):
    rng = np.random.default_rng(seed)
    z = rng.uniform(-2, 2, size=(36, m))
    law = LAWS[name]
    y = law.evaluate(np.array(params), z)[0] + 0.005 * rng.normal(size=36)
    weights = rng.multinomial(36, np.full(36, 1 / 36), size=count).astype(float)
    return law, z, y, weights


CASES = [
    ("log_product", 3, [0.3, 0.05, 0.1, 0.02]),
    ("logit_additive", 3, [-0.4, 0.2, 0.1, 0.3]),
    ("logit_ceiling", 2, [0.3, 0.8, 0.6, 0.7]),
    ("power_product", 2, [0.3, 0.4, 0.3, 0.5]),
    ("power_sum", 2, [0.2, 0.3, 0.2, 0.4, 0.6]),
    ("overtrain", 2, [0.3, 0.3, 0.4, 0.2]),
]


@pytest.mark.parametrize(("name", "m", "params"), CASES)
def test_refits_equal_scipy_on_every_weight_vector(name, m, params):
    law, z, y, weights = problem(name, m, params)
    design = Design(tuple("abc"[:m]), z, y, "error")
    bounds = law.bounds(design) if law.limits else None
    found, settled = refit(law, z, y, weights, np.array(params), bounds=bounds)
    assert settled.all()
    limits = bounds or (-np.inf, np.inf)
    for w, got in zip(weights, found, strict=True):
        root = np.sqrt(w)
        one = optimize.least_squares(
            lambda p, root=root: root * (law.evaluate(p, z)[0] - y),
            np.clip(params, *limits), bounds=limits, xtol=1e-15, ftol=1e-15, gtol=1e-15,
        )  # fmt: skip
        sse = float((w * (law.evaluate(got, z)[0] - y) ** 2).sum())
        assert sse <= 2 * one.cost * (1 + 1e-7)


def test_responses_may_differ_by_refit():
    law, z, y, _ = problem("logit_additive", 2, [-0.4, 0.2, 0.1])
    many = y + 0.01 * np.random.default_rng(3).normal(size=(25, 36))
    together, settled = refit(law, z, many, np.ones((1, 36)), np.array([-0.4, 0.2, 0.1]))
    alone = [refit(law, z, row, np.ones((1, 36)), np.array([-0.4, 0.2, 0.1]))[0][0] for row in many]
    assert settled.all()
    np.testing.assert_allclose(together, alone, rtol=1e-9)


def test_projection_and_full_search_find_the_same_minimum():
    law, z, y, weights = problem("power_sum", 2, [0.2, 0.3, 0.2, 0.4, 0.6])
    bounds = law.bounds(Design(("a", "b"), z, y, "loss"))
    start = np.tile([0.2, 0.3, 0.2, 0.4, 0.6], (40, 1))
    y = np.broadcast_to(y, weights.shape)
    one = project(law, z, y, weights, start[:, 3:], bounds=bounds)
    two = minimise(law.evaluate, z, y, weights, start, objective=Objective(), bounds=bounds)
    np.testing.assert_allclose(one.loss, two.loss, rtol=1e-9)
    np.testing.assert_allclose(one.params, two.params, rtol=1e-4, atol=1e-6)


def test_amplitudes_equal_scipys_non_negative_least_squares():
    rng = np.random.default_rng(5)
    columns, y = rng.normal(size=(60, 20, 4)), rng.normal(size=(60, 20))
    gram = np.swapaxes(columns, 1, 2) @ columns
    right = np.einsum("bnp,bn->bp", columns, y)
    found, active = amplitudes(gram, right, np.ones((60, 4), bool), signed=True)
    for a, b, c in zip(columns, y, found, strict=True):
        np.testing.assert_allclose(c, optimize.nnls(a, b)[0], atol=1e-10)
    np.testing.assert_array_equal(active, found > 0)


def test_cells_may_stand_for_their_rows():
    rng = np.random.default_rng(6)
    z = np.repeat(rng.normal(size=(6, 2)), 5, axis=0)
    y, weights = rng.normal(size=(3, 30)), rng.integers(0, 4, size=(3, 30)).astype(float)
    cells, means, totals, rest = collapse(z, y, weights)
    assert cells.shape == (6, 2)
    design, small = (np.column_stack([np.ones(len(x)), x]) for x in (z, cells))
    rows, few = solve_linear(design, y, weights), solve_linear(small, means, totals)
    np.testing.assert_allclose(few.params, rows.params, rtol=1e-10)
    np.testing.assert_allclose(few.loss + rest, rows.loss, rtol=1e-10)


def test_a_weighted_design_that_loses_rank_is_counted_as_failed():
    law, z, y, weights = problem("log_product", 2, [0.3, 0.05, 0.1])
    weights[3] = 0
    weights[3, :2] = 18
    found, settled = refit(law, z, y, weights, np.array([0.3, 0.05, 0.1]))
    assert not settled[3]
    assert settled.sum() == len(settled) - 1
    assert found.shape == (40, 3)


def test_elimination_over_the_batch_equals_lapack():
    rng = np.random.default_rng(7)
    root = rng.normal(size=(300, 6, 9))
    matrix, right = root @ np.swapaxes(root, 1, 2), rng.normal(size=(300, 6))
    exact = np.linalg.solve(matrix, right[..., None])[..., 0]
    np.testing.assert_allclose(solve_positive(matrix, right), exact, rtol=1e-8)


def test_two_thousand_refits_are_the_same_twice():
    law, z, y, weights = problem("power_product", 2, [0.3, 0.4, 0.3, 0.5], count=2000)
    bounds = law.bounds(Design(("a", "b"), z, y, "error"))
    first, second = (refit(law, z, y, weights, np.array([0.3, 0.4, 0.3, 0.5]), bounds=bounds)[0]
                     for _ in range(2))  # fmt: skip
    np.testing.assert_array_equal(first, second)
