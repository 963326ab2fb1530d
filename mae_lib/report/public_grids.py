"""Refit the public grids of runs: what notebook 07 shows, kept in results/grids/refits.json.

Two of the seven tables carry no licence and are read from MAE_GRIDS; what was fitted to them is
published, their points are not.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mae_lib.errors import FitError
from mae_lib.records.provenance import versions
from mae_lib.records.sidecar import read_list, write_list
from mae_lib.report.decide import grids_folder
from mae_lib.scaling.fit import Fit, fit_law, fit_laws
from mae_lib.scaling.laws import usable_laws
from mae_lib.scaling.read import read_table
from mae_lib.scaling.table import Table, check_table
from mae_lib.study.load import parameters_of
from mae_lib.study.paths import safe_name

BOOTSTRAP = 500
# Parameters A, B, E, alpha, beta of E + A N^-alpha + B D^-beta as published.
PUBLISHED = {
    # As the paper's code prints them (ln A, ln B, ln E): rounding A to 482.01 adds half a per cent.
    "cited: arXiv 2404.10102": (
        *np.exp([6.17795598, 7.64273236, 0.59711196]).tolist(),
        *(0.34781303, 0.36585412),
    ),
    "cited: arXiv 2203.15556, rounded": (406.4, 410.7, 1.69, 0.34, 0.28),
}
DELTA = 1e-3
TOKENS, PARAMETERS = 1.4e12, 70e9


@dataclass(frozen=True)
class Part:
    """One refit: rows of a public table, what is explained by what, by which law and objective."""

    grid: str
    part: str
    response: str
    factors: tuple[str, ...]
    law: str
    rows: Callable[[pd.DataFrame], pd.DataFrame]
    objective: str = "ls"
    clusters: str | None = None
    kind: str = "loss"
    # Rows of the source that are not fitted but predicted.
    asked: Callable[[pd.DataFrame], pd.DataFrame] | None = None

    def table(self, frame: pd.DataFrame) -> Table:
        """Return the checked rows."""
        return check_table(
            self.rows(frame).reset_index(drop=True),
            response=self.response,
            factors=self.factors,
            clusters=self.clusters,
            kind=self.kind,
            name=self.grid,
        )


def every(frame: pd.DataFrame) -> pd.DataFrame:
    """Keep every row."""
    return frame


def where(column: str, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Keep the rows that have a value in a column."""
    return lambda frame: frame[frame[column] == value]


def without_largest(frame: pd.DataFrame) -> pd.DataFrame:
    """Drop the five largest losses, as the published refit of the Chinchilla points does."""
    return frame[frame.loss < frame.loss.nlargest(5).min()]


