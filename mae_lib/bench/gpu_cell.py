"""A real cell trained on the device, end to end, beside what the processor's run left in results/."""

import dataclasses
import json
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from mae_lib.errors import StudyError
from mae_lib.evaluation.evaluate import evaluate
from mae_lib.images.store import Store, build_store
from mae_lib.study.definition import Cell, Data, Evaluation, Recipe, Source, Task
from mae_lib.study.paths import root
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
        raise StudyError(f"cell: needs --images with the tars of {STUDY}")
    rows, found = committed(STUDY)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        store = build_store(found.data, Path(folder) / "store", data_root=Path(images))
        packed_s = time.perf_counter() - started
        yield _compare(found, rows, store, Path(folder) / "cell")
        yield {"cell": {"packed_s": packed_s}}


def committed(study: str) -> tuple[pd.DataFrame, Cell]:
    """Return the rows of a committed study's largest cell, and the cell itself.

    Settings come from the committed manifest and the study's file; the digest proves them.
    """
    import yaml

    runs = pd.read_csv(root() / "results" / study / "runs.csv")
    runs = runs.sort_values(["params_total", "resolution", "images", "seed"], kind="stable")
    last = runs.iloc[-1]
    rows = runs[runs.cell == last.cell]
    recipe = yaml.safe_load((root() / "studies" / f"{study}.yaml").read_text())
    packed = json.loads((root() / "results" / study / "manifest.json").read_text())["recipe"]
    found = Cell(
        str(last.model),
        int(last.images),
        int(last.resolution),
        int(last.patch_size),
        float(last.mask_ratio),
        int(last.seed),
        Recipe(**recipe.get("recipe", {})),
        Evaluation(**recipe.get("evaluation", {})),
        _data(packed),
    )
    if found.digest != last.digest:
        raise StudyError(
            f"studies/{study}.yaml: gives cell {found.digest}, results/{study}/runs.csv holds "
            f"{last.digest}; run the study again"
        )
    return rows, found


def _data(settings: dict) -> Data:
    parts = {
        "sources": tuple(Source(**source) for source in settings["sources"]),
        "tasks": tuple(Task(**task) for task in settings["tasks"]),
    }
    return Data(**settings | parts)


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
