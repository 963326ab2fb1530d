"""The pieces that a measured grid came from: devices, minutes, speed; and how to make the next."""

from pathlib import Path

import pandas as pd

from mae_lib.charts.frames import table_html
from mae_lib.devices import DEVICES
from mae_lib.records.plan_file import read_plan
from mae_lib.records.sidecar import read_table
from mae_lib.report.merge import merged_pieces
from mae_lib.study.load import load_study


def pieces_frame(results: Path) -> pd.DataFrame:
    """Return a row a merged piece: device, commit, cells, minutes, images/s, share of the peak."""
    rows = []
    for piece in merged_pieces(results):
        speed = _speed(piece)
        rows.append(
            {
                "piece": piece["name"],
                "device": piece["device"],
                "commit": piece["commit"],
                "cells": len(piece["records"]),
                "failed": len(piece["failed"]),
                "at once": piece["together"],
                "minutes": _minutes(piece),
                "images/s, all cells": speed["images_per_s"],
                "share of peak": speed["share"],
            }
        )
    return pd.DataFrame(rows)


def pieces_sentence(results: Path) -> str:
    """Say how many cells in how many minutes on what."""
    pieces = merged_pieces(results)
    minutes = sum(_minutes(piece) for piece in pieces)
    devices = ", ".join(sorted({piece["device"] for piece in pieces}))
    cells = sum(len(piece["records"]) for piece in pieces)
    return f"{cells} cells in {minutes:.1f} minutes on {devices}, preparation and readout included."


def second_mixture(results: Path) -> str:
    """Show the mixture with real detail at 128 pixels, or say that it is not measured."""
    study = load_study(results.name)
    most = max(cell.images for cell in study.cells)
    about = f"{len(study.cells)} cells over {most:,} images with real detail at {study.data.size} pixels."
    path = results / "runs.csv"
    runs = read_table(path) if path.exists() else None
    if runs is None or not (runs.status == "complete").any():
        return f"Not measured yet: {about}"
    law = study.law
    chosen = runs[(runs.task == law.task) & (runs.protocol == law.protocol)]
    wide = chosen.pivot_table(
        index=["model", "images"], columns="resolution", values="top1", aggfunc="mean"
    )
    wide.columns = [f"{column} px" for column in wide.columns]
    said = f"Measured: {about} Mean top-1 over seeds, {law.task}, {law.protocol}:"
    return f"{said}\n\n{table_html(wide.reset_index().round(4))}"


def rerun_commands(results: Path) -> str:
    """Return the commands of the next piece, with what is left and what it is planned to take."""
    rows = []
    for name in ("measured", "measured-128"):
        study = load_study(name)
        plan = read_plan(results / name / "plan.json", study)
        done = {n for piece in merged_pieces(results / name) for n in piece["records"]}
        left = [cell for cell in plan.cells if cell.id not in done]
        rows.append(
            {
                "study": name,
                "cells left": len(left),
                "of them predicted first": sum(cell.largest for cell in left),
                "planned on one H100, one at a time (minutes)": sum(c.seconds for c in left) / 60,
                "next": f"python -m mae_lib study piece studies/{name}.yaml --minutes 9 --out DIR "
                f"--images {name}.images",
            }
        )
    return table_html(pd.DataFrame(rows), prose=True)


def _minutes(piece: dict) -> float:
    ended, started = (pd.Timestamp(piece[key]) for key in ("ended", "started"))
    return (ended - started).total_seconds() / 60


def _speed(piece: dict) -> dict:
    """Images trained on and FLOPs done over the piece's whole time, waiting and readout included."""
    first = [record["rows"][0] for record in piece["records"].values()]
    seconds = max(60 * _minutes(piece), 1e-9)
    peaks = [d.peak_flops for d in DEVICES.values() if d.name in piece["device"]]
    flops = sum(row["flops"] for row in first)
    return {
        "images_per_s": sum(row["images_seen"] for row in first) / seconds,
        "share": flops / seconds / peaks[0] if peaks else None,
    }
