"""What the page of the measured grid is filled with: results/measured/, else its rehearsal."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mae_lib.charts.extrapolation import heldout_by_rho
from mae_lib.charts.frames import table_html
from mae_lib.charts.laws import prediction_fan
from mae_lib.charts.measured import measured_grid, measured_scores, registered_chart
from mae_lib.charts.renderer import Figure
from mae_lib.errors import FitError
from mae_lib.evaluation.gate import gate, random_columns
from mae_lib.records.plan_file import read_plan
from mae_lib.records.sidecar import read_list, read_table
from mae_lib.report.coverage import coverage_sentence
from mae_lib.report.decide import read_claim
from mae_lib.report.heldout_frames import held_out, heldout_frame, heldout_sentence, heldout_wide
from mae_lib.report.measured_runs import (
    pieces_frame,
    pieces_sentence,
    rerun_commands,
    second_mixture,
)
from mae_lib.report.registered import compare, read_registered
from mae_lib.report.results import law_table
from mae_lib.report.verdicts import effects_sentence, gate_sentence
from mae_lib.scaling.effects import factor_signs
from mae_lib.scaling.fit import fit_laws
from mae_lib.study.definition import Study
from mae_lib.study.load import load_study

MEASURED, REHEARSAL, SECOND = "measured", "measured-rehearsal", "measured-128"
PAPER_IMAGES = 200_000


@dataclass(frozen=True)
class Grid:
    """A study's published pieces as tables; `fits` and `predictions` empty where no law is fitted."""

    study: Study
    folder: Path
    runs: pd.DataFrame
    fits: list[dict]
    predictions: pd.DataFrame

    @property
    def rehearsal(self) -> bool:
        """Whether this is evidence of nothing but the commands."""
        return self.study.name == REHEARSAL

    @property
    def scored(self) -> pd.DataFrame:
        """The complete rows of the law's task and protocol."""
        law, runs = self.study.law, self.runs
        of_law = (runs.task == law.task) & (runs.protocol == law.protocol)
        return runs[of_law & (runs.status == "complete")]


def read_grid(results: Path) -> Grid | None:
    """Return the measured grid, its rehearsal where nothing is measured yet, or None."""
    for name in (MEASURED, REHEARSAL):
        folder = results / name
        if not (folder / "runs.csv").exists():
            continue
        runs = read_table(folder / "runs.csv")
        if (runs.status == "complete").any():
            fitted = (folder / "fit.json").exists()
            return Grid(
                load_study(name),
                folder,
                runs,
                read_list(folder / "fit.json") if fitted else [],
                read_table(folder / "predictions.csv") if fitted else pd.DataFrame(),
            )
    return None


def measured_substitutions(book_root: Path) -> dict[str, str]:
    """Return the names that book/measured.md uses."""
    results = book_root / "results"
    grid = read_grid(results)
    about = {
        "measured_commands": rerun_commands(results),
        "measured_second": second_mixture(results / SECOND),
    }
    if grid is None:
        names = ("status", "answer", "grid", "scores", "cells", "laws", "heldout", "coverage",
                 "registered", "claim", "pieces", "limits")  # fmt: skip
        nothing = "Nothing is measured and nothing is rehearsed yet."
        return about | {f"measured_{name}": nothing for name in names}
    return about | _answer(grid) | _design(grid) | _law(grid) | _registered(grid)


def levels_frame(grid: Grid) -> pd.DataFrame:
    """Return a row a combination of model, images and resolution: runs planned and measured, means."""
    planned = pd.DataFrame(
        [
            {"model": c.model, "images": c.images, "resolution": c.resolution}
            for c in grid.study.cells
        ]
    )
    keys = ["model", "images", "resolution"]
    rows = grid.scored.copy()
    rows["baseline"] = rows[["pixels_top1", *random_columns(rows)]].max(axis=1)
    found = rows.groupby(keys).agg(
        seeds=("cell", "nunique"), top1=("top1", "mean"), low=("top1_low", "mean"),
        high=("top1_high", "mean"), baseline=("baseline", "mean"),
    )  # fmt: skip
    every = pd.MultiIndex.from_product([planned[k].drop_duplicates() for k in keys], names=keys)
    counts = planned.groupby(keys).size().rename("planned")
    frame = pd.DataFrame(index=every).join(counts).join(found).reset_index()
    return frame.fillna({"planned": 0, "seeds": 0}).astype({"planned": int, "seeds": int})


def _answer(grid: Grid) -> dict[str, str]:
    done, total = grid.scored.cell.nunique(), len(grid.study.cells)
    most = max(cell.images for cell in grid.study.cells)
    status = (
        "**Rehearsal, not evidence.** Nothing is measured yet: what this page shows was made by the "
        f"same commands on a processor, with {len({c.model for c in grid.study.cells})} encoders too "
        "small and trained too shortly to say anything of the question."
        if grid.rehearsal
        else f"Measured in {len(list((grid.folder / 'pieces').glob('*.json')))} pieces of minutes."
    )
    lines = [f"{done} of {total} planned cells are measured ({total - done} holes)."]
    try:
        lines.append(effects_sentence(factor_signs(law_table(grid.study, grid.runs))))
    except FitError as error:
        lines.append(f"No effect is measured: {error}.")
    lines.append(gate_sentence(gate(grid.runs)))
    answer = "\n".join(f"- {line}" for line in lines)
    return {
        "measured_status": status,
        "measured_answer": answer.replace("Measured", "Rehearsed") if grid.rehearsal else answer,
        "measured_limits": f"The largest cells hold {most:,} images, {100 * most / PAPER_IMAGES:.2g} % "
        f"of the {PAPER_IMAGES:,} that the paper states: the mixture is the paper's, its size is not.",
    }


