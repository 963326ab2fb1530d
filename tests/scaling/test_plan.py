"""The plan's algebra equals refitting, its budget holds, and bad input is one line."""

import json

import numpy as np
import pandas as pd
import pytest
import typer
from scipy import stats
from typer.testing import CliRunner

from mae_lib.cli import bench, plan_law
from mae_lib.errors import FitError
from mae_lib.scaling.fit import fit_law, fit_laws
from mae_lib.scaling.knowledge import (
    NEW_CLUSTER,
    Candidates,
    Knowledge,
    LawView,
    estimable,
    spread_at_target,
    with_curvature,
)
from mae_lib.scaling.next_cells import choose_cells
from mae_lib.scaling.plan import law_view, plan_runs, second_order
from mae_lib.scaling.refuters import Discrepancy
from mae_lib.scaling.table import check_table
from mae_lib.study.paths import root

FACTORS = ("images", "params", "resolution")
TARGET = {"images": 64_000.0, "params": 5e6, "resolution": 64.0}
LAWS = ("log_product", "log_additive", "logit_additive")


def grid(images=(1e3, 4e3, 16e3), params=(1e5, 4e5, 1.6e6), resolution=(16.0, 32.0)):
    rows = [(i, p, r) for i in images for p in params for r in resolution]
    return pd.DataFrame(rows, columns=list(FACTORS))


def table(noise=0.01, clusters=None, frame=None):
    frame = grid() if frame is None else frame
    z = np.log(frame[list(FACTORS)].to_numpy()) - np.log((4e3, 4e5, 22.6))
    rng = np.random.default_rng(0)
    frame["top1"] = 1 / (1 + np.exp(0.9 - z @ (0.25, 0.2, 0.5))) + noise * rng.normal(size=len(z))
    if clusters:
        frame["subset"] = [f"s{i % clusters}" for i in range(len(frame))]
        shift = dict(zip(frame.subset.unique(), 0.03 * rng.normal(size=clusters), strict=True))
        frame["top1"] += frame.subset.map(shift)
    named = "subset" if clusters else None
    return check_table(frame, response="top1", factors=FACTORS, clusters=named)


def candidates():
    frame = grid((1e3, 16e3, 64e3), (1e5, 1.6e6, 6.4e6), (16.0, 32.0, 64.0))
    return frame.assign(cost=10 + frame.images * frame.params * frame.resolution**2 / 4e10)


def fits(names=LAWS, **options):
    return fit_laws(table(**options), names, bootstrap=0)


def views(fitted, frame):
    x, target = frame[list(FACTORS)].to_numpy(), np.array([list(TARGET.values())])
    return [law_view(fit, x, target) for fit in fitted]


def options():
    """The candidates as the algebra takes them: every run and cell a cluster of its own."""
    runs, cells = (np.log(f[list(FACTORS)].to_numpy()) for f in (grid(), candidates()))
    target = np.log([list(TARGET.values())])
    box = np.vstack([runs, target])
    middle, half = (box.max(0) + box.min(0)) / 2, np.ptp(box, axis=0) / 2
    rows, points, aim = (second_order((part - middle) / half) for part in (runs, cells, target))
    return Candidates(
        costs=candidates().cost.to_numpy(),
        repeats=1,
        clusters=np.full(27, NEW_CLUSTER),
        row_clusters=np.arange(18),
        terms=(rows, points, aim[0]),
        inside=np.ones(27, bool),
    )


def test_the_gain_of_a_run_is_the_fall_of_the_variance_when_it_is_added():
    view = views(fits(), candidates())[0]
    known = Knowledge(view, np.full(27, NEW_CLUSTER), np.arange(18))
    for row in (0, 13, 26):
        more = np.vstack([view.design, view.candidates[row]])
        after = view.target @ np.linalg.inv(more.T @ more) @ view.target
        assert known.h - known.gains()[row] == pytest.approx(after, rel=1e-6)


def test_one_run_at_672_px_gains_what_was_computed_by_hand_on_the_public_grid():
    # Facts measured with a plain inverse: h = 0.2408 at 20,000 h, 2.5B, 952 px.
    frame = pd.read_csv(root() / "results/grids/orhan2023.csv")
    factors = ("hours", "n_params", "res")
    fit = fit_law(
        check_table(frame, response="acc1_max", factors=factors), "log_additive", bootstrap=0
    )
    cells = np.array([(5000, 21_619_584, 672), (5000, 630_764_800, 672), (0.5, 21_619_584, 112)])
    view = law_view(fit, cells.astype(float), np.array([[20_000, 2.5e9, 952.0]]))
    known = Knowledge(view, np.full(3, NEW_CLUSTER), np.arange(len(frame)))
    assert known.h == pytest.approx(0.2408, abs=5e-5)
    np.testing.assert_allclose(known.gains(), (0.0262, 0.0289, 0.0198), atol=5e-5)


