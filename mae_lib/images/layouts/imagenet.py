"""ImageNet (ILSVRC2012) unpacked: `train/<wnid>/*.JPEG`, and `val/` by class or flat.

Labels number the wnids in sorted order, as is usual (0 is n01440764). The publisher's own
validation folder is flat: its images have the labels of the development kit beside `val/`, and
none (-1) without it.
Source: https://image-net.org/challenges/LSVRC/2012/
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from mae_lib.errors import StoreError
from mae_lib.images.layouts.entry import Entry, Member, entry_of
from mae_lib.images.layouts.imagenet_devkit import validation_wnids, wnid_of
from mae_lib.images.layouts.tree import members_of

NAME = "imagenet"
WNID = re.compile(r"n\d{8}")
SPLITS = ("train", "val")
# Imagenette has ImageNet's very layout and ten of its classes: only they tell it apart.
IMAGENETTE_WNIDS = frozenset({
    "n01440764", "n02102040", "n02979186", "n03000684", "n03028079",
    "n03394916", "n03417042", "n03425413", "n03445777", "n03888257",
})  # fmt: skip


def matches(place: Path) -> bool:
    """Say whether a folder has `train/<wnid>/` that are not Imagenette's ten nor Tiny-ImageNet's."""
    found = wnids_of(place)
    if not found or set(found) <= IMAGENETTE_WNIDS:
        return False
    return not (place / "train" / found[0] / "images").is_dir()


def read(place: Path) -> Iterator[Entry]:
    """Yield the images of both splits."""
    yield from by_wnid(place, members_of(place), wnids_of(place), validation_wnids(place))


def classes(place: Path) -> tuple[str, ...]:
    """The wnids in label order."""
    return wnids_of(place)


def wnids_of(place: Path) -> tuple[str, ...]:
    """Return the sorted wnids that have a folder in `train/`."""
    train = place / "train"
    if not train.is_dir():
        return ()
    return tuple(sorted(p.name for p in train.iterdir() if WNID.fullmatch(p.name)))


def by_wnid(
    place: Path, members: Iterator[Member], wnids: Sequence[str], val: tuple[str, ...] = ()
) -> Iterator[Entry]:
    """Yield entries of members named `[.../]train/<wnid>/NAME.JPEG` or `[.../]val/...`.

    `val` has the wnids of a flat validation folder.
    Raises: StoreError for a class that the training part has not.
    """
    numbers = {wnid: index for index, wnid in enumerate(wnids)}
    for member in members:
        parts = member.path.split("/")
        at = next((i for i, part in enumerate(parts[:2]) if part in SPLITS), None)
        if at is None or not parts[-1].lower().endswith((".jpeg", ".jpg")):
            continue
        inner, label = parts[at + 1 :], -1
        if len(inner) == 2:
            if inner[0] not in numbers:
                raise StoreError(f"{place}: {member.path}: no class {inner[0]} in train/")
            label = numbers[inner[0]]
        elif parts[at] == "train":
            raise StoreError(f"{place}: {member.path}: train/<wnid>/NAME.JPEG was expected")
        else:
            label = numbers.get(wnid_of(parts[-1], val) or "", -1)
        yield entry_of(member, name=parts[-1], label=label, split=parts[at])
