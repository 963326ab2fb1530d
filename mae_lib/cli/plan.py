"""Print what a study would take."""

import json
from dataclasses import replace

from rich import box
from rich.table import Table

from mae_lib.charts.frames import number
from mae_lib.cli.summary import wide_console
from mae_lib.cost import cost_of
from mae_lib.images.public_sizes import PUBLIC, feasibility, feasible_totals
from mae_lib.report.planning import plan_frame
from mae_lib.scaling.claim import ranges_beyond
from mae_lib.study.definition import Study


def print_plan(study: Study, *, as_json: bool) -> None:
    """Print cells, what is infeasible, FLOPs and GPU-hours, and the study's last target's price."""
    plan = plan_frame(study)
    public = all(source.name in PUBLIC for source in study.data.sources)
    sizes = feasibility(study.data.total, study.data.sources) if public else None
    if as_json:
        print(json.dumps(
            {
                "format": 1,
                "study": study.name,
                "cells": plan.to_dict("records"),
                "gpu_hours": float(plan.gpu_hours.sum()),
                "feasibility": None if sizes is None else sizes.to_dict("records"),
                "largest_total": feasible_totals(study.data.sources) if public else None,
            },
            indent=1,
        ))  # fmt: skip
        return
    console = wide_console()
    console.print(_rich(plan, f"{study.name}: {len(plan)} cells"))
    total = plan.training_flop.sum()
    print(f"in all {total:.3g} FLOP, {plan.gpu_hours.sum():,.0f} GPU-hours at 40 % of 989 TFLOP/s")
    if public:
        console.print(_rich(sizes, "images asked and public"))
        short = sizes[sizes.missing > 0]
        totals = feasible_totals(study.data.sources)
        for row in short.itertuples():
            print(
                f"infeasible: {row.source}: {row.asked:,} images asked, {row.train:,} in its "
                f"training part ({row.with_validation:,} with validation)"
            )
        print(
            f"in these proportions at most {totals['train']:,} images "
            f"({totals['with_validation']:,} with validation)"
        )
    for cell in {c.resolution: c for c in study.cells}.values():
        if cell.pixels != cell.resolution:
            print(
                f"{cell.resolution} px is not a multiple of the patch of {cell.patch_size}: "
                f"{cell.pixels} px reach the encoder"
            )
    _print_target(study)


def _print_target(study: Study) -> None:
    levels = sorted({cell.resolution for cell in study.cells})
    for target in study.targets:
        if target.params_encoder > 1e11 and len(levels) > 1:
            cell = replace(
                study.cells[0], model="vit_522b", resolution=int(target.resolution), patch_size=16
            )
            cost = cost_of(cell)
            rho = ranges_beyond(levels[0], levels[-1], target.resolution)
            print(
                f"target {target.name}: {cost.params_encoder / 1e9:.4g} billion parameters, "
                f"{cost.tokens:,} patches, {cost.flops_per_image:.2g} FLOP an image, "
                f"{cost.gpu_hours(800.0 * target.images):,.0f} GPU-hours for 800 passes; "
                f"{rho:.1f} ranges of resolution beyond the cells"
            )


def _rich(frame, title: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    for name in frame.columns:
        right = frame[name].dtype.kind in "if"
        table.add_column(
            str(name).replace("_", " "), justify="right" if right else "left", no_wrap=True
        )
    for row in frame.itertuples(index=False):
        table.add_row(*(number(value) for value in row))
    return table