def test_runs_of_a_cluster_count_as_generalised_least_squares_says():
    frame = candidates().assign(subset=["s0", "s1", "new"] * 9)
    fit = fit_law(table(clusters=3), "log_additive", bootstrap=0)
    view = views([fit], frame)[0]
    r = view.correlation
    assert 0.3 < r < 0.95
    rows, cells = np.arange(18) % 3, np.array([0, 1, 3] * 9)
    known = Knowledge(view, cells, rows)
    for row in (5, 8, 4):
        known.take(row)
    design = np.vstack([view.design, view.candidates[[5, 8, 4]]])
    codes = np.concatenate([rows, cells[[5, 8, 4]]])
    covariance = np.where(codes[:, None] == codes, r, 0) + (1 - r) * np.eye(21)
    exact = np.linalg.inv(design.T @ np.linalg.inv(covariance) @ design)
    assert known.h == pytest.approx(view.target @ exact @ view.target, rel=1e-6)


def test_a_second_run_in_a_cluster_that_shifts_is_worth_another_than_one_in_a_new_cluster():
    fit = fit_law(table(clusters=3), "log_additive", bootstrap=0)
    view = views([fit], candidates())[0]
    same = Knowledge(view, np.zeros(27, int), np.arange(18) % 3).gains()
    new = Knowledge(view, np.full(27, NEW_CLUSTER), np.arange(18) % 3).gains()
    assert not np.allclose(same, new, rtol=0.05)


def test_a_cell_that_settles_an_alias_gains_nearly_all_and_others_nothing_of_it():
    rng = np.random.default_rng(1)
    design = np.column_stack([np.ones(8), rng.normal(size=8), np.zeros(8)])
    cells = np.array([[1.0, 0.5, 0.0], [1.0, 0.5, 1.0]])
    view = LawView("law", design, np.array([1.0, 1.0, 1.0]), cells, np.zeros(2), 0.0, 1.0)
    known = Knowledge(view, np.full(2, NEW_CLUSTER), np.arange(8))
    share = known.gains() / known.h
    assert share[1] > 0.999
    assert share[0] < 1e-6
    assert not estimable(view)
    assert estimable(view, [1])
    known.take(1)
    more = np.vstack([design, cells[1]])
    exact = view.target @ np.linalg.inv(more.T @ more) @ view.target
    assert known.h == pytest.approx(exact, rel=1e-3)


def test_discrepancy_after_a_cell_is_what_a_refit_leaves():
    fitted = fits(("log_additive", "logit_additive"))
    known = [
        Knowledge(v, np.full(27, NEW_CLUSTER), np.arange(18)) for v in views(fitted, candidates())
    ]
    refuter = Discrepancy(known, options())
    said = known[1].view.predictions
    linear = known[0].view
    before = said - linear.predictions
    refuter.take(26, [k.take(26) for k in known])
    # log_additive is linear: refitted to its own fit with one run that obeys its rival.
    design = np.vstack([linear.design, linear.candidates[26]])
    target = np.append(np.zeros(18), before[26])
    shift = np.linalg.lstsq(design, target, rcond=None)[0]
    np.testing.assert_allclose(
        refuter.surprise[0][:, 1], before - linear.candidates @ shift, atol=1e-7
    )


def test_a_third_of_the_budget_refutes_to_the_nearest_cell_and_the_budget_holds():
    frame = candidates()
    for budget in (200.0, 1000.0, 3000.0):
        found = plan_runs(fits(), TARGET, frame, budget)
        assert found["spent"] <= budget
        assert found["spent"] == pytest.approx(sum(row["cost"] for row in found["chosen"]))
        refuting = [row["cost"] for row in found["chosen"] if row["role"] == "refute"]
        assert found["spent_on_refutation"] == pytest.approx(sum(refuting))
        assert sum(refuting) <= budget / 3 + max(refuting) / 2
        rows = [row["row"] for row in found["chosen"]]
        assert len(set(rows)) == len(rows)


