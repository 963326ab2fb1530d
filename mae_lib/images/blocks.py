"""One block of rows of a store's array: made, written, hashed, and entered in a journal.

A block is the unit of work of the pool and of what survives a kill: its pixels lie in the array
before its journal entry is there, and the entry holds the sha256 of every image, so that a build
that goes on can tell a finished block from a torn one.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mae_lib.errors import RecordError, StoreError
from mae_lib.images.procedural import draw
from mae_lib.records.atomic import not_written
from mae_lib.records.faults import tick
from mae_lib.records.sealed import read_sealed, seal_of
from mae_lib.study.definition import FORMAT

BLOCK_ROWS = 1024
# Above 64 px a block has fewer rows, so that a worker's memory does not grow with the side.
BLOCK_BYTES = 16 * 2**20
# What of a block is held at once: hashed and written while it is still in the processor's cache.
SLAB_BYTES = 2 * 2**20
# The header of every array here; np.lib.format pads a short one to it.
HEADER_BYTES = 128
JOURNAL = ".journal"


@dataclass(frozen=True)
class Run:
    """Images of one source: item numbers that are drawn, or entries that are read and decoded."""

    source: str
    items: Sequence


@dataclass(frozen=True)
class Block:
    """Rows of one array and what each is made from, in the same order."""

    key: str
    file: str
    rows: Sequence[int]
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Making:
    """What all blocks of a build share; small, because it travels with each of them.

    `size` is the stored side and `smaller` are sides made from it. `reader` reads and decodes an
    entry (None: images are drawn). `perceptual` adds perceptual hashes. `limit` is the share of
    images that may be set aside because they cannot be decoded; at 0 the first one ends the build.
    """

    folder: Path
    size: int
    seed: int
    smaller: tuple[int, ...] = ()
    reader: object = None
    perceptual: bool = False
    limit: float = 0.0

    @property
    def modules(self) -> tuple[str, ...]:
        """Name the modules that workers need for it, for `pool` to load once for all of them."""
        needed = [__name__, *(self.reader.modules if self.reader else ())]
        if self.smaller:
            needed.append("mae_lib.images.decode")
        if self.perceptual:
            needed += ["mae_lib.images.perceptual", "imagehash"]
        if "torch" in needed:
            # Where it cannot be had, an ImportError that passes in silence.
            needed.append("mae_lib.kernels.resize_native")
        return tuple(needed)


@dataclass(frozen=True)
class Done:
    """A block that lies in its array; `reused` when an earlier build had made it."""

    block: str
    rows: int
    reused: bool
    set_aside: int


def name_of(source: str, item: object) -> str:
    """Return the publisher's name of an image, or the family and number of a drawn one."""
    return f"{source}-{item:06d}" if isinstance(item, int | np.integer) else item.name


