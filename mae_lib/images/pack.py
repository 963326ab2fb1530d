"""Fill the arrays of a store block by block, so that a build that was killed goes on.

Every row has one item from the start, so the bytes depend neither on the number of processes nor on
their order. An image that must be set aside leaves a hole, and the holes of a round are filled, in
order of rows, by the next spare items of the same source.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from mae_lib.errors import StoreError, StudyError
from mae_lib.images.blocks import (
    JOURNAL,
    Block,
    Making,
    Run,
    block_rows,
    ensure_block,
    name_of,
    part_path,
    read_entry_of,
    sized,
)
from mae_lib.images.pool import run_all, workers_for
from mae_lib.records.atomic import not_written
from mae_lib.records.faults import tick

Progress = Callable[[int, int], None]
# A block and its facts in; out, why rows of it may not stay: {position: reason}.
Judge = Callable[[Block, dict], dict[int, str]]


class SparesUsedUp(StudyError):
    """A source has no image left to stand in for those set aside, which `set_aside` lists."""

    def __init__(self, message: str, set_aside: list["SetAside"]):
        super().__init__(message)
        self.set_aside = set_aside


@dataclass(frozen=True)
class Array:
    """An array to fill: what each row is made from, and what stands in for images set aside.

    Without `spare` (the labelled images of a task) the rows behind such an image move up.
    """

    file: str
    runs: tuple[Run, ...]
    spare: Mapping[str, Sequence] | None = None

    def __len__(self) -> int:
        return sum(len(run.items) for run in self.runs)


@dataclass(frozen=True)
class SetAside:
    """An image that did not enter: its source, its name, and why.

    `kind` is `damaged` (it cannot be decoded) or `twin` (evaluation shows the same picture).
    """

    array: str
    source: str
    name: str
    kind: str
    reason: str


@dataclass
class Filled:
    """An array whose rows are all made: its blocks, and the rows that spare items fill."""

    array: Array
    key: str
    size: int
    made: int = 0
    reused: int = 0
    replaced: dict[int, tuple[str, object, dict]] = field(default_factory=dict)
    set_aside: list[SetAside] = field(default_factory=list)

    def blocks(self, folder: Path) -> Iterator[tuple[Block, dict]]:
        """Yield each block of the first round with its facts, replaced rows laid over."""
        for block in _blocks(self.array, self.key, self.size):
            facts = read_entry_of(folder, block)
            if facts is None:
                raise StoreError(f"{folder / JOURNAL / block.key}.json: changed during the build")
            items = [item for run in block.runs for item in run.items]
            for position, row in enumerate(block.rows):
                if row in self.replaced:
                    _, items[position], theirs = self.replaced[row]
                    _overlay(facts, position, theirs)
            yield replace(block, runs=_regroup(block, items)), facts


def fill(
    making: Making,
    array: Array,
    *,
    workers: int | None,
    judge: Judge | None = None,
    progress: Progress | None = None,
    generation: int = 0,
) -> Filled:
    """Fill one array and return what its rows hold; rows that an earlier build made are kept.

    `generation` tells apart plans of one array within a build.
    Raises: SparesUsedUp when a source has no spare image left; what `ensure_block` raises.
    """
    aside: list[SetAside] = []
    while True:
        key = f"{array.file.removesuffix('.npy').replace('/', '_')}-{generation}"
        filled = Filled(array, key, making.size, set_aside=aside)
        create(making, array)
        holes = _round(making, filled, _blocks(array, key, making.size), workers, judge, progress)
        _require_few(making, filled)
        if array.spare is None and holes:
            aside = filled.set_aside
            array, generation = _without(array, set(holes)), generation + 1
            continue
        spare = {name: iter(items) for name, items in (array.spare or {}).items()}
        round_ = 0
        while holes:
            round_ += 1
            blocks = _fillers(array, filled, holes, spare, f"{key}-spare{round_}", making.size)
            holes = _round(making, filled, iter(blocks), workers, judge, None)
            _require_few(making, filled)
        return filled


def create(making: Making, array: Array) -> None:
    """Lay out an array and its smaller copies under their temporary names, disk space taken.

    Raises: MaeError in one line when the disk is full.
    """
    sides = [(array.file, making.size)]
    sides += [(sized(array.file, side), side) for side in making.smaller]
    for file, side in sides:
        path, final = part_path(making.folder, file), making.folder / file
        if final.exists():
            os.replace(final, path)
        shape = (len(array), side, side, 3)
        try:
            if path.exists() and np.load(path, mmap_mode="r").shape == shape:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            tick()
            np.lib.format.open_memmap(path, "w+", np.uint8, shape).flush()
            with open(path, "r+b") as opened:
                os.posix_fallocate(opened.fileno(), 0, os.path.getsize(path))
        except OSError as error:
            raise not_written(path, error) from error
        except (ValueError, EOFError):
            path.unlink()
            create(making, array)


def finish(making: Making, array: Array) -> None:
    """Give an array and its smaller copies their final names, once they are on the disk.

    Raises: MaeError in one line when the disk is full.
    """
    for file in [array.file, *(sized(array.file, side) for side in making.smaller)]:
        path = part_path(making.folder, file)
        try:
            tick()
            with open(path, "r+b") as opened:
                os.fsync(opened.fileno())
            os.replace(path, making.folder / file)
        except OSError as error:
            raise not_written(path, error) from error


def clear(folder: Path) -> None:
    """Remove the journal of a build that is complete."""
    shutil.rmtree(folder / JOURNAL, ignore_errors=True)


def _blocks(array: Array, key: str, size: int) -> Iterator[Block]:
    """Cut an array into blocks of consecutive rows."""
    rows, total = block_rows(size), len(array)
    bounds = np.cumsum([0, *(len(run.items) for run in array.runs)])
    for number, start in enumerate(range(0, total, rows)):
        end = min(start + rows, total)
        runs = []
        for run, first in zip(array.runs, bounds, strict=False):
            low, high = max(start - first, 0), min(end - first, len(run.items))
            if low < high:
                runs.append(Run(run.source, run.items[low:high]))
        yield Block(f"{key}-{number:06d}", array.file, range(start, end), tuple(runs))


def _round(making, filled: Filled, blocks, workers, judge, progress) -> list[int]:
    """Make blocks; return the rows that stay holes, in order, noting why in `filled`."""
    known: dict[str, Block] = {}
    done = 0

    def noted() -> Iterator[Block]:
        for block in blocks:
            known[block.key] = block
            yield block

    count = workers_for(-(-len(filled.array) // block_rows(making.size)), workers)
    found = []
    for result in run_all(partial(ensure_block, making), noted(), workers=count):
        block = known.pop(result.block)
        filled.made += not result.reused
        filled.reused += result.reused
        done += result.rows
        if progress:
            progress(done, len(filled.array))
        spare = block.key.startswith(f"{filled.key}-spare")
        if result.set_aside or judge or spare:
            found.append((block, read_entry_of(making.folder, block), spare))
    holes = {}
    for block, facts, spare in sorted(found, key=lambda entry: entry[0].key):
        reasons = {int(k): ("damaged", v) for k, v in facts["set_aside"].items()}
        if judge:
            twins = {k: ("twin", v) for k, v in judge(block, facts).items()}
            reasons = twins | reasons
        sources = [(run.source, item) for run in block.runs for item in run.items]
        for position, row in enumerate(block.rows):
            source, item = sources[position]
            if position in reasons:
                holes[row] = SetAside(block.file, source, name_of(source, item), *reasons[position])
            elif spare:
                theirs = {k: v[position] for k, v in facts.items() if isinstance(v, list)}
                theirs["smaller"] = {s: v[position] for s, v in facts["smaller"].items()}
                filled.replaced[row] = (source, item, theirs)
    filled.set_aside += [holes[row] for row in sorted(holes)]
    return sorted(holes)


def _require_few(making: Making, filled: Filled) -> None:
    """Refuse to go on when more than the stated share of the images is damaged."""
    damaged = [aside for aside in filled.set_aside if aside.kind == "damaged"]
    if len(damaged) > making.limit * len(filled.array):
        raise StoreError(
            f"{damaged[0].reason} (+{len(damaged) - 1} more of {len(filled.array):,}); "
            f"data.set_aside_limit allows a share of {making.limit:g}: repair the source, or raise it"
        )


def _fillers(array: Array, filled: Filled, holes, spare, key: str, size: int) -> list[Block]:
    """Give each hole the next spare item of its source, and cut them into blocks."""
    bounds = np.cumsum([len(run.items) for run in array.runs])
    pairs = []
    for row in holes:
        source = array.runs[int(np.searchsorted(bounds, row, side="right"))].source
        item = next(spare[source], None)
        if item is None:
            gone = [a for a in filled.set_aside if a.source == source]
            raise SparesUsedUp(
                f"data.sources.{source}: {len(gone):,} images were set aside and none is left to "
                f"stand in, {gone[0].name} first ({gone[0].reason}); lower data.total",
                filled.set_aside,
            )
        pairs.append((row, source, item))
    blocks, step = [], block_rows(size)
    for number, start in enumerate(range(0, len(pairs), step)):
        part = pairs[start : start + step]
        runs = tuple(Run(source, (item,)) for _, source, item in part)
        rows = tuple(row for row, _, _ in part)
        blocks.append(Block(f"{key}-{number:06d}", array.file, rows, runs))
    return blocks


def _without(array: Array, holes: set[int]) -> Array:
    runs, row = [], 0
    for run in array.runs:
        kept = [item for i, item in enumerate(run.items) if row + i not in holes]
        row += len(run.items)
        runs.append(Run(run.source, kept))
    return replace(array, runs=tuple(runs))


def _overlay(facts: dict, position: int, theirs: dict) -> None:
    for name, value in theirs.items():
        if name == "smaller":
            for side, sha256 in value.items():
                facts["smaller"][side][position] = sha256
        else:
            facts[name][position] = value


def _regroup(block: Block, items: list) -> tuple[Run, ...]:
    """Put the items that really fill a block back into its runs."""
    runs, start = [], 0
    for run in block.runs:
        runs.append(Run(run.source, items[start : start + len(run.items)]))
        start += len(run.items)
    return tuple(runs)