def test_widths_shrink_under_every_law_and_equal_a_plain_inverse():
    frame, fitted = candidates(), fits()
    found = plan_runs(fitted, TARGET, frame, 2000.0)
    for width in found["expected_width"].values():
        assert 0 < width["after"] < width["before"]
    view = views(fitted, frame)[1]
    rows = [row["row"] - 2 for row in found["chosen"]]
    design = np.vstack([view.design, view.candidates[rows]])
    h = view.target @ np.linalg.inv(design.T @ design) @ view.target
    exact = 2 * stats.t.ppf(0.975, 14 + len(rows)) * np.sqrt(view.variance * h)
    assert found["expected_width"]["log_additive"]["after"] == pytest.approx(exact, rel=1e-6)


def test_without_caution_or_refutation_the_first_cell_is_the_best_gain_per_cost_or_by_gain():
    frame, fitted = candidates(), fits(("log_additive",))
    found = plan_runs(fitted, TARGET, frame, 60.0, share=0.0, caution=0.0)
    view = views(fitted, frame)[0]
    gains = Knowledge(view, np.full(27, NEW_CLUSTER), np.arange(18)).gains()
    affordable = np.where(frame.cost <= 60, 1.0, 0.0)
    firsts = {int(np.argmax(gains * affordable / per)) for per in (frame.cost.to_numpy(), 1.0)}
    assert found["chosen"][0]["row"] - 2 in firsts
    assert found["spent_on_refutation"] == 0


def test_caution_adds_at_most_the_spread_between_laws_and_values_cells_near_the_target():
    seen = views(fits(), candidates())
    spread = spread_at_target(seen)
    assert spread == pytest.approx(np.var([v.at_target for v in seen]))
    for view, wider in zip(seen, with_curvature(seen, options(), 1.0), strict=True):
        known, wary = (Knowledge(v, np.full(27, NEW_CLUSTER), np.arange(18)) for v in (view, wider))
        assert known.h < wary.h <= (known.h + spread / view.variance) * (1 + 1e-6)
        # Row 26 lies nearest to the target, row 0 furthest from it.
        before, after = (k.gains()[26] / k.gains()[0] for k in (known, wary))
        assert after > before


def test_laws_that_agree_at_the_target_leave_no_room_for_caution():
    view = views(fits(("log_additive",)), candidates())[0]
    assert with_curvature([view, view], options(), 1.0) == [view, view]


def test_lack_of_fit_cells_lie_inside_the_box_of_runs_and_target():
    frame = pd.concat([candidates(), candidates().assign(images=1.0)], ignore_index=True)
    found = plan_runs(fits(), TARGET, frame, 1000.0, refute="lack_of_fit")
    refuting = [row for row in found["chosen"] if row["role"] == "refute"]
    assert refuting
    assert min(row["images"] for row in refuting) >= 1000


def test_one_law_alone_is_tested_for_curvature():
    found = plan_runs(fits(("log_additive",)), TARGET, candidates(), 1000.0)
    assert found["refute_by"] == "lack_of_fit"
    assert found["spent_on_refutation"] > 0
    assert "one law" in found["notes"][0]


def test_a_law_that_leaves_0_to_1_at_the_target_is_left_out_by_name():
    far = TARGET | {"images": 1e12, "params": 1e13, "resolution": 4096.0}
    found = plan_runs(fits(), far, candidates(), 1000.0)
    assert found["laws"] == ["logit_additive"]
    assert "outside 0 to 1" in found["left_out"]["log_product"]


def test_repeats_let_one_cell_run_more_than_once():
    frame = candidates().iloc[[0, 13]]
    once = plan_runs(fits(), TARGET, frame, 3000.0)
    twice = plan_runs(fits(), TARGET, frame, 3000.0, repeats=2)
    assert len(once["chosen"]) == 2
    assert len(twice["chosen"]) == 4
    assert "left: no further candidate" in once["notes"][-1]


def test_the_plan_is_the_same_twice():
    first, second = (plan_runs(fits(), TARGET, candidates(), 2000.0) for _ in range(2))
    assert json.dumps(first) == json.dumps(second)


