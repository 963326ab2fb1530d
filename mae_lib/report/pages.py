"""What the prose of the book is filled with: numbers, sentences, tables and figures from results."""

import dataclasses
import json
from pathlib import Path

import pandas as pd

from mae_lib.charts.curves import loss_curves, read_curve
from mae_lib.charts.frames import number, table_html
from mae_lib.charts.grid import accuracy_by_images
from mae_lib.charts.laws import prediction_fan
from mae_lib.charts.renderer import Figure
from mae_lib.cost import cost_of
from mae_lib.evaluation.gate import gate, largest_cells, random_columns
from mae_lib.images.public_sizes import feasibility, feasible_totals
from mae_lib.records.sidecar import read_list, read_table
from mae_lib.report.claim_page import claim_substitutions, orhan_fits
from mae_lib.report.explorer import DRAWS, explorer_data, explorer_html
from mae_lib.report.headline import headline
from mae_lib.report.jobs import cell_parameters
from mae_lib.report.measured import measured_substitutions
from mae_lib.report.planning import plan_frame
from mae_lib.report.results import law_table, study_targets
from mae_lib.report.verdicts import (
    FACTOR_NAMES,
    effects_sentence,
    extrapolation_sentences,
    gate_sentence,
    holds_sentence,
)
from mae_lib.scaling.claim import ranges_beyond, standard_error_factor
from mae_lib.scaling.claim_evidence import TARGETS
from mae_lib.scaling.effects import factor_signs
from mae_lib.scaling.fit import fit_laws
from mae_lib.study.definition import Cell, Study
from mae_lib.study.load import load_study

STAGED = "book_study.json"
PHOTOGRAPHS = "real-small"


@dataclasses.dataclass(frozen=True)
class Results:
    """A study with its tables."""

    study: Study
    folder: Path
    runs: pd.DataFrame
    fits: list[dict]
    predictions: pd.DataFrame

    @property
    def scored(self) -> pd.DataFrame:
        """The rows that the law is fitted to."""
        law = self.study.law
        return self.runs[(self.runs.task == law.task) & (self.runs.protocol == law.protocol)]


def substitutions(book_root: Path) -> dict[str, str]:
    """Return every name that a page may use.

    A staged book names its study and run folder in `book_study.json`; the committed one shows
    results/pocket/. Raises: MaeError when a table is missing or damaged.
    """
    results = _results(book_root)
    photographs = _read("real-small", book_root / "results" / PHOTOGRAPHS)
    return (
        _answers(results)
        | _claims(results, photographs)
        | _cells(results)
        | _photographs(photographs)
        | _paper()
        | claim_substitutions()
        | measured_substitutions(book_root)
        | _explorers(results)
    )


def committed_headline(book_root: Path) -> str:
    """Return the README's answer from the committed results of both studies."""
    pocket, photographs = (_read(n, book_root / "results" / n) for n in ("pocket", PHOTOGRAPHS))
    effects = [factor_signs(law_table(r.study, r.runs)) for r in (pocket, photographs)]
    return headline(*effects, pocket.fits, pocket.predictions)


def _results(book_root: Path) -> Results:
    staged = book_root / STAGED
    if staged.exists():
        about = json.loads(staged.read_text(encoding="utf-8"))
        return _read(about["study"], Path(about["folder"]))
    return _read("pocket", book_root / "results" / "pocket")


def _read(name: str, folder: Path) -> Results:
    study = folder / "study.yaml"
    return Results(
        study=load_study(study if study.exists() else name),
        folder=folder,
        runs=read_table(folder / "runs.csv"),
        fits=read_list(folder / "fit.json"),
        predictions=read_table(folder / "predictions.csv"),
    )


def figure_html(chart, data: pd.DataFrame, name: str) -> str:
    """Return a chart as the HTML of a page."""
    return Figure(chart, data, name)._repr_mimebundle_()["text/html"]


def _images_note(results: Results) -> str:
    if results.study.data.kind == "procedural":
        return (
            f"The {results.study.data.total:,} images of this study are **procedural**: scenes "
            "drawn by code, not photographs."
        )
    return f"The {results.study.data.total:,} images of this study are photographs."