def _design(grid: Grid) -> dict[str, str]:
    cells = levels_frame(grid)
    scores = cells[cells.seeds > 0].drop(columns="planned")
    table = grid.scored[["cell", "top1", "top1_low", "top1_high", "pixels_top1", "loss"]].copy()
    table["random_best"] = grid.scored[random_columns(grid.runs)].max(axis=1)
    return {
        "measured_grid": _html(measured_grid(cells), cells, "measured-grid"),
        "measured_scores": _html(measured_scores(scores), scores, "measured-scores"),
        "measured_cells": table_html(table.round(4)),
        "measured_pieces": f"{pieces_sentence(grid.folder)}\n\n"
        f"{table_html(pieces_frame(grid.folder))}",
    }


def _law(grid: Grid) -> dict[str, str]:
    try:
        table = law_table(grid.study, grid.runs)
        fits = fit_laws(table, grid.study.law.laws, bootstrap=0)
    except FitError as error:
        text = f"No law can be fitted: {error}."
        return {f"measured_{name}": text for name in ("laws", "heldout", "coverage", "claim")}
    found, why = held_out(table, fits)
    frame = heldout_frame(found)
    laws = pd.DataFrame(
        [
            {
                "law": f["law"],
                "RMSE (points)": 100 * f["rmse"],
                "AICc": f["aicc"],
                "parameters": ", ".join(f"{k} {v:.3g}" for k, v in f["params"].items()),
            }
            for f in grid.fits
        ]
    )
    tangled = sorted({words for fit in fits for words in fit.identifiability["null_directions"]})
    heldout = heldout_sentence(found, why).removeprefix("- ")
    if not frame.empty:
        chart = heldout_by_rho(frame)
        heldout += (
            f"\n\n{_html(chart, frame, 'measured-holdout')}\n\n{table_html(heldout_wide(found))}"
        )
    return {
        "measured_laws": table_html(laws, prose=True),
        "measured_heldout": heldout,
        "measured_coverage": _coverage(frame)
        + ("" if not tangled else f" Aliased in this design: {', '.join(tangled)}."),
        "measured_claim": _claim(grid),
    }


def _coverage(frame: pd.DataFrame) -> str:
    elsewhere = coverage_sentence().removeprefix("- ")
    if frame.empty:
        return elsewhere
    by_law = frame.groupby("law").coverage_95.mean()
    said = ", ".join(f"{law} {100 * value:.0f} %" for law, value in by_law.items())
    return (
        "Measured on this grid's own splits, of the runs left out 95 % intervals hold: "
        f"{said}. {elsewhere}"
    )


def _claim(grid: Grid) -> str:
    """Put what these laws say at the paper's point beside what the public grid's laws say."""
    claim = [a for a in read_claim()["answers"] if a["target"] == "claim"]
    public = [a["value"] for a in claim]
    beside = (
        f"The laws of the public grid spread from {100 * min(public):.3g} to "
        f"{100 * max(public):.3g} % at the claim."
    )
    if grid.predictions.empty:
        return beside
    far = grid.predictions[grid.predictions.target == grid.predictions.target.iloc[-1]]
    values = far.value[np.isfinite(far.value)]
    own = (
        f"Predicted at `{far.target.iloc[0]}` by the laws of this grid: {100 * values.min():.3g} to "
        f"{100 * values.max():.3g} %, {far.rho_max.max():.2g} ranges outside it. "
    )
    if not far.calibrated.all():
        own += "No interval has been tested that far: the spread is the answer. "
    chart = _html(prediction_fan(grid.predictions), grid.predictions, "measured-predictions")
    return f"{own}{beside}\n\n{chart}"


def _registered(grid: Grid) -> dict[str, str]:
    registered = read_registered(grid.folder)
    plan = read_plan(grid.folder / "plan.json", grid.study)
    if registered is None:
        return {
            "measured_registered": f"Not registered yet: {len(plan.largest)} cells "
            f"({plan.largest_rule}) wait for it and cannot be measured before."
        }
    rows = compare(registered, grid.runs)
    known = rows[rows.hit.notna()]
    hits = int(known.hit.astype(bool).sum())
    outcome = {True: "inside", False: "outside"}
    rows["outcome"] = [outcome.get(hit, "not measured") for hit in rows.hit.tolist()]
    text = (
        f"Registered on {registered['created'][:10]} from {len(registered['rows_used'])} smaller "
        f"cells (commit `{registered['commit']}`, table `{registered['runs_sha256'][:12]}`), for "
        f"{len(rows)} cells: {plan.largest_rule}. "
    )
    text += (
        f"Measured since: {hits} of {len(known)} lie inside their 95 % interval."
        if len(known)
        else "None of them is measured yet."
    )
    shown = rows[["cell", "predicted", "low", "high", "measured", "outcome"]].round(4)
    drawn = rows[rows.low.notna()]
    chart = f"\n\n{_html(registered_chart(drawn), drawn, 'registered')}" if len(drawn) else ""
    return {"measured_registered": f"{text}{chart}\n\n{table_html(shown)}"}


def _html(chart, data: pd.DataFrame, name: str) -> str:
    return Figure(chart, data, name)._repr_mimebundle_()["text/html"]