def both(*conditions: tuple[str, object]) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Keep the rows that have a value in each of several columns."""
    return lambda frame: frame[np.logical_and.reduce([frame[c] == v for c, v in conditions])]


ND, NT = ("n_params", "n_tokens"), ("n_params", "tokens")
CHINCHILLA, OPENCLIP = "chinchilla_besiroglu2024", "cherti2023_openclip"
UNLICENSED = (CHINCHILLA, OPENCLIP)
ARCHITECTURES = ("28Enc,6Dec", "6Enc,28Dec", "6Enc,6Dec", "Dec-only", "TEnc-LSTM")
MODELS = ("BiT/101/3", "BiT/50/1", "MiX/B/16", "MiX/L/16", "ViT/B/16", "ViT/S/16")
SETTINGS = ("base/long/kaplan", "base/short/kaplan", "base/short/chinchilla", "tuned/short/const")
PARTS = (
    Part(CHINCHILLA, "240 points, Huber", "loss", ND, "power_sum", without_largest, "huber"),
    Part(CHINCHILLA, "240 points, log", "loss", ND, "power_sum", without_largest, "log"),
    Part(CHINCHILLA, "240 points, loss", "loss", ND, "power_sum", without_largest),
    Part(CHINCHILLA, "245 points, Huber", "loss", ND, "power_sum", every, "huber"),
    *(
        Part("gadre2024_overtraining", name, "loss_c4_val", NT, law, where("train_set", column))
        for name, column in (("C4", "c4_original"), ("RefinedWeb", "rw_original"))
        for law in ("power_sum", "overtrain")
    ),
    *(
        Part("porian2024_isoflop", s, "loss", ND, "power_sum", where("setting", s), "huber", "n_params")
        for s in SETTINGS
    ),
    Part(OPENCLIP, "29 models", "imagenet1k_acc1", ("gmacs_per_sample", "samples_seen"),
         "power_product", every, "log", kind="accuracy"),
    *(
        Part("nmt_alabdulmohsin2022", arch, "log_perplexity", ("sentences",), "power_sum",
             both(("arch", arch), ("split", "train")), "log",
             asked=both(("arch", arch), ("split", "test")))
        for arch in ARCHITECTURES
    ),
    *(
        Part("vision_alabdulmohsin2022", f"{model}, 10 shots", "error", ("seen_examples",), "power_sum",
             both(("task", "inet_10"), ("model", model), ("train", 1)), "log", kind="error",
             asked=both(("task", "inet_10"), ("model", model), ("train", 0)))
        for model in MODELS
    ),
)  # fmt: skip


def table_path(name: str) -> Path | None:
    """Return where a public table lies: committed, else in MAE_GRIDS, else None."""
    committed = grids_folder() / f"{name}.csv"
    folder = os.environ.get("MAE_GRIDS")
    elsewhere = Path(folder) / f"{name}.csv" if folder else None
    if committed.exists():
        return committed
    return elsewhere if elsewhere and elsewhere.exists() else None


def fits_from_namespace(namespace: Mapping[str, object]) -> tuple[Fit, ...]:
    """Fit every law that a committed grid can carry, from the parameters of notebook 07.

    Raises: StudyError for an unknown parameter, FitError for an unknown grid.
    """
    given = parameters_of(namespace, {"grid", "bootstrap", "seed"})
    path = grids_folder() / f"{safe_name(given.get('grid'), 'grid')}.csv"
    known = sorted(p.stem for p in grids_folder().glob("*.csv"))
    if path.stem not in known:
        raise FitError(f"grid: one of {', '.join(known)}, got {given['grid']!r}")
    table = read_table(path)
    names = [name for name in usable_laws(table)[0] if name != "cell_means"]
    return fit_laws(table, names, bootstrap=int(given["bootstrap"]), seed=int(given["seed"]))


def refit_part(part: Part, frame: pd.DataFrame, *, bootstrap: int = BOOTSTRAP) -> dict:
    """Fit one part and return what is published of it."""
    fit = fit_law(part.table(frame), part.law, objective=part.objective, bootstrap=bootstrap)
    row = {
        "grid": part.grid,
        "part": part.part,
        "law": part.law,
        "objective": part.objective,
        "rows": fit.n,
        "k": fit.k,
        "value": objective_value(fit, part.objective),
        "params": dict(zip(fit.law.names(fit.table.factors), fit.params.tolist(), strict=True)),
        "centre": np.exp(fit.centre).tolist(),
        "starts": fit.starts,
    }
    if part.asked is not None:
        row["asked"] = _asked(fit, part, frame)
    if part.law == "power_sum":
        row["natural"] = natural(fit)
        row["exponents"] = _exponents(fit)
    return row


def natural(fit: Fit) -> dict:
    """Return the parameters of a power_sum as papers print them: E, and A_j at x_j = 1."""
    m = len(fit.factors)
    floor, parts, powers = fit.params[0], fit.params[1 : 1 + m], fit.params[1 + m :]
    amplitudes = parts * np.exp(powers * fit.centre)
    return {
        "E": float(floor),
        **{f"A_{f}": float(a) for f, a in zip(fit.factors, amplitudes, strict=True)},
        **{f"exponent_{f}": float(p) for f, p in zip(fit.factors, powers, strict=True)},
    }


def objective_value(fit: Fit, objective: str) -> float:
    """Return what was minimised: a sum over rows, of squares or of Huber's function at 1e-3."""
    fitted, y = fit.predict(fit.table.x), fit.table.y
    if objective == "ls":
        return float(((y - fitted) ** 2).sum())
    left = np.log(y) - np.log(fitted)
    return float((left**2).sum()) if objective == "log" else huber(left)


def huber(residuals: np.ndarray, delta: float = DELTA) -> float:
    """Return the sum of Huber's function: r^2/2 within delta, linear beyond."""
    size = np.abs(residuals)
    return float(np.where(size <= delta, size**2 / 2, delta * (size - delta / 2)).sum())


