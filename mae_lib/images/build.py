"""Build a store from its plan: arrays by blocks, then index and labels, the manifest at last."""

import itertools
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from mae_lib.errors import RecordError
from mae_lib.images.blocks import JOURNAL, Making, block_rows, sized
from mae_lib.images.decode import SMALLER
from mae_lib.images.index import seals, write_index, write_origins
from mae_lib.images.kinds import PLANS
from mae_lib.images.pack import Array, Filled, Progress, SetAside, SparesUsedUp, fill, finish
from mae_lib.images.plans import Plan, labels_file
from mae_lib.images.twins import twin_judge
from mae_lib.images.verify import header_hash
from mae_lib.records.atomic import replacing, sha256_of
from mae_lib.records.csv_file import write_csv
from mae_lib.records.sealed import read_sealed, write_sealed
from mae_lib.study.definition import Data, settings_of


def build(
    data: Data,
    folder: Path,
    *,
    data_root: Path | None,
    progress: Progress | None = None,
    workers: int | None = None,
) -> None:
    """Pack everything that a recipe names into `folder`; what an earlier build finished stays.

    Raises: StudyError for images that are missing or too few; StoreError for damaged ones.
    """
    making = Making(
        folder,
        data.size,
        data.seed,
        smaller=data.smaller,
        limit=data.set_aside_limit,
        perceptual=data.twins == "drop",
    )
    plan = PLANS[data.kind](data, making, data_root, workers)
    _begin(plan, data, folder)
    report = _Report(progress, len(plan.images) + sum(map(len, plan.tasks.values())))
    tasks = {}
    for key, array in plan.tasks.items():
        tasks[key] = fill(plan.making, array, workers=workers, progress=report.of(array))
    judge = twin_judge(plan.making, tasks) if data.twins == "drop" else None
    aside: list[SetAside] = []
    for generation in itertools.count():
        try:
            images = fill(
                plan.making,
                plan.images,
                workers=workers,
                judge=judge,
                progress=report.of(plan.images),
                generation=generation,
            )
            break
        except SparesUsedUp as used:
            # What is short is known only now: the mixture is settled again without those images.
            aside += used.set_aside
            if data.shortfall == "error":
                raise
            excluded = {(gone.source, gone.name) for gone in aside}
            plan = PLANS[data.kind](data, making, data_root, workers, excluded)
    images.set_aside[:0] = aside
    _complete(data, plan, images, tasks)


class _Report:
    """Progress of several arrays as one count."""

    def __init__(self, progress: Progress | None, total: int):
        self.progress, self.total, self.before = progress, total, 0

    def of(self, array: Array) -> Progress:
        offset = self.before
        self.before += len(array)

        def report(done: int, _: int) -> None:
            if self.progress:
                self.progress(min(offset + done, self.total), self.total)

        return report


def _begin(plan: Plan, data: Data, folder: Path) -> None:
    """Go on with the build that the journal tells of, or clear away what is of another one."""
    path, digest = folder / JOURNAL / "plan.json", plan.digest(data)
    try:
        known = read_sealed(path)["plan"] == digest
    except RecordError:
        known = False
    if not known:
        shutil.rmtree(folder, ignore_errors=True)
        write_sealed(path, {"plan": digest})


def _complete(data: Data, plan: Plan, images: Filled, tasks: dict) -> None:
    folder = plan.making.folder
    arrays = [images, *tasks.values()]
    counts = write_index(folder, images, plan.transform)
    names = ["index.parquet"]
    if plan.making.reader is not None:
        write_origins(folder, arrays)
        names.append("origins.parquet")
    if aside := [asdict(a) for filled in arrays for a in filled.set_aside]:
        write_csv(folder / "set_aside.csv", pd.DataFrame(aside))
        names.append("set_aside.csv")
    for (task, part), filled in tasks.items():
        _save_labels(folder, labels_file(task, part), filled)
        names.append(labels_file(task, part))
    blocks = {}
    for filled in arrays:
        sealed = seals(folder, filled)
        finish(plan.making, filled.array)
        for side, hashes in sealed.items():
            file = sized(filled.array.file, int(side)) if side else filled.array.file
            names.append(file)
            blocks[file] = {
                "side": int(side) if side else data.size,
                "rows": len(filled.array),
                "block_rows": block_rows(data.size),
                "header": header_hash(folder / file),
                "sha256": hashes,
            }
    write_sealed(
        folder / "manifest.json",
        {
            "digest": data.digest,
            "recipe": settings_of(data),
            "counts": counts,
            "transform": plan.transform,
            "versions": dict(plan.versions),
            "blocks": blocks,
            "files": {name: sha256_of(folder / name) for name in sorted(names)},
            **plan.notes,
        }
        | _counted(aside)
        | ({"smaller": SMALLER} if data.smaller else {}),
    )


def _counted(aside: list[dict]) -> dict:
    """Return how many images were set aside, by kind; nothing where none was."""
    kinds = sorted({row["kind"] for row in aside})
    found = {kind: sum(row["kind"] == kind for row in aside) for kind in kinds}
    return {"set_aside": found} if found else {}


def _save_labels(folder: Path, file: str, filled: Filled) -> None:
    """Write the labels of a task's images: int64 `[n]`."""
    labels = [label for _, facts in filled.blocks(folder) for label in facts["label"]]
    with replacing(folder / file) as temporary, open(temporary, "wb") as file:
        np.save(file, np.array(labels, np.int64))
