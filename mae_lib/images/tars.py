"""Kind "tars": named WebDataset tars, whose images enter by the hash of their pixels.

Which images a source gives is decided by what they show, so a source that gives only a part of its
images is decoded once more before, for the hashes alone.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from mae_lib.errors import StoreError, StudyError
from mae_lib.images.blocks import Making, Run, block_rows, image_hashes
from mae_lib.images.layouts import webdataset
from mae_lib.images.layouts.entry import Entry
from mae_lib.images.mixture import require_feasible
from mae_lib.images.pack import Array
from mae_lib.images.plans import PARTS, Plan, library_versions, task_file
from mae_lib.images.pool import run_all, workers_for
from mae_lib.images.reader import Reader, require_decoder
from mae_lib.images.sources import require_file
from mae_lib.images.subsets import family_order
from mae_lib.study.definition import Data, Task


def tars_plan(
    data: Data,
    making: Making,
    data_root: Path | None,
    workers: int | None,
    excluded: Collection[tuple[str, str]] = (),
) -> Plan:
    """Plan a mixture of tars: each checked by its hash, listed, and chosen from by pixels.

    Raises: StudyError for files that are missing or too few images; StoreError for damaged ones.
    """
    decoder = require_decoder(data.decoder)
    # Sizes as the JSONs say them, which published results were made with.
    making = replace(making, reader=Reader(data_root, data.decoder, bounded=False))
    listed = {s.name: _list(require_file(data_root, s.file, s.sha256)) for s in data.sources}
    files = {source.file: listed[source.name] for source in data.sources}
    counts = require_feasible(data.total, data.sources, {n: len(e) for n, e in listed.items()})
    runs, spare = [], {}
    for name, count in counts.items():
        entries = listed[name]
        order = np.arange(len(entries))
        if count < len(entries):
            # The nested order of the seed decides which images enter, not the order in the file.
            hashes = _pixel_hashes(making, entries, workers)
            order = family_order(np.zeros(len(entries), int), hashes, data.seed)
        runs.append(Run(name, [entries[i] for i in np.sort(order[:count])]))
        spare[name] = [entries[i] for i in order[count:]]
    tasks = {}
    for task in data.tasks:
        for part in PARTS:
            file, sha256 = getattr(task, part), getattr(task, f"{part}_sha256")
            if file not in files:
                files[file] = _list(require_file(data_root, file, sha256))
            _require_labels(task, part, file, files[file])
            run = Run(task.name, files[file])
            tasks[task.name, part] = Array(task_file(task.name, part), (run,))
    versions = library_versions(*decoder.packages)
    images = Array("images.npy", tuple(runs), spare)
    return Plan(making, images, tasks, decoder.transform, versions)


def _list(path: Path) -> list[Entry]:
    """List a tar's images in its own order."""
    entries = [replace(e, file=path.name) for e in webdataset.read(path)]
    if not entries:
        raise StoreError(f"{path}: holds no image", exit_code=2)
    return entries


def _require_labels(task: Task, part: str, file: str, entries: Sequence[Entry]) -> None:
    if unlabelled := [entry.name for entry in entries if entry.label < 0]:
        raise StudyError(
            f"data.tasks.{task.name}.{part}: {file}: {len(unlabelled)} images have no label, "
            f"{unlabelled[0]} first"
        )


def _pixel_hashes(making: Making, entries: list[Entry], workers: int | None) -> list[str]:
    """Return the sha256 of every image's pixels; one that cannot be decoded comes last."""
    step = block_rows(making.size)
    parts = [(start, entries[start : start + step]) for start in range(0, len(entries), step)]
    found = run_all(
        partial(_hash_part, making), parts, workers=workers_for(len(parts), workers), what="hashing"
    )
    return [sha256 for _, hashes in sorted(found) for sha256 in hashes]


def _hash_part(making: Making, part: tuple[int, list[Entry]]) -> tuple[int, list[str]]:
    start, entries = part
    return start, [_hash(making, entry) for entry in entries]


def _hash(making: Making, entry: Entry) -> str:
    try:
        image, _, _ = making.reader.read(entry, making.size)
    except StoreError:
        if making.limit == 0:
            raise
        return f"damaged {entry.name}"
    return image_hashes(image[None])[0]