def at_published(frame: pd.DataFrame) -> list[dict]:
    """Return the Huber objective on the 240 points at the parameters that papers print."""
    rows = without_largest(frame)
    found = []
    for name, (a, b, e, alpha, beta) in PUBLISHED.items():
        fitted = e + a * rows.n_params**-alpha + b * rows.n_tokens**-beta
        value = huber((np.log(rows.loss) - np.log(fitted)).to_numpy())
        found.append({"from": name, "A": a, "B": b, "E": e, "alpha": alpha, "beta": beta}
                     | {"huber": value, "loss_70B_1.4T": _at_70b(a, b, e, alpha, beta)})  # fmt: skip
    return found


def refit_all(*, bootstrap: int = BOOTSTRAP) -> dict:
    """Refit every part whose table is here; parts whose table is not are kept as published.

    Raises: nothing for a missing table: its rows of the published file stay, and say so.
    """
    published = read_refits() if refits_path().exists() else {"parts": [], "published": []}
    kept = {(row["grid"], row["part"], row["law"]): row for row in published["parts"]}
    parts, values = [], published["published"]
    for part in PARTS:
        path = table_path(part.grid)
        if path is None:
            parts += [row for key, row in kept.items() if key == (part.grid, part.part, part.law)]
            continue
        frame = pd.read_csv(path)
        parts.append(refit_part(part, frame, bootstrap=bootstrap))
        if part.grid == CHINCHILLA:
            values = at_published(frame)
    return {"format": 1, "parts": parts, "published": values, "versions": versions()}


def refits_path() -> Path:
    """Return where the refits are published."""
    return grids_folder() / "refits.json"


def write_refits() -> dict:
    """Refit and write results/grids/refits.json with its seal."""
    found = refit_all()
    write_list(refits_path(), found)
    return found


def read_refits() -> dict:
    """Read the published refits."""
    return read_list(refits_path())


def chinchilla_frame(refits: dict) -> pd.DataFrame:
    """Return the Chinchilla law by source: this minimum, the other objectives, the printed values."""
    rows = []
    for row in (r for r in refits["parts"] if r["grid"] == CHINCHILLA):
        n = row["natural"]
        values = (n["A_n_params"], n["A_n_tokens"], n["E"], n["exponent_n_params"],
                  n["exponent_n_tokens"])  # fmt: skip
        names = dict(zip(("A", "B", "E", "alpha", "beta"), values, strict=True))
        huber_here = row["value"] if row["part"] == "240 points, Huber" else None
        rows.append({"from": f"fitted: {row['part']}"} | names
                    | {"huber": huber_here, "loss_70B_1.4T": _at_70b(*values)})  # fmt: skip
    digits = {"A": 2, "B": 2, "E": 4, "alpha": 4, "beta": 4, "huber": 9, "loss_70B_1.4T": 4}
    return pd.DataFrame(
        [
            row | {k: None if row[k] is None else f"{row[k]:.{d}f}" for k, d in digits.items()}
            for row in rows + refits["published"]
        ]
    )


def others_frame(refits: dict) -> pd.DataFrame:
    """Return a row a refit of the other grids: law, objective, its minimum, floor and exponents."""
    rows = []
    for row in (r for r in refits["parts"] if r["grid"] != CHINCHILLA):
        params = row["params"]
        rows.append(
            {key: row[key] for key in ("grid", "part", "law", "objective", "rows")}
            | {"minimum": f"{row['value']:.6g}", "E": params.get("floor")}
            | {"exponents": ", ".join(f"{v:.3g}" for k, v in params.items()
                                      if k.startswith("exponent_") or k == "eta")}
            | {"predicted, off by": f"{100 * row['asked']['mean']:+.1f} %" if "asked" in row else "-"}
            | {"starts_agreeing": f"{row['starts']['agreeing']} of {row['starts']['tried']}"}
        )  # fmt: skip
    return pd.DataFrame(rows)


def _asked(fit: Fit, part: Part, frame: pd.DataFrame) -> dict:
    """Return how far the predictions of rows that were not fitted are off, relatively."""
    rows = part.asked(frame)
    relative = fit.predict(rows[list(part.factors)].to_numpy()) / rows[part.response].to_numpy() - 1
    return {
        "rows": len(rows),
        "mean": float(relative.mean()),
        "largest": float(abs(relative).max()),
    }


def _exponents(fit: Fit) -> dict:
    """Return the bootstrap intervals of the exponents."""
    names = fit.law.names(fit.table.factors)
    return {
        name: [None if v is None else float(v) for v in fit.intervals[j]]
        for j, name in enumerate(names)
        if name.startswith("exponent_")
    }


def _at_70b(a: float, b: float, e: float, alpha: float, beta: float) -> float:
    return e + a * PARAMETERS**-alpha + b * TOKENS**-beta
