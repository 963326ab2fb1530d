"""What each kind of data puts into which row of a store."""

from collections.abc import Callable, Collection
from pathlib import Path

from mae_lib.images.blocks import Making, Run
from mae_lib.images.mixture import require_feasible
from mae_lib.images.pack import Array
from mae_lib.images.plans import Plan, library_versions, task_file
from mae_lib.images.procedural import CLASSES
from mae_lib.images.sources_plan import sources_plan
from mae_lib.images.tars import tars_plan
from mae_lib.study.definition import Data

# Items of the tasks start here, far beyond any pretraining item.
_TRAIN_ITEMS, _TEST_ITEMS = 1 << 32, 1 << 33


def procedural_plan(
    data: Data,
    making: Making,
    data_root: Path | None,
    workers: int | None,
    excluded: Collection[tuple[str, str]] = (),
) -> Plan:
    """Plan images drawn by code: item numbers of each family."""
    available = {source.name: data.total for source in data.sources}
    counts = require_feasible(data.total, data.sources, available)
    runs = tuple(Run(name, range(count)) for name, count in counts.items())
    tasks = {}
    for task in data.tasks:
        for part, first, count in (
            ("train", _TRAIN_ITEMS, task.train_images),
            ("test", _TEST_ITEMS, task.test_images),
        ):
            run = Run("objects", range(first, first + count))
            tasks[task.name, part] = Array(task_file(task.name, part), (run,))
    transform = f"drawn by code, {len(CLASSES)} classes of objects"
    return Plan(making, Array("images.npy", runs), tasks, transform, library_versions())


PLANS: dict[str, Callable[..., Plan]] = {
    "procedural": procedural_plan,
    "tars": tars_plan,
    "sources": sources_plan,
}
