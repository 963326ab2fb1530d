"""The images of a source as a list of entries, whatever its layout; and the bytes of any of them.

    entries = list_entries(source, data_root())      # by name; a hostile archive is refused here
    read_entry(data_root(), entries[0])              # from any process, in any order

Nothing is unpacked to disk. A slice of a tar or a member of a zip costs one read; one of a .tar.gz
costs up to 4 MB of unpacking in random order, and nothing more by rising `offset`: sort a block of
entries by (file, offset) before it is read.
"""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mae_lib.errors import StoreError, StudyError
from mae_lib.images.choice import choose
from mae_lib.images.layouts.entry import CIFAR_RECORD, IMAGE, Entry
from mae_lib.images.layouts.reading import read_bytes
from mae_lib.images.layouts.registry import LAYOUTS, WANTS, Layout, find, require_folder
from mae_lib.study.definition import Data, Source, Task, canonical_json
from mae_lib.study.known import LAYOUTS_OF

# Publishers' words for the same thing, so that the default "train" finds "training".
_SAME_SPLIT = {"training": "train", "valid": "val", "validation": "val"}

__all__ = [
    "CIFAR_RECORD",
    "IMAGE",
    "Entry",
    "class_names",
    "decode_raw",
    "list_entries",
    "listing_sha256",
    "locate",
    "read_entry",
    "task_entries",
]


def list_entries(source: Source, root: Path | None) -> list[Entry]:
    """Return the entries of a source's splits in the order of their names.

    Raises: StudyError when it is not found or has no such split; StoreError when it is damaged,
    refused, holds a name twice, or is not the list that `source.listing` pins.
    """
    entries = list(_of_splits(source, root, source.split))
    if source.listing and (got := listing_sha256(entries)) != source.listing:
        raise StoreError(
            f"{source.name}: listing: not the images that the study names, got {got}, "
            f"wanted {source.listing}; fetch the set again, or correct `listing` in a copy"
        )
    return entries


def task_entries(data: Data, task: Task, root: Path | None) -> tuple[list[Entry], list[Entry]]:
    """Return the labelled entries of a task's training and test parts, in the order of names.

    Raises: as `list_entries`; StudyError when an image has no label.
    """
    named = {source.name: source for source in data.sources}
    if task.source is not None and task.source not in named:
        raise StudyError(f"data.tasks.{task.name}.source: no such source, got {task.source!r}")
    of = named.get(task.source, task)
    parts = []
    for split, most in ((task.train_split, task.train_images), (task.test_split, task.test_images)):
        entries = list(_of_splits(of, root, split))
        if unlabelled := [entry.name for entry in entries if entry.label < 0]:
            raise StudyError(
                f"data.tasks.{task.name}: split {split}: {len(unlabelled):,} images have no label, "
                f"{unlabelled[0]} first"
            )
        if most is not None and most < len(entries):
            chosen, _ = choose(task.name, entries, most, data.seed)
            entries = [entries[index] for index in chosen]
        parts.append(entries)
    return parts[0], parts[1]


def read_entry(root: Path | None, entry: Entry) -> bytes:
    """Return an entry's bytes: an encoded image, or a CIFAR record (see `decode_raw`).

    Raises: StoreError when they are missing, cut or changed.
    """
    return read_bytes((root or Path()) / entry.file, entry, entry.name)


def decode_raw(record: bytes) -> np.ndarray:
    """Turn a CIFAR record of 3,073 bytes (label, red, green, blue planes) into uint8 `[32, 32, 3]`.

    Raises: StoreError when it has another length.
    """
    if len(record) != 1 + 3 * 32 * 32:
        raise StoreError(f"a CIFAR record has 3,073 bytes, got {len(record):,}")
    planes = np.frombuffer(record, np.uint8, offset=1).reshape(3, 32, 32)
    return np.ascontiguousarray(planes.transpose(1, 2, 0))


def locate(source: Source | Task, root: Path | None) -> tuple[Layout, Path]:
    """Find a source's layout and place: by its `path`, else by its name under MAE_DATA.

    Raises: StudyError when there is none, or more than one.
    """
    names = LAYOUTS_OF.get(source.name, (source.name,))
    if source.layout is not None:
        names = (source.layout,)
    if source.path is not None:
        place = Path(source.path)
        place = place if place.is_absolute() else require_folder(root) / place
        if not place.exists():
            raise StudyError(f"{source.name}.path: {place}: no such folder or archive")
        known = [name for name in names if name in LAYOUTS] or list(LAYOUTS)
        layout = next((LAYOUTS[n] for n in known if LAYOUTS[n].matches(place)), None)
        if layout is None:
            raise StudyError(
                f"{source.name}.path: {place}: has not the layout {' or '.join(known)}, which is "
                + "; or ".join(WANTS[name] for name in known)
            )
        return layout, place
    if unknown := [name for name in names if name not in LAYOUTS]:
        raise StudyError(f"{source.name}: layout: unknown, got {unknown[0]!r}; give layout or path")
    found = find(require_folder(root), names)
    if not found:
        raise StudyError(
            f"MAE_DATA: {root}: no {' or '.join(names)} for {source.name}; "
            f"give its layout and path, or see `mae data fetch {source.name}`"
        )
    if len(found) > 1:
        where = ", ".join(f"{layout.name} at {place}" for layout, place in found)
        raise StudyError(f"{source.name}: found more than once, {where}; give its path")
    return found[0]


def class_names(source: Source | Task, root: Path | None) -> tuple[str, ...]:
    """Return the names of a source's labels in order, () where its layout has none."""
    layout, place = locate(source, root)
    return layout.classes(place)


def listing_sha256(entries: Sequence[Entry]) -> str:
    """Hash the names, labels and splits of a list of entries: the same wherever they lie."""
    whole = hashlib.sha256()
    for entry in entries:
        whole.update(canonical_json([entry.name, entry.label, entry.split]).encode() + b"\n")
    return whole.hexdigest()


def _of_splits(source: Source | Task, root: Path | None, split: str) -> Iterator[Entry]:
    layout, place = locate(source, root)
    wanted = {_SAME_SPLIT.get(name, name): name for name in split.split("+")}
    entries = sorted(_placed(layout.read(place), root), key=lambda entry: entry.name)
    for one, two in itertools.pairwise(entries):
        if one.name == two.name:
            raise StoreError(f"{place}: {one.name}: is there twice, in {one.file} and {two.file}")
    there = sorted({entry.split for entry in entries})
    known = {_SAME_SPLIT.get(name, name) for name in there}
    if missing := [given for name, given in wanted.items() if name not in known]:
        raise StudyError(
            f"{source.name}: split: {place} has no {missing[0]!r}, only {', '.join(there) or 'none'}"
        )
    return (entry for entry in entries if _SAME_SPLIT.get(entry.split, entry.split) in wanted)


def _placed(entries: Iterator[Entry], root: Path | None) -> Iterator[Entry]:
    """Name files relative to the data root; a million entries of one tar share one name."""
    above = "" if root is None else str(root.absolute()) + "/"
    last, short = "", ""
    for entry in entries:
        if entry.file != last:
            last = entry.file
            short = str(Path(last).absolute())
            short = short.removeprefix(above) if above else short
        yield replace(entry, file=short)
