"""Imagenette: ten ImageNet classes in ImageNet's layout, as a folder or as the .tgz it comes in.

Source: https://github.com/fastai/imagenette
"""

import re
from collections.abc import Iterator
from pathlib import Path

from mae_lib.images.layouts.entry import Entry
from mae_lib.images.layouts.imagenet import IMAGENETTE_WNIDS, by_wnid, wnids_of
from mae_lib.images.layouts.tree import members_of

NAME = "imagenette"
_ARCHIVE = re.compile(r"imagenette2?(-160|-320)?\.(tgz|tar)")


def matches(place: Path) -> bool:
    """Say whether this is the archive, or a folder with some of the ten classes and no other."""
    if place.is_file():
        return _ARCHIVE.fullmatch(place.name) is not None
    found = wnids_of(place)
    return bool(found) and set(found) <= IMAGENETTE_WNIDS


def read(place: Path) -> Iterator[Entry]:
    """Yield the images of both splits; the archive's own top folder is passed over."""
    yield from by_wnid(place, members_of(place), classes(place))


def classes(place: Path) -> tuple[str, ...]:
    """The ten wnids in label order."""
    return tuple(sorted(IMAGENETTE_WNIDS))
