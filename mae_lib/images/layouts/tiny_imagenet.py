"""Tiny-ImageNet-200 as its course gives it: the zip, or its folder.

`train/<wnid>/images/*.JPEG`; `val/images/*.JPEG` with `val/val_annotations.txt` (name, wnid, box);
`test/images/*.JPEG` without labels. Labels number the sorted wnids.
Source: http://cs231n.stanford.edu/tiny-imagenet-200.zip
"""

from collections.abc import Iterator
from pathlib import Path

from mae_lib.errors import StoreError
from mae_lib.images.layouts.entry import Entry, Member, entry_of
from mae_lib.images.layouts.reading import read_text
from mae_lib.images.layouts.tree import members_of

NAME = "tiny-imagenet"
NATIVE = (64, 64)
_ARCHIVE = "tiny-imagenet-200.zip"
_ANNOTATIONS = "val/val_annotations.txt"


def matches(place: Path) -> bool:
    """Say whether this is the zip, or a folder with `wnids.txt` and `train/`."""
    if place.is_file():
        return place.name == _ARCHIVE
    return (place / "wnids.txt").is_file() and (place / "train").is_dir()


def read(place: Path) -> Iterator[Entry]:
    """Yield the images of the three splits."""
    members = _members(place)
    numbers = {wnid: index for index, wnid in enumerate(_wnids(place, members))}
    labels = _annotated(place, members, numbers)
    for path, member in members.items():
        match path.split("/"):
            case ["train", wnid, "images", name] if name.endswith(".JPEG"):
                if wnid not in numbers:
                    raise StoreError(f"{place}: {path}: no class {wnid} in wnids.txt")
                label, split = numbers[wnid], "train"
            case ["val", "images", name] if name.endswith(".JPEG"):
                if name not in labels:
                    raise StoreError(f"{place}: {path}: not in {_ANNOTATIONS}")
                label, split = labels[name], "val"
            case ["test", "images", name] if name.endswith(".JPEG"):
                label, split = -1, "test"
            case _:
                continue
        yield entry_of(member, name=name, label=label, split=split, native=NATIVE)


def classes(place: Path) -> tuple[str, ...]:
    """The wnids in label order."""
    return tuple(_wnids(place, _members(place)))


def _members(place: Path) -> dict[str, Member]:
    """Return members by their path below `tiny-imagenet-200/`."""
    return {m.path.removeprefix("tiny-imagenet-200/"): m for m in members_of(place)}


def _wnids(place: Path, members: dict[str, Member]) -> list[str]:
    if "wnids.txt" not in members:
        raise StoreError(f"{place}: no wnids.txt in it; fetch it again")
    return sorted(read_text(members["wnids.txt"]).split())


def _annotated(place: Path, members: dict[str, Member], numbers: dict[str, int]) -> dict[str, int]:
    if _ANNOTATIONS not in members:
        return {}
    labels = {}
    for line in read_text(members[_ANNOTATIONS]).splitlines():
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if wnid not in numbers:
            raise StoreError(f"{place}: {_ANNOTATIONS}: {line[:60]!r}: no known class")
        labels[name] = numbers[wnid]
    return labels