def _answers(results: Results) -> dict[str, str]:
    effects = factor_signs(law_table(results.study, results.runs))
    far = results.predictions[results.predictions.target == results.predictions.target.iloc[-1]]
    fits = {fit["law"]: fit for fit in results.fits}
    best = min(results.fits, key=lambda fit: fit["rmse"])
    lines = [
        "**The claim is a choice of law, not a measurement**: a residual inside the grid does not "
        "choose among answers this far outside it.",
        *(line.removeprefix("- ") for line in extrapolation_sentences(far).splitlines()),
        effects_sentence(effects),
        gate_sentence(gate(results.runs)),
        f"Fitted: {len(fits)} laws leave residuals of {100 * best['rmse']:.2g} "
        f"({best['law']}) to {100 * max(f['rmse'] for f in results.fits):.2g} points "
        "inside the grid.",
    ]
    command = f"make study STUDY=studies/{results.study.name}.yaml"
    return {
        "study": f"`{results.study.name}`",
        "images_note": _images_note(results),
        "answer": "\n".join(f"- {line}" for line in lines),
        "n_cells": str(results.runs.cell.nunique()),
        "figure_answer": figure_html(
            prediction_fan(results.predictions), results.predictions, "predictions"
        ),
        "figure_command": f"Rebuild: `{command}`, or `papermill "
        "notebooks/06_extrapolate.ipynb out.ipynb` from the committed results.",
    }


def _claims(results: Results, photographs: Results) -> dict[str, str]:
    rows = []
    for name, part in ((results.study.name, results), (PHOTOGRAPHS, photographs)):
        paper = part.predictions[part.predictions.target == "paper"]
        low, high = paper.loc[paper.value.idxmin()], paper.loc[paper.value.idxmax()]
        rows.append(
            {
                "claim": "522 billion parameters at 4096 px pass 90 % (cited)",
                "ours": f"predicted from {name}: {100 * low.value:.3g} % ({low.law}) to "
                f"{100 * high.value:.3g} % ({high.law}), {paper.rho_max.max():.2g} ranges beyond",
                "verdict": "a choice of law"
                if paper.calibrated.all()
                else "outside the calibrated range",
            }
        )
        for effect in factor_signs(law_table(part.study, part.runs)).itertuples():
            rows.append(
                {
                    "claim": f"{FACTOR_NAMES[effect.factor]}: higher precision (cited)",
                    "ours": f"measured on {name}: {100 * effect.change:+.2g} points "
                    f"[{100 * effect.low:+.2g}, {100 * effect.high:+.2g}]",
                    "verdict": effect.verdict,
                }
            )
    sources = load_study("paper").data
    rows.append(
        {
            "claim": f"{sources.total:,} images in the stated mixture (cited)",
            "ours": f"at most {feasible_totals(sources.sources)['train']:,} without repeats, "
            "from the sets' cited sizes",
            "verdict": "not possible as stated",
        }
    )
    return {"claims_table": table_html(pd.DataFrame(rows))}


def _cells(results: Results) -> dict[str, str]:
    curves = loss_curves_frame(results)
    commands = pd.DataFrame(
        [
            {"cell": c.id, "command": papermill_command(c, results.study)}
            for c in results.study.cells
        ]
    )
    states = results.runs.drop_duplicates("cell").status.value_counts().to_dict()
    states = ", ".join(f"{count} {state}" for state, count in states.items())
    return {
        "cells_sentence": f"{results.runs.cell.nunique()} cells of `{results.study.name}`: "
        f"{states}. Top-1 with its 95 % interval over test images, beside its baselines.",
        "cells_gallery": table_html(cells_frame(results.runs)),
        "cells_curves": figure_html(loss_curves(curves), curves, "loss-curves"),
        "commands_table": table_html(commands),
    }


