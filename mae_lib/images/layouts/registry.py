"""All layouts by name, and where each is found."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from mae_lib.errors import StudyError
from mae_lib.images.layouts import (
    ade20k,
    celeba,
    cifar10,
    imagenet,
    imagenet_tar,
    imagenette,
    labelled,
    tiny_imagenet,
    webdataset,
)
from mae_lib.images.layouts.entry import Entry
from mae_lib.images.layouts.tree import is_archive


@dataclass(frozen=True)
class Layout:
    """A publisher's layout: how it is recognised, read, and what its labels mean.

    `matches` is cheap and says whether a folder or an archive looks like it; `read` yields its
    entries with absolute files; `classes` are the names of its labels in order, () where unknown.
    """

    name: str
    matches: Callable[[Path], bool]
    read: Callable[[Path], Iterator[Entry]]
    classes: Callable[[Path], tuple[str, ...]]


def _layout(module: ModuleType) -> Layout:
    return Layout(module.NAME, module.matches, module.read, module.classes)


# What a place must be to be taken for a layout, said to whoever gave another.
WANTS = {
    "imagenet": "a folder with train/<wnid>/*.JPEG",
    "imagenet-tar": "the file ILSVRC2012_img_train.tar",
    "tiny-imagenet": "tiny-imagenet-200.zip, or its folder with wnids.txt and train/",
    "imagenette": "imagenette2.tgz (or -160, -320), or its folder",
    "celeba": "a folder with img_align_celeba.zip or img_align_celeba/ beside its lists",
    "cifar10": "cifar-10-binary.tar.gz, or its folder with data_batch_1.bin",
    "ade20k-2016": "ADEChallengeData2016.zip, or its folder with images/training/",
    "ade20k-2021": "ADE20K_2021_17_01.zip, or its folder with images/ADE/",
    "webdataset": "a tar of KEY.jpg (or .png) beside KEY.json, or a folder of such shards",
    "folder": "a folder or archive of <class>/NAME.jpg (or .png), or <split>/<class>/NAME.jpg",
}

# The plain folder last: almost everything is one.
LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        _layout(imagenet),
        _layout(imagenet_tar),
        _layout(tiny_imagenet),
        _layout(imagenette),
        _layout(celeba),
        _layout(cifar10),
        Layout(ade20k.NAME_2016, ade20k.matches_2016, ade20k.read_2016, ade20k.classes_2016),
        Layout(ade20k.NAME_2021, ade20k.matches_2021, ade20k.read_2021, ade20k.classes_2021),
        _layout(webdataset),
        _layout(labelled),
    )
}


def places(root: Path) -> Iterator[Path]:
    """Yield where a source may lie under MAE_DATA: itself, its folders and archives, two deep."""
    yield root
    for child in _children(root):
        yield child
        if child.is_dir():
            yield from _children(child)


def find(root: Path, names: tuple[str, ...] = ()) -> list[tuple[Layout, Path]]:
    """Return every place under `root` that looks like one of the named layouts, or of all.

    A place counts once, as the first layout that it looks like; what lies in it is part of it.
    """
    found: list[tuple[Layout, Path]] = []
    for place in places(root):
        if any(other in place.parents for _, other in found if other != root):
            continue
        try:
            layout = next((one for one in LAYOUTS.values() if one.matches(place)), None)
        except OSError:
            # A folder that nobody may look into is still there: reading it says why.
            layout = LAYOUTS[labelled.NAME]
        if layout is None:
            continue
        # Any archive may be a labelled folder, and so may MAE_DATA itself, or the parts of a set
        # that lies in it without a folder of its own: those are named by `path`.
        sure = place.is_dir() and place != root and not any(other == root for _, other in found)
        if layout.name != labelled.NAME or sure:
            found.append((layout, place))
    return [(layout, place) for layout, place in found if not names or layout.name in names]


def require_folder(root: Path | None) -> Path:
    """Return MAE_DATA's folder; raises StudyError where it is not set or not there."""
    if root is None:
        raise StudyError("MAE_DATA: not set; set it to the folder that holds the image sets")
    if not root.is_dir():
        raise StudyError(f"{root}: no such folder of image sets (MAE_DATA, or --root)")
    if not os.access(root, os.R_OK | os.X_OK):
        raise StudyError(f"{root}: cannot be listed, reading is not allowed (MAE_DATA, or --root)")
    return root


def _children(folder: Path) -> list[Path]:
    try:
        found = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
        return [path for path in found if path.is_dir() or is_archive(path)]
    except OSError:
        return []
