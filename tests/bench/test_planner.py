"""The planner's benchmark: worlds, strategies at equal cost, answers that recover, verdicts."""

import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from mae_lib.bench import planner
from mae_lib.bench.planner_answers import batched, engine, fit_designs
from mae_lib.bench.planner_strategies import STRATEGIES
from mae_lib.bench.planner_world import NOISE, TARGET, TRUTHS, World, build_world, simulate
from mae_lib.cli import bench as command
from mae_lib.errors import FitError
from mae_lib.scaling.laws import law_named

LAWS = [law_named(name) for name in planner.FITTED]


@pytest.fixture(scope="module")
def world() -> World:
    return build_world()


@pytest.fixture(scope="module")
def started(world):
    y, new = simulate(world, "logit_additive", 3, 0)
    design = np.zeros((3, len(world.x)))
    design[:, : world.measured] = 1
    return y, new, design, [fit_designs(law, world, y, design, None) for law in LAWS]


@pytest.mark.parametrize("truth", TRUTHS)
def test_truths_are_accuracies_everywhere_and_rise_towards_the_target(world, truth):
    values = TRUTHS[truth](world.logs)
    assert 0 < values.min() < values.max() < 1
    assert values.max() < TRUTHS[truth](np.log([TARGET]))[0] < 0.95


def test_noise_has_its_standard_deviation_and_is_shared_by_strategies(world):
    y, new = simulate(world, "log_product", 400, 0)
    assert np.std(y - TRUTHS["log_product"](world.logs)) == pytest.approx(NOISE, rel=0.02)
    again, _ = simulate(world, "log_product", 3, 0)
    np.testing.assert_array_equal(again, y[:3])
    other, _ = simulate(world, "log_product", 3, 1)
    assert not np.array_equal(other, again)
    assert new.shape == (400,)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_keeps_the_budget_and_takes_no_cell_twice(world, started, name):
    y, _, _, starts = started
    views = planner._views(world, starts, y, 0)
    rows = STRATEGIES[name](world, views, 0, 0)
    assert len(set(rows)) == len(rows) > 0
    spent = world.costs[rows].sum()
    assert spent <= world.budget
    # Equal cost: nobody leaves more than a tenth unspent.
    assert spent >= 0.9 * world.budget


def test_one_factor_changes_one_factor_of_the_largest_measured_cell(world):
    rows = STRATEGIES["one_factor"](world, [], 0, 0)
    changed = (world.candidates[rows] != world.x[: world.measured].max(0)).sum(1)
    assert changed.max() == 1


def test_largest_first_takes_the_dearest_that_fits(world):
    rows = STRATEGIES["largest_first"](world, [], 0, 0)
    assert world.costs[rows[0]] == world.costs[world.costs <= world.budget].max()


def test_random_cells_differ_between_repeats(world):
    first, second = (STRATEGIES["random"](world, [], 0, repeat) for repeat in (0, 1))
    assert first != second
    assert first == STRATEGIES["random"](world, [], 0, 0)


def test_a_design_without_noise_gives_its_truth_back(world):
    y = TRUTHS["logit_additive"](world.logs)[None]
    fit = fit_designs(law_named("logit_additive"), world, y, np.ones_like(y), None)
    exact = TRUTHS["logit_additive"](np.log([TARGET]))[0]
    assert fit.said[0, -1] == pytest.approx(exact, abs=1e-8)
    answer = batched(world, [law_named("logit_additive")], y, np.ones_like(y), [fit])
    assert answer.value[0] == pytest.approx(exact, abs=1e-8)


def test_an_error_law_answers_in_accuracy_with_a_gradient_of_accuracy(world, started):
    y, _, design, _ = started
    law = law_named("power_product")
    fit = fit_designs(law, world, y, design, None)
    moved = fit.params.copy()
    moved[:, 0] += 1e-6
    z = np.log(np.vstack([world.x, world.target])) - world.logs[: world.measured].mean(0)
    change = (1 - law.evaluate(moved, z)[0] - fit.said) / 1e-6
    np.testing.assert_allclose(change, fit.gradient[..., 0], atol=1e-6)


def test_both_answers_lie_in_their_intervals_near_the_truth(world, started):
    y, _, design, starts = started
    everything = np.ones_like(design)
    exact = TRUTHS["logit_additive"](np.log([TARGET]))[0]
    for answer in (batched, engine):
        found = answer(world, LAWS, y, everything, starts)
        assert (found.low < found.value).all()
        assert (found.value < found.high).all()
        assert np.abs(found.value - exact).max() < 0.1


def test_a_verdict_needs_the_interval_to_exclude_one():
    rng = np.random.default_rng(0)
    error = rng.normal(size=(3, 200)) * np.array([[1.0], [3.0], [1.0]])
    names = ["planner", "one_factor", "random"]
    verdicts = [planner._against(error, i, names, 0).get("verdict") for i in range(3)]
    assert verdicts == ["not settled", "loses", None]
    assert planner._against(error[[0, 1]], 0, ["planner", "random"], 0)["verdict"] == "wins"


def test_the_benchmark_prints_every_truth_and_strategy_and_the_same_twice():
    options = {"truths": ("logit_additive", "power_sum"), "repeats": 2}
    first, second = (planner.bench_planner(**options) for _ in range(2))
    assert first == second
    pairs = {(row["truth"], row["strategy"]) for row in first["rows"]}
    assert len(pairs) == 2 * len(STRATEGIES) == len(first["rows"])
    assert {row["truth"]: row["among_the_laws"] for row in first["rows"]} == {
        "logit_additive": True,
        "power_sum": False,
    }
    for row in first["rows"]:
        assert row["rmse_interval"][0] <= row["rmse"] * 1.0001
        assert 0 <= row["coverage"] <= 1
    assert first["strategies"].keys() == STRATEGIES.keys() - {"random"}
    assert first["commit"]


def test_the_command_prints_json_and_a_table():
    app = typer.Typer()
    command.register(app)
    common = ["bench", "planner", "--repeats", "2", "--truth", "log_product"]
    shown = CliRunner().invoke(app, common)
    assert shown.exit_code == 0, shown.output
    assert "largest_first" in shown.output
    found = json.loads(CliRunner().invoke(app, [*common, "--json"]).stdout)
    assert len(found["rows"]) == len(STRATEGIES)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"truths": ("hope",)}, "truth: one of log_product.* got 'hope'"),
        ({"strategies": ("hope",)}, "strategy: one of planner.* got 'hope'"),
        ({"repeats": 1}, "repeats: must be 2 or more, got 1"),
        ({"answer": "hope"}, "answer: one of batched, engine, got 'hope'"),
        ({"budget": 1.0}, r"budget: must reach the cheapest cell \(101\), got 1"),
    ],
)
def test_bad_input_is_one_line(options, says):
    with pytest.raises(FitError, match=says):
        planner.bench_planner(**options)