def cells_frame(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a row a cell, task and protocol: its place in the grid, score, baselines, loss."""
    interval = [
        f"{100 * row.top1:.1f} [{100 * row.top1_low:.1f}, {100 * row.top1_high:.1f}]"
        for row in runs.itertuples()
    ]
    return pd.DataFrame(
        {
            "model": runs["model"],
            "images": runs["images"],
            "pixels": runs["resolution"],
            "task, protocol": runs["task"] + ", " + runs["protocol"],
            "top-1 (%)": interval,
            "raw pixels (%)": 100 * runs["pixels_top1"],
            "random weights (%)": 100 * runs[random_columns(runs)].max(axis=1),
            "loss": runs["loss"],
            "status": runs["status"],
        }
    )


def loss_curves_frame(results: Results) -> pd.DataFrame:
    """Return every cell's loss curve, published (`metrics/`) or of a run (`cells/`)."""
    parts = []
    for cell in results.study.cells:
        published = results.folder / "metrics" / f"{cell.id}.jsonl"
        rows = read_curve(
            published
            if published.exists()
            else results.folder / "cells" / cell.id / "metrics.jsonl"
        )
        about = {"model": cell.model, "images": cell.images, "resolution": cell.resolution}
        parts.append(rows.assign(cell=cell.id, **about))
    return pd.concat(parts, ignore_index=True)


def papermill_command(cell: Cell, study: Study) -> str:
    """Return the command that trains one cell by hand."""
    names = ("model", "images", "resolution", "seed")
    given = " ".join(f"-p {name} {cell_parameters(cell)[name]}" for name in names)
    extra = "" if study.name == "pocket" else f"-p study {study.name} "
    return f"papermill notebooks/02_pretrain_cell.ipynb out.ipynb {extra}{given}"


def _photographs(results: Results) -> dict[str, str]:
    verdicts = gate(results.runs)
    effects = factor_signs(law_table(results.study, results.runs))
    largest = largest_cells(results.runs)
    table = verdicts[
        ["task", "protocol", "top1", "baseline", "baseline_top1", "standard_errors", "passes"]
    ]
    laws = pd.DataFrame(
        [
            {"law": f["law"], "RMSE (points)": 100 * f["rmse"], "AICc": f["aicc"],
             "parameters": ", ".join(f"{k} {v:.3g}" for k, v in f["params"].items())}
            for f in results.fits
        ]
    )  # fmt: skip
    return {
        "photographs_answer": f"{holds_sentence(effects)}\n\n{effects_sentence(effects)} "
        f"{gate_sentence(verdicts)}",
        "photographs_figure": figure_html(
            accuracy_by_images(results.scored), results.scored, "photographs"
        ),
        "photographs_cells": str(results.runs.cell.nunique()),
        "photographs_images": f"{int(largest.images.max()):,}",
        "photographs_table": f"The largest cell, `{largest.cell.iloc[0]}`, beside the better "
        f"baseline:\n\n{table_html(table)}",
        "photographs_laws": table_html(laws),
        "photographs_fan": figure_html(
            prediction_fan(results.predictions), results.predictions, "photographs-predictions"
        ),
    }


def _explorers(results: Results) -> dict[str, str]:
    grid = orhan_fits(bootstrap=DRAWS)
    places = {"the largest run": _largest(grid[0].table), "the abstract's target": TARGETS["own"]}
    places["the claim"] = TARGETS["claim"]
    table = law_table(results.study, results.runs)
    fits = fit_laws(table, results.study.law.laws, bootstrap=DRAWS)
    mine = {"the largest cell": _largest(table)}
    mine |= study_targets(results.study)
    return {
        "explorer_public": explorer_html(explorer_data(grid, places), grid),
        "explorer_study": explorer_html(explorer_data(fits, mine), fits),
        "explorer_draws": str(DRAWS),
    }


def _largest(table) -> dict[str, float]:
    return {f: float(table.x[:, j].max()) for j, f in enumerate(table.factors)}


def _paper() -> dict[str, str]:
    study = load_study("paper")
    totals = feasible_totals(study.data.sources)
    low, high = sorted({cell.resolution for cell in study.cells})
    target = study.targets[0]
    claim = dataclasses.replace(
        study.cells[0], model="vit_522b", resolution=int(target.resolution), images=study.data.total
    )
    cost = cost_of(claim)
    return {
        "paper_total": f"{study.data.total:,}",
        "paper_feasible": f"{totals['train']:,}",
        "paper_feasible_val": f"{totals['with_validation']:,}",
        "paper_feasibility": table_html(feasibility(study.data.total, study.data.sources)),
        "paper_plan": table_html(plan_frame(study)),
        "paper_rho": f"{ranges_beyond(low, high, target.resolution):.3g}",
        "paper_se": f"{standard_error_factor(low, high, target.resolution):.3g}",
        "paper_pixels": str(min(cell.pixels for cell in study.cells)),
        "claim_params": f"{cost.params_encoder / 1e9:.4g} billion",
        "claim_tokens": f"{cost.tokens:,}",
        "claim_flops": f"{cost.flops_per_image:.2g}",
        "claim_hours": number(round(cost.gpu_hours(800.0 * study.data.total), -4)),
        "claim_state": f"{cost.state_bytes / 1e12:.2g} TB",
    }
