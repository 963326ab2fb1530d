"""Images of the mixture that evaluation shows too: found block by block, before they enter."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mae_lib.images.blocks import Block, Making, name_of, part_path
from mae_lib.images.duplicates import PHOTOGRAPHS, Near, Prints, pairs_across
from mae_lib.images.pack import Filled, Judge


def twin_judge(
    making: Making, tasks: Mapping[tuple[str, str], Filled], near: Near = PHOTOGRAPHS
) -> Judge:
    """Return a judge that names the twins among a block's images in any task's test part."""
    tests = {
        task: _prints_of(making, filled)
        for (task, part), filled in tasks.items()
        if part == "test" and len(filled.array)
    }

    def judge(block: Block, facts: dict) -> dict[int, str]:
        mine = _prints(making.folder, block, facts)
        reasons: dict[int, str] = {}
        for task, test in tests.items():
            for pair in pairs_across(mine, test, near).itertuples():
                how = f"the same {pair.kind}"
                if pair.kind == "near":
                    how = f"pHash {pair.phash_bits} bits apart, edges {pair.edge_correlation:.2f}"
                line = f"{pair.name_1}: {task} tests on {pair.name_2}, {how}"
                reasons.setdefault(pair.row_1, line)
        return reasons

    return judge


def _prints_of(making: Making, filled: Filled) -> Prints:
    parts = [_prints(making.folder, block, facts) for block, facts in filled.blocks(making.folder)]
    whole = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("source", "name", "sha256", "encoded", "phash", "dhash")
    }
    images = np.load(part_path(making.folder, filled.array.file), mmap_mode="r")
    return Prints(filled.array.file, images, **whole)


def _prints(folder: Path, block: Block, facts: dict) -> Prints:
    """Return what is known of a block's images; those set aside have no hashes to be found by."""
    images = np.load(part_path(folder, block.file), mmap_mode="r")
    rows = block.rows
    mine = images[rows.start : rows.stop] if isinstance(rows, range) else images[list(rows)]
    gone = [int(position) for position in facts["set_aside"]]
    sha256, encoded = np.array(facts["sha256"], object), np.array(facts["encoded"], object)
    sha256[gone] = ""
    encoded[gone] = ""
    pairs = [(run.source, name_of(run.source, item)) for run in block.runs for item in run.items]
    return Prints(
        array=block.file,
        images=mine,
        source=np.array([source for source, _ in pairs], object),
        name=np.array([name for _, name in pairs], object),
        sha256=sha256,
        encoded=encoded,
        phash=np.array(facts["phash"], np.uint64),
        dhash=np.array(facts["dhash"], np.uint64),
    )
