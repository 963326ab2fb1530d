"""A plan: what goes into which row of a store, before a pixel is made."""

import hashlib
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass, field

from mae_lib.images.blocks import Making
from mae_lib.images.pack import Array
from mae_lib.study.definition import Data, settings_of

LIBRARIES = ("numpy", "pandas", "pillow", "pyarrow")
PARTS = ("train", "test")


@dataclass(frozen=True)
class Plan:
    """Every array of a store and how its rows are made.

    `tasks` maps (task, part) to its array. `notes` goes into the manifest as it is.
    """

    making: Making
    images: Array
    tasks: Mapping[tuple[str, str], Array]
    transform: str
    versions: Mapping[str, str]
    notes: Mapping[str, object] = field(default_factory=dict)

    def digest(self, data: Data) -> str:
        """Return a hash over all that decides the bytes: a build goes on only on the same one."""
        found = hashlib.sha256(repr((settings_of(data), self.transform, self.versions)).encode())
        for array in (self.images, *self.tasks.values()):
            found.update(array.file.encode())
            for run in array.runs:
                found.update(f"\0{run.source}\0".encode())
                _feed(found, run.items)
            for name, items in (array.spare or {}).items():
                found.update(f"\1{name}\0".encode())
                _feed(found, items)
        return found.hexdigest()


def task_file(task: str, part: str) -> str:
    """Return the array of a task's images."""
    return f"tasks/{task}-{part}.npy"


def labels_file(task: str, part: str) -> str:
    """Return the array of a task's labels."""
    return f"tasks/{task}-{part}-labels.npy"


def library_versions(*more: str) -> dict[str, str]:
    """Return the versions of the libraries that make a store's bytes."""
    return {name: importlib.metadata.version(name) for name in sorted((*LIBRARIES, *more))}


def _feed(found, items) -> None:
    if isinstance(items, range):
        found.update(repr(items).encode())
        return
    for item in items:
        found.update(f"{item.file}\0{item.name}\0{item.offset}\0{item.size}\n".encode())
