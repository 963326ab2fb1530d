"""How far a cell is and how fast, read from its own files."""

import json
from pathlib import Path

from mae_lib.cost import cost_of
from mae_lib.errors import RecordError
from mae_lib.records.locks import CELL_LOCK, RANKS_LOCK, is_held
from mae_lib.records.sealed import read_sealed
from mae_lib.study.definition import Cell

_NEEDED = {"step", "images_seen", "loss", "images_per_s"}


def cell_state(folder: Path) -> str:
    """Say in a few words how far the cell in `folder` is."""
    try:
        if (folder / "record.json").exists():
            status = str(read_sealed(folder / "record.json")["status"])
            return status + (_where_diverged(folder) if status == "diverged" else "")
        if (folder / "training.json").exists():
            status = str(read_sealed(folder / "training.json")["status"])
            if status == "diverged":
                return f"diverged{_where_diverged(folder)}, not evaluated"
            return "trained, not evaluated"
        if (folder / "failed.json").exists():
            return f"failed: {read_sealed(folder / 'failed.json')['message']}"
    except RecordError as error:
        return f"damaged: {error}"
    if not (folder / "cell.json").exists() and last_metrics(folder) is None:
        return "not begun"
    if is_held(folder / CELL_LOCK) or is_held(folder / RANKS_LOCK):
        return _training(folder)
    return _interrupted(folder)


def _training(folder: Path) -> str:
    if (row := last_metrics(folder)) is None:
        return "training, no step is logged yet"
    return f"training, {describe_row(row, curve_header(folder))}"


def _interrupted(folder: Path) -> str:
    """Say from where a cell that nobody trains would go on: the newest checkpoint that is sealed."""
    step = 0
    for record in sorted((folder / "state").glob("step-*.json"), reverse=True):
        try:
            step = int(read_sealed(record)["step"])
            break
        except RecordError:
            continue
    steps = curve_header(folder).get("steps")
    whole = f" of {steps}" if steps else ""
    if not step:
        return "interrupted, it would begin again: no step is saved"
    return f"interrupted, it would go on from step {step}{whole}"


def describe_row(row: dict, header: dict) -> str:
    """Say what a line of the loss curve says: step, loss, speed, what bounds it, time left.

    The loss stands beside that of predicting the mean, which the header keeps.
    """
    steps = header.get("steps")
    parts = [f"step {row['step']}" + (f" of {steps}" if steps else "")]
    if row["loss"] is not None:
        known = header.get("predict_mean_loss")
        parts.append(f"loss {row['loss']:.3f}" + (f" (the mean: {known:.3f})" if known else ""))
    parts.append(f"{row['images_per_s']:,.0f} images/s")
    if row.get("mfu") and (ceiling := header.get("gemm_flops_per_s")):
        parts.append(f"{100 * row['mfu']:.0f} % of {flops_text(ceiling)}")
    if row.get("bound"):
        parts.append(f"bound by {row['bound']}")
    if (left := cell_left_s(row, header)) is not None:
        parts.append(f"about {clock(left)} left")
    return ", ".join(parts)


def cell_left_s(row: dict, header: dict) -> float | None:
    """Return the seconds that a cell has left at the speed of its newest row."""
    if not {"steps", "batch"} <= set(header) or not row["images_per_s"]:
        return None
    return (header["steps"] - row["step"]) * header["batch"] / row["images_per_s"]


def flops_text(per_s: float) -> str:
    """Write a rate of matrix products: `210 GFLOP/s`."""
    unit, scale = ("TFLOP/s", 1e12) if per_s >= 1e12 else ("GFLOP/s", 1e9)
    return f"{per_s / scale:,.0f} {unit}"


def clock(seconds: float) -> str:
    """Write a time: `3 min 05 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def cell_work(cell: Cell, images_seen: float | None = None) -> float:
    """Return the FLOPs of a cell's training, or of its first `images_seen` images."""
    recipe, per_image = cell.recipe, cost_of(cell).flops_per_image
    whole = min(recipe.steps * recipe.batch_size * per_image, recipe.max_flops)
    return whole if images_seen is None else min(whole, images_seen * per_image)


def curve_header(folder: Path) -> dict:
    """Return the header of a cell's loss curve; empty when there is none."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return {}
    with open(path, encoding="utf-8") as file:
        try:
            return json.loads(file.readline())["header"]
        except (ValueError, KeyError, TypeError):
            return {}


def last_metrics(folder: Path) -> dict | None:
    """Return the newest whole row of a cell's loss curve; events between rows are passed over."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return None
    for line in reversed(path.read_bytes()[-4000:].splitlines()):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and set(row) >= _NEEDED:
            return row
    return None


def _where_diverged(folder: Path) -> str:
    training = folder / "training.json"
    where = read_sealed(training).get("diverged") if training.exists() else None
    return f" in step {where['step']} at learning rate {where['lr']:.3g}" if where else ""
