"""Which images of a source enter a study: the first of a keyed order of their names.

No image is decoded or even read to be chosen, and neither the order of files nor the machine nor
the number of workers has a say. A smaller choice is part of every larger one.
"""

from collections.abc import Sequence

import numpy as np

from mae_lib.errors import StudyError
from mae_lib.images.layouts.entry import Entry
from mae_lib.images.subsets import keyed, name_key


def choose(
    source: str, entries: Sequence[Entry], count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the chosen entries' indices and the number of each repeat (0 the first): int64 `[count]`.

    Ordered by index, then repeat. More than there are means every image as often as the others
    within one: each ceil or floor of count / n times, the first of the keyed order once more.
    Raises: StudyError for a negative count, or any of no entries.
    """
    if count < 0 or (count and not entries):
        raise StudyError(f"{source}: {count:,} images of {len(entries):,} cannot be chosen")
    order = keyed_order(source, entries, seed)
    rounds = -(-count // len(entries)) if entries else 0
    indices = np.tile(order, rounds)[:count]
    repeats = np.repeat(np.arange(rounds), len(entries))[:count]
    sequence = np.lexsort((repeats, indices))
    return indices[sequence], repeats[sequence].astype(np.int64)


def keyed_order(source: str, entries: Sequence[Entry], seed: int) -> np.ndarray:
    """Return all entries' indices in the order in which they are chosen: int64 `[n]`."""
    keys = keyed((name_key(source, entry.name) for entry in entries), seed)
    order = np.argsort(keys, kind="stable")
    # 56 bits of hash are equal once in a long time; the name then decides, never the file.
    if (np.diff(keys[order]) == 0).any():
        order = np.lexsort((np.array([entry.name for entry in entries]), keys))
    return order.astype(np.int64)
