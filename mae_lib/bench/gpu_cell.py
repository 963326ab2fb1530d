"""A real cell trained on the device, end to end, beside what the processor's run left in results/."""

import dataclasses
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from mae_lib.errors import StudyError
from mae_lib.evaluation.evaluate import evaluate
from mae_lib.images.store import Store, build_store
from mae_lib.images.travel import MAGIC, read_travel, unpack_travel
from mae_lib.study.definition import Cell, Data, Evaluation, Recipe, Source, Task
from mae_lib.study.paths import root
from mae_lib.study.plain import read_study
from mae_lib.training.assess import trained_model
from mae_lib.training.loop import pretrain

STUDY = "real-small"
# A run elsewhere is the same run when it ends this near.
LOSS_SHARE = 0.01
STANDARD_ERRORS = 2.0


def cell(images: str | None, dry: bool) -> Iterator[dict]:
    """Train the study's largest cell and compare its loss and probes with the committed rows.

    Raises: StudyError when the folder of images is not named, or the committed settings do not
    give the committed digest.
    """
    if dry:
        yield _compared_with_itself()
        return
    if images is None:
        raise StudyError(
            f"cell: needs --images with the tars of {STUDY}, or with a travelling file of them"
        )
    rows, found = committed(STUDY)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        tars = _tars(Path(images), Path(folder) / "tars")
        store = build_store(found.data, Path(folder) / "store", data_root=tars)
        packed_s = time.perf_counter() - started
        yield _compare(found, rows, store, Path(folder) / "cell")
        yield {"cell": {"packed_s": packed_s}}


def committed(name: str) -> tuple[pd.DataFrame, Cell]:
    """Return the rows of a committed study's largest cell, and the cell itself.

    Raises: StudyError when the study's file no longer gives that cell.
    """
    runs = pd.read_csv(root() / "results" / name / "runs.csv")
    runs = runs.sort_values(["params_total", "resolution", "images", "seed"], kind="stable")
    last = runs.iloc[-1]
    cells = {cell.id: cell for cell in read_study(name).cells}
    if last.cell not in cells or cells[last.cell].digest != last.digest:
        raise StudyError(
            f"results/{name}/runs.csv: no cell of the study is {last.cell}; run it again"
        )
    return runs[runs.cell == last.cell], cells[last.cell]


def _tars(images: Path, unpacked: Path) -> Path:
    """Return the folder of tars: as it was named, or unpacked from a travelling file in it."""
    for path in sorted(p for p in images.iterdir() if p.is_file()):
        with open(path, "rb") as file:
            if file.read(len(MAGIC)) == MAGIC:
                return unpack_travel(read_travel(path), unpacked)
    return images


def _compare(found: Cell, rows: pd.DataFrame, store: Store, folder: Path) -> dict:
    """Train, score, and say for each number how far it is from the committed one."""
    trained = pretrain(found, store, folder)
    tasks = {task.name: store.task(task.name) for task in found.data.tasks}
    scores = evaluate(
        trained_model(found, trained).encode, tasks, found.evaluation, pixels=found.pixels
    )
    theirs = float(rows.loss.iloc[0])
    share = math.inf if trained.loss is None else abs(trained.loss / theirs - 1)
    probes = []
    for score in scores:
        [row] = [r for r in rows.itertuples() if (r.task, r.protocol) == _key(score)]
        # Of the difference of two shares over the same number of test images.
        error = math.sqrt(
            sum(p * (1 - p) / row.n_eval for p in (float(score["top1"]), float(row.top1)))
        )
        apart = (float(score["top1"]) - float(row.top1)) / error if error else 0.0
        probes.append(
            {
                "task": row.task,
                "protocol": row.protocol,
                "top1": float(score["top1"]),
                "committed_top1": float(row.top1),
                "standard_errors_apart": apart,
            }
        )
    return {
        "cell": {
            "cell": found.id,
            "loss": trained.loss,
            "committed_loss": theirs,
            "committed_device": str(rows.device.iloc[0]),
            "loss_apart": share if math.isfinite(share) else None,
            "probes": probes,
            "device": trained.environment["device"],
            "wall_s": trained.wall_s,
            "committed_wall_s": float(rows.wall_s.iloc[0]),
            "loss_agrees": share <= LOSS_SHARE,
            "probes_agree": all(abs(p["standard_errors_apart"]) <= STANDARD_ERRORS for p in probes),
        }
    }


def _key(score: dict) -> tuple[str, str]:
    return score["task"], score["protocol"]


def _compared_with_itself() -> dict:
    """The dry run's cell: two runs of a tiny drawn one, the first in the place of the committed."""
    data = Data("procedural", 60, 16, 0, (Source("objects", 1.0),),
                (Task("shapes", train_images=60, test_images=50),))  # fmt: skip
    tiny = Cell("vit_pico", 50, 16, 4, 0.8, 3, Recipe(steps=4, batch_size=8), Evaluation(), data)
    with tempfile.TemporaryDirectory() as folder:
        store = build_store(data, Path(folder) / "store", data_root=None)
        first = pretrain(tiny, store, Path(folder) / "first")
        tasks = {"shapes": store.task("shapes")}
        scores = evaluate(
            trained_model(tiny, first).encode, tasks, tiny.evaluation, pixels=tiny.pixels
        )
        common = {"loss": first.loss, "wall_s": first.wall_s, "device": "cpu"}
        rows = pd.DataFrame([common | score for score in scores])
        return _compare(dataclasses.replace(tiny), rows, store, Path(folder) / "second")