def test_the_better_of_two_fills_is_kept():
    # Ten small cells, together worth less than one large cell that the ratio rule would pass over.
    design, target = np.eye(2) * 2, np.array([0.0, 1.0])
    cells = np.vstack([np.tile([0.0, 0.2], (10, 1)), [0.0, 9.0]])
    view = LawView("law", design, target, cells, np.zeros(11), 0.0, 1.0)
    candidates = Candidates(
        costs=np.append(np.full(10, 0.01), 100.0),
        repeats=1,
        clusters=np.full(11, NEW_CLUSTER),
        row_clusters=np.arange(2),
        terms=(np.zeros((2, 1)), np.zeros((11, 1)), np.zeros(1)),
        inside=np.ones(11, bool),
    )
    plan = choose_cells([view], candidates, 100.0, share=0.0, refute="lack_of_fit")
    assert [cell.row for cell in plan.chosen] == [10]


def test_second_order_terms_are_all_squares_and_products():
    np.testing.assert_array_equal(second_order(np.array([[2.0, 3.0]])), [[4.0, 6.0, 9.0]])


def spoilt(column, value):
    frame = candidates()
    frame[column] = frame[column].astype(object)
    frame.loc[4, column] = value
    return frame


@pytest.mark.parametrize(
    ("frame", "at", "budget", "says"),
    [
        (candidates().drop(columns="cost"), TARGET, 100, "candidates: no column 'cost'"),
        (candidates().drop(columns="params"), TARGET, 100, "candidates: no column 'params'"),
        (
            spoilt("cost", 0),
            TARGET,
            100,
            "candidates: cost: row 6: must be a number above 0, got 0",
        ),
        (spoilt("images", -5), TARGET, 100, "candidates: images: row 6: must be .* got -5"),
        (spoilt("images", "many"), TARGET, 100, "candidates: images: row 6: .* got 'many'"),
        (candidates().iloc[:0], TARGET, 100, "candidates: at least 1 row"),
        (candidates(), TARGET, 1, r"budget: .* cheapest candidate \(row 2, cost 10.64\), got 1"),
        (candidates(), TARGET, float("nan"), "budget: .* got nan"),
        (candidates(), {"images": 1.0, "params": 2.0}, 100, "at: resolution: the target lacks"),
        (
            candidates(),
            TARGET | {"params": 0.0},
            100,
            "at: params: must be a number above 0, got 0",
        ),
        (candidates(), TARGET | {"depth": 3.0}, 100, "at: depth: no such factor"),
    ],
)
def test_bad_input_is_one_line_with_column_and_row(frame, at, budget, says):
    with pytest.raises(FitError, match=says) as error:
        plan_runs(fits(), at, frame, budget)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"share": 1.5}, "share: must be a number from 0 to 1, got 1.5"),
        ({"caution": -1}, "caution: must be a number from 0, got -1"),
        ({"refute": "hope"}, "refute: one of discrepancy, lack_of_fit, got 'hope'"),
        ({"repeats": 0}, "repeats: must be 1 or more, got 0"),
        ({"weights": {"log_product": -1.0}}, "weights: must be 0 or more"),
    ],
)
def test_bad_options_are_one_line(wrong, says):
    with pytest.raises(FitError, match=says):
        plan_runs(fits(), TARGET, candidates(), 100.0, **wrong)


def test_the_command_prints_json_and_a_table_and_names_a_bad_row(tmp_path):
    runs, cells = tmp_path / "runs.csv", tmp_path / "cells.csv"
    table().frame.to_csv(runs, index=False)
    candidates().to_csv(cells, index=False)
    point = ",".join(f"{name}={value}" for name, value in TARGET.items())
    common = [
        "plan", str(runs), "--response", "top1", "--factors", ",".join(FACTORS),
        "--at", point, "--candidates", str(cells), "--budget", "1000",
        "--laws", "log_product,log_additive,logit_additive",
    ]  # fmt: skip
    app = typer.Typer()
    for module in (plan_law, bench):
        module.register(app)
    shown = CliRunner().invoke(app, common)
    assert shown.exit_code == 0, shown.output
    assert "refute" in shown.output
    found = json.loads(CliRunner().invoke(app, [*common, "--json"]).stdout)
    assert found.keys() >= {"chosen", "budget", "spent", "spent_on_refutation", "expected_width"}
    assert found["laws"] == list(LAWS)
    spoilt("cost", -1).to_csv(cells, index=False)
    failed = CliRunner().invoke(app, common)
    assert isinstance(failed.exception, FitError)
    assert f"{cells}: cost: row 6: must be a number above 0, got -1" in str(failed.exception)
