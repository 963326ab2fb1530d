"""How fast laws are fitted: our batched refits beside a loop of scipy's, and beside a peer package.

Contenders take turns within a round, so that load from outside falls on all alike. The peer is
`chinchilla` (extra `peers`): the law of arXiv 2203.15556 with Huber's loss of the log from a grid of
starts. Both objectives are computed here, by one function, from the parameters that each returns.
"""

import importlib.metadata
import importlib.util
import itertools
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import optimize

from mae_lib.bench.grids import load_grids
from mae_lib.errors import FitError
from mae_lib.records.provenance import processor, versions
from mae_lib.scaling.fit import Fit, fit_law
from mae_lib.scaling.holdout import hold_out
from mae_lib.scaling.laws import usable_laws
from mae_lib.scaling.least_squares import refit
from mae_lib.scaling.table import Table
from mae_lib.scaling.uncertainty import resample_weights

LAWS = ("log_product", "logit_additive", "logit_ceiling", "power_sum")
GRID = "orhan2023/acc1_max"
PEER_GRID = "chinchilla_besiroglu2024/loss"
DELTA = 1e-3
# The peer's starts: its own parametrisation, logs of E, A and B, two or more values an axis.
PEER_STARTS = {"e": (0.0, 0.7), "a": (3.0, 8.0), "b": (3.0, 8.0), "alpha": (0.2, 0.5),
               "beta": (0.2, 0.5)}  # fmt: skip


def bench_law(folder: str | Path, *, bootstrap: int = 2000, rounds: int = 3) -> dict:
    """Time bootstraps, a whole report, and a peer's fit; seconds of wall clock unless named cpu.

    Raises: FitError when the folder lacks the table that is timed, or a count is below 1.
    """
    if min(bootstrap, rounds) < 1:
        raise FitError(f"bootstrap, rounds: from 1, got {bootstrap} and {rounds}")
    grids = {grid.name: grid for grid in load_grids(folder)}
    if GRID not in grids:
        raise FitError(f"{folder}: lacks orhan2023.csv, the table that is timed")
    table = grids[GRID].table
    return {
        "format": 1,
        "rounds": rounds,
        "processor": processor(),
        "versions": versions(),
        "bootstraps": [time_bootstrap(table, name, bootstrap, rounds) for name in LAWS],
        "report": time_report(table, bootstrap),
        "peer": time_peer(grids[PEER_GRID].table if PEER_GRID in grids else None, rounds),
    }


def time_bootstrap(table: Table, name: str, count: int, rounds: int) -> dict:
    """Time `count` refits of one law to resampled clusters, ours at once and scipy's one by one.

    Both start at the fit to all runs, with the same weights, bounds and Jacobian. `difference` is
    the 99 % quantile of the difference of fitted values, root mean square over runs.
    """
    fit = fit_law(table, name, bootstrap=0)
    weights, _ = resample_weights(table, count, 0)
    y = 1 - table.y if fit.flips else table.y
    bounds = _bounds(fit, y)
    ours, scipys = [], []
    for _ in range(rounds):
        seconds, found = _timed(
            lambda: refit(fit.law, fit.z, y, weights, fit.params, bounds=bounds)
        )
        ours.append(seconds)
        seconds, loop = _timed(lambda: _loop(fit, y, weights, bounds))
        scipys.append(seconds)
    params, settled = found
    gap = fit.law.evaluate(params, fit.z)[0] - fit.law.evaluate(loop, fit.z)[0]
    gap = np.sqrt((gap**2).mean(-1))[settled]
    return {
        "law": name,
        "refits": count,
        "failed": int((~settled).sum()),
        "ours_s": float(np.median(ours)),
        "scipy_s": float(np.median(scipys)),
        "ratio": float(np.median(np.array(scipys) / np.array(ours))),
        "largest_difference": float(np.quantile(gap, 0.99)) if len(gap) else None,
    }


def time_report(table: Table, bootstrap: int) -> dict:
    """Time every usable law with its bootstrap, and the held-out splits; cpu seconds, MiB at most."""
    names = usable_laws(table)[0]
    wall, cpu = time.perf_counter(), time.process_time()
    fits = [fit_law(table, name, bootstrap=bootstrap) for name in names]
    fitted = time.process_time() - cpu
    found = hold_out(table, fits)
    return {
        "laws": len(fits),
        "bootstrap": bootstrap,
        "splits": len(found["splits"]),
        "fits_cpu_s": fitted,
        "seconds": time.process_time() - cpu,
        "wall_s": time.perf_counter() - wall,
        "peak_mib": _peak_mib(),
    }


