"""The timed refits are the same refits, and objectives are computed by one function."""

import importlib.util

import numpy as np
import pytest

from mae_lib.bench.grids import load_grids
from mae_lib.bench.law import (
    PEER_GRID,
    bench_law,
    huber_sum,
    time_bootstrap,
    time_peer,
    time_report,
)
from mae_lib.errors import FitError
from mae_lib.scaling.read import read_table

ORHAN = "results/grids/orhan2023.csv"


def test_hubers_sum_is_quadratic_within_its_bend_and_straight_beyond():
    assert huber_sum(np.ones(1), np.exp([0.0005])) == pytest.approx(0.0005**2 / 2)
    assert huber_sum(np.ones(1), np.exp([-0.5])) == pytest.approx(1e-3 * (0.5 - 0.0005))


@pytest.mark.parametrize("law", ["log_product", "logit_additive", "power_sum"])
def test_our_batch_and_scipys_loop_find_the_same_refits(law):
    row = time_bootstrap(read_table(ORHAN), law, 20, 1)
    assert row["largest_difference"] < 1e-4
    assert row["failed"] <= 1
    assert row["ratio"] > 1


def test_the_report_is_timed_with_its_splits():
    row = time_report(read_table(ORHAN), 20)
    assert row["laws"] >= 10
    assert row["splits"] >= 4
    assert row["seconds"] > 0
    assert row["peak_mib"] > 10


def test_our_objective_on_the_chinchilla_table_is_the_global_minimum(grids):
    from mae_lib.scaling.fit import fit_law

    table = next(g.table for g in load_grids(grids) if g.name == PEER_GRID)
    fit = fit_law(table, "power_sum", objective="huber", bootstrap=0)
    assert huber_sum(table.y, fit.fitted()) == pytest.approx(0.00101827402, rel=1e-6)
    if importlib.util.find_spec("chinchilla") is None:
        assert "not installed" in time_peer(table, 1)["note"]


def test_a_folder_without_the_timed_table_and_bad_counts_are_refused(tmp_path):
    with pytest.raises(FitError, match="from 1, got 0"):
        bench_law(tmp_path, bootstrap=0)
    assert "not in the folder" in time_peer(None, 1)["note"]
