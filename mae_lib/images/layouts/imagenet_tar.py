"""ImageNet (ILSVRC2012) as it is downloaded: a tar of 1,000 class tars, read in place.

`ILSVRC2012_img_train.tar` holds `<wnid>.tar`, each of which holds `<wnid>_<number>.JPEG`. With
`ILSVRC2012_img_val.tar` beside it, its images are the split "val", with the labels of the
development kit where that lies there too, else none (-1).
Source: https://image-net.org/challenges/LSVRC/2012/
"""

import functools
from collections.abc import Iterator
from pathlib import Path

from mae_lib.errors import StoreError
from mae_lib.images.layouts.entry import Entry, entry_of
from mae_lib.images.layouts.imagenet import WNID
from mae_lib.images.layouts.imagenet_devkit import validation_wnids, wnid_of
from mae_lib.images.layouts.tree import members_of

NAME = "imagenet-tar"
TRAIN = "ILSVRC2012_img_train.tar"
VAL = "ILSVRC2012_img_val.tar"


def matches(place: Path) -> bool:
    """Say whether this is the training tar."""
    return place.name == TRAIN and place.is_file()


def read(place: Path) -> Iterator[Entry]:
    """Yield the images of the class tars, then those of the validation tar where there is one."""
    numbers = {wnid: index for index, wnid in enumerate(classes(place))}
    for member in members_of(place, nested=True):
        wnid, _, name = member.path.rpartition("/")
        if wnid not in numbers or "/" in wnid:
            raise StoreError(f"{place}: {member.path}: <wnid>.tar with images was expected")
        yield entry_of(member, name=name, label=numbers[wnid])
    if (val := place.with_name(VAL)).is_file():
        wnids = validation_wnids(place.parent)
        for member in members_of(val):
            name = member.path.rpartition("/")[2]
            label = numbers.get(wnid_of(name, wnids) or "", -1)
            yield entry_of(member, name=name, label=label, split="val")


def classes(place: Path) -> tuple[str, ...]:
    """The wnids in label order."""
    status = place.stat()
    return _wnids(place, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=4)
def _wnids(place: Path, *_: int) -> tuple[str, ...]:
    stems = (member.path.removesuffix(".tar") for member in members_of(place))
    return tuple(sorted(stem for stem in stems if WNID.fullmatch(stem)))