def block_rows(size: int) -> int:
    """Return the rows of a block of images of `size` pixels a side."""
    return max(1, min(BLOCK_ROWS, BLOCK_BYTES // (size * size * 3)))


def part_path(folder: Path, file: str) -> Path:
    """Return the name of an array while it is being filled."""
    path = folder / file
    return path.with_name(path.name + ".part")


def sized(file: str, side: int) -> str:
    """Return the name of the same images at a smaller side: `images.npy`, 32 -> `images-32.npy`."""
    return f"{file.removesuffix('.npy')}-{side}.npy"


def journal_path(folder: Path, key: str) -> Path:
    """Return the file of a block's journal entry."""
    return folder / JOURNAL / f"{key}.json"


def ensure_block(making: Making, block: Block) -> Done:
    """Make a block, or find that it lies whole in its array.

    Raises: StoreError for an image that cannot be decoded, unless such images are set aside.
    """
    entry = read_entry_of(making.folder, block)
    if entry is not None and _is_whole(making, block, entry):
        return Done(block.key, len(block.rows), True, len(entry["set_aside"]))
    facts = _make(making, block)
    _write_entry(journal_path(making.folder, block.key), facts)
    return Done(block.key, len(block.rows), False, len(facts["set_aside"]))


def read_entry_of(folder: Path, block: Block) -> dict | None:
    """Return a block's journal entry, or None where there is none that can be believed."""
    try:
        entry = read_sealed(journal_path(folder, block.key))
    except RecordError:
        return None
    return entry if len(entry["sha256"]) == len(block.rows) else None


def image_hashes(images: np.ndarray) -> list[str]:
    """Return the sha256 of each image's pixels."""
    return [hashlib.sha256(image).hexdigest() for image in np.ascontiguousarray(images)]


def block_hash(hashes: Sequence[str]) -> str:
    """Return the sha256 over the hashes of a block's images."""
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def shrink(images: np.ndarray, side: int) -> np.ndarray:
    """Return stored images at a smaller side, by the one antialiased filter of `decode`."""
    from mae_lib.images.decode import resize_square

    return np.stack([resize_square(image, side) for image in images])


def read_rows(path: Path, side: int, rows: Sequence[int]) -> np.ndarray:
    """Read rows of an array into memory of its own: uint8 `[n, side, side, 3]`.

    Raises: StoreError when the file ends before them.
    """
    stride = side * side * 3
    images = np.empty((len(rows), side, side, 3), np.uint8)
    with open(path, "rb") as file:
        for slot, (first, count) in _stretches(rows):
            file.seek(HEADER_BYTES + first * stride)
            if file.readinto(images[slot : slot + count].reshape(-1)) != count * stride:
                raise StoreError(f"{path}: cut, it ends before row {first + count}")
    return images


def _is_whole(making: Making, block: Block, entry: dict) -> bool:
    files = [(block.file, making.size, entry["sha256"])]
    smaller = entry["smaller"]
    files += [(sized(block.file, s), s, smaller.get(str(s), [])) for s in making.smaller]
    for file, side, hashes in files:
        try:
            images = read_rows(part_path(making.folder, file), side, block.rows)
        except (StoreError, OSError):
            return False
        if image_hashes(images) != hashes:
            return False
    return True


def _make(making: Making, block: Block) -> dict:
    """Put a block's pixels into its arrays, and return what the index will say of each image.

    Written through files and not a mapping: a full disk is then an error and no signal. Nothing is
    forced to the disk here: a build that goes on hashes what it finds.
    """
    facts: dict = {"label": [], "width": [], "height": [], "encoded": [], "set_aside": {}}
    facts |= {"sha256": [], "smaller": {str(side): [] for side in making.smaller}}
    if making.perceptual:
        facts |= {"phash": [], "dhash": []}
    with contextlib.ExitStack() as stack:
        whole = stack.enter_context(open(part_path(making.folder, block.file), "r+b"))
        smaller = [
            (
                side,
                stack.enter_context(open(part_path(making.folder, sized(block.file, side)), "r+b")),
            )
            for side in making.smaller
        ]
        done = 0
        slabs = _drawn if making.reader is None else _decoded
        for images in slabs(making, block, facts):
            rows = block.rows[done : done + len(images)]
            done += len(images)
            facts["sha256"] += image_hashes(images)
            _write_rows(whole, making.size, rows, images)
            for side, file in smaller:
                shrunk = shrink(images, side)
                facts["smaller"][str(side)] += image_hashes(shrunk)
                _write_rows(file, side, rows, shrunk)
            if making.perceptual:
                from mae_lib.images.perceptual import perceptual_hashes

                for name, hashes in zip(("phash", "dhash"), perceptual_hashes(images), strict=True):
                    facts[name] += hashes
    return facts


def _drawn(making: Making, block: Block, facts: dict) -> Iterator[np.ndarray]:
    """Yield the drawn pixels of each of a block's runs."""
    for run in block.runs:
        items = np.asarray(run.items)
        images, labels = draw(run.source, items, size=making.size, seed=making.seed)
        native = making.size // 2 if run.source == "tiny" else making.size
        sides = [native] * len(items)
        for name, values in (("label", labels.tolist()), ("width", sides), ("height", sides)):
            facts[name] += values
        yield images


def _decoded(making: Making, block: Block, facts: dict) -> Iterator[np.ndarray]:
    """Yield the decoded pixels of a block a slab at a time, in memory that the next one takes."""
    entries = [entry for run in block.runs for entry in run.items]
    rows = max(1, SLAB_BYTES // (making.size * making.size * 3))
    slab = np.empty((min(rows, len(entries)), making.size, making.size, 3), np.uint8)
    for start in range(0, len(entries), rows):
        part = entries[start : start + rows]
        for slot, entry in enumerate(part):
            _read_into(slab[slot], start + slot, entry, making, facts)
        yield slab[: len(part)]


def _read_into(out: np.ndarray, position: int, entry, making: Making, facts: dict) -> None:
    try:
        _, native, encoded = making.reader.read(entry, making.size, out=out)
    except StoreError as error:
        # What cannot be had now is not damaged: were it set aside, a bad minute of a disk
        # would decide which images a data set holds.
        if making.limit == 0 or error.exit_code != StoreError.exit_code:
            raise
        out[...] = 0
        # Without this machine's folder: the reason is under the seal of the manifest.
        facts["set_aside"][str(position)] = str(error).removeprefix(f"{making.reader.root}/")
        native, encoded = (0, 0), ""
    facts["label"].append(entry.label)
    facts["width"].append(native[0])
    facts["height"].append(native[1])
    facts["encoded"].append(encoded)


def _write_rows(file: BinaryIO, side: int, rows: Sequence[int], images: np.ndarray) -> None:
    stride = side * side * 3
    for slot, (first, count) in _stretches(rows):
        file.seek(HEADER_BYTES + first * stride)
        file.write(memoryview(images[slot : slot + count]).cast("B"))


def _write_entry(path: Path, facts: dict) -> None:
    """Enter a block in the journal by rename, not forced to the disk: its seal tells a torn one."""
    body = {"format": FORMAT, **facts}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        tick()
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({**body, "seal": seal_of(body)}), encoding="utf-8")
        tick()
        os.replace(temporary, path)
        tick()
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise not_written(path, error) from error


def _stretches(rows: Sequence[int]):
    """Yield (position, (first row, count)) of each stretch of rows that follow one another."""
    if isinstance(rows, range):
        yield 0, (rows.start, len(rows))
        return
    position = 0
    while position < len(rows):
        end = position + 1
        while end < len(rows) and rows[end] == rows[end - 1] + 1:
            end += 1
        yield position, (rows[position], end - position)
        position = end
