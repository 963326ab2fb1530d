"""Kind "sources": publishers' own layouts, whose images enter by the keyed order of their names.

Nothing is decoded to be chosen. Images behind those chosen stand ready, in the same order, for what
cannot be decoded and for what evaluation shows too.
"""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from mae_lib.images.blocks import Making, Run
from mae_lib.images.choice import choose, keyed_order
from mae_lib.images.entries import Entry, list_entries, task_entries
from mae_lib.images.mixture import settle
from mae_lib.images.pack import Array
from mae_lib.images.plans import PARTS, Plan, library_versions, task_file
from mae_lib.images.reader import Reader, require_decoder
from mae_lib.study.definition import Data


def sources_plan(
    data: Data,
    making: Making,
    data_root: Path | None,
    workers: int | None,
    excluded: Collection[tuple[str, str]] = (),
) -> Plan:
    """Plan a mixture of publishers' layouts; `excluded` are (source, name) that may not enter.

    Raises: StudyError for sources that are missing or have too few images; StoreError for damaged
    or hostile archives.
    """
    decoder = require_decoder(data.decoder)
    making = replace(making, reader=Reader(data_root, data.decoder))
    listed = {}
    for source in data.sources:
        entries = list_entries(source, data_root)
        listed[source.name] = [e for e in entries if (source.name, e.name) not in excluded]
    available = {name: len(entries) for name, entries in listed.items()}
    mixture = settle(data.total, data.sources, available, data.shortfall)
    runs, spare = [], {}
    for name, count in mixture.counts.items():
        entries = listed[name]
        indices, repeats = choose(name, entries, count, data.seed)
        pairs = zip(indices.tolist(), repeats.tolist(), strict=True)
        chosen = [_named(entries[i], k) for i, k in pairs]
        runs.append(Run(name, chosen))
        spare[name] = [entries[i] for i in keyed_order(name, entries, data.seed)[count:]]
    tasks = {}
    for task in data.tasks:
        for part, entries in zip(PARTS, task_entries(data, task, data_root), strict=True):
            run = Run(task.source or task.name, entries)
            tasks[task.name, part] = Array(task_file(task.name, part), (run,))
    notes = {
        "mixture": {
            "asked": mixture.asked,
            "total": mixture.total,
            "available": available,
            "repeats": {p.source: p.repeats for p in mixture.parts if p.repeats},
        }
    }
    images = Array("images.npy", tuple(runs), spare)
    versions = library_versions(*decoder.packages)
    return Plan(making, images, tasks, decoder.transform, versions, notes)


def _named(entry: Entry, repeat: int) -> Entry:
    """Give a repeated image a name of its own, the text by which its repeat is chosen."""
    return replace(entry, name=f"{entry.name}#{repeat}") if repeat else entry