def time_peer(table: Table | None, rounds: int) -> dict:
    """Fit the Chinchilla table by Huber's loss of the log, ours and the peer's.

    `objective_*` is the sum of Huber's loss (bend 1e-3) of ln loss over the runs, at what each found.
    """
    if table is None:
        return {"note": "chinchilla_besiroglu2024.csv is not in the folder: the peer was not run"}
    if importlib.util.find_spec("chinchilla") is None:
        return {"note": 'chinchilla is not installed (pip install "mae-lib[peers]"): not run'}
    ours, theirs = [], []
    for _ in range(rounds):
        seconds, fit = _timed(
            lambda: fit_law(table, "power_sum", objective="huber", delta=DELTA, bootstrap=0)
        )
        ours.append(seconds)
        seconds, params = _timed(lambda: _peer_fit(table))
        theirs.append(seconds)
    n, d = table.x.T
    theirs_fit = (
        params["E"] + params["A"] * n ** -params["alpha"] + params["B"] * d ** -params["beta"]
    )
    return {
        "version": importlib.metadata.version("chinchilla"),
        "starts_ours": fit.starts["tried"],
        "starts_peer": len(list(itertools.product(*PEER_STARTS.values()))),
        "objective_ours": huber_sum(table.y, fit.fitted()),
        "objective_peer": huber_sum(table.y, theirs_fit),
        "seconds_ours": float(np.median(ours)),
        "seconds_peer": float(np.median(theirs)),
        "params_peer": params,
    }


def huber_sum(y: np.ndarray, fitted: np.ndarray, delta: float = DELTA) -> float:
    """Return sum Huber(ln y - ln fitted): r^2 / 2 within delta, delta (|r| - delta / 2) beyond."""
    size = np.abs(np.log(y) - np.log(fitted))
    return float(np.where(size <= delta, size**2 / 2, delta * (size - delta / 2)).sum())


def _loop(
    fit: Fit, y: np.ndarray, weights: np.ndarray, bounds: tuple[np.ndarray, np.ndarray] | None
) -> np.ndarray:
    """Refit one by one with scipy, as one would without a batch; return parameters `[B, k]`."""
    law, z = fit.law, fit.z
    limits = (-np.inf, np.inf) if bounds is None else bounds
    start = fit.params
    if bounds is not None:
        # scipy wants to start strictly inside.
        start = np.clip(start, bounds[0] + 1e-10, bounds[1] - 1e-10)
    found = np.empty((len(weights), fit.k))
    for place, root in enumerate(np.sqrt(weights)):
        found[place] = optimize.least_squares(
            lambda p, root=root: root * (law.evaluate(p, z)[0] - y),
            start,
            jac=lambda p, root=root: root[:, None] * law.evaluate(p, z)[1],
            bounds=limits,
            x_scale="jac",
        ).x
    return found


def _bounds(fit: Fit, y: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    from mae_lib.scaling.law import Design

    kind = "error" if fit.flips else fit.table.kind
    return fit.law.bounds(Design(fit.factors, fit.z, y, kind)) if fit.law.limits else None


def _peer_fit(table: Table) -> dict[str, float]:
    from chinchilla import Chinchilla
    from chinchilla._metrics import log_huber

    with tempfile.TemporaryDirectory() as folder:
        peer = Chinchilla(
            folder,
            param_grid=PEER_STARTS,
            loss_fn=lambda y, fitted: log_huber(y, fitted, DELTA),
            log_level=50,
        )
        peer.database.filepath = None
        for (n, d), loss in zip(table.x, table.y, strict=True):
            peer.database.append(N=n, D=d, loss=loss)
        # Its picture of the fit is no part of fitting.
        peer.visualizer.optim = lambda *args, **options: None
        peer.fit(parallel=False)
        return peer.get_params()


def _timed(call: Callable) -> tuple[float, object]:
    start = time.perf_counter()
    found = call()
    return time.perf_counter() - start, found


def _peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
