"""CelebA, aligned and cropped: `img_align_celeba` (folder or zip) beside its lists.

`list_eval_partition.txt` (0 train, 1 valid, 2 test) decides the split and must be there;
`list_attr_celeba.txt` and `identity_CelebA.txt` are used where they are. CelebA has no classes:
labels are -1, the identity and the 40 attributes (as 0 and 1) are `attributes`.
Source: https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html
"""

from collections.abc import Iterator
from pathlib import Path

from mae_lib.errors import StoreError
from mae_lib.images.layouts.entry import Entry, Member, entry_of
from mae_lib.images.layouts.reading import read_text
from mae_lib.images.layouts.tree import members_of

NAME = "celeba"
NATIVE = (178, 218)
SPLITS = {"0": "train", "1": "valid", "2": "test"}
PARTITION = "list_eval_partition.txt"
ATTRIBUTES = "list_attr_celeba.txt"
IDENTITY = "identity_CelebA.txt"
_IMAGES = ("img_align_celeba", "img_align_celeba.zip")
# The publisher's drive sorts its files into these folders.
_FOLDERS = ("", "Img", "Eval", "Anno")


def matches(place: Path) -> bool:
    """Say whether a folder holds the aligned images."""
    return place.is_dir() and any(_find(place, name) is not None for name in _IMAGES)


def read(place: Path) -> Iterator[Entry]:
    """Yield the images that the partition lists.

    Raises: StoreError when a list is missing, damaged, or names no image of the set.
    """
    splits = _table(place, PARTITION, columns=1)
    if not splits:
        raise StoreError(
            f"{place}: no {PARTITION}; it says which images are for training, put it there"
        )
    attributes = _table(place, ATTRIBUTES, columns=40, header=2)
    identities = _table(place, IDENTITY, columns=1)
    for member in _images(place):
        name = member.path.rpartition("/")[2]
        if not name.endswith(".jpg"):
            continue
        if (split := SPLITS.get(splits.get(name, ("",))[0])) is None:
            raise StoreError(f"{place}: {PARTITION}: no split 0, 1 or 2 for {name}")
        words: dict[str, object] = {}
        if name in identities:
            words["identity"] = int(identities[name][0])
        if name in attributes:
            words["attr"] = "".join("1" if value == "1" else "0" for value in attributes[name])
        yield entry_of(member, name=name, split=split, native=NATIVE, attributes=words or None)


def classes(place: Path) -> tuple[str, ...]:
    """None: a face may have any of the attributes."""
    return ()


def _images(place: Path) -> Iterator[Member]:
    # An unpacked folder beside its zip: the folder, which is read faster.
    found = next(p for p in (_find(place, name) for name in _IMAGES) if p is not None)
    return members_of(found)


def _find(place: Path, name: str) -> Path | None:
    paths = (place / folder / name for folder in _FOLDERS)
    return next((path for path in paths if path.exists()), None)


def _table(place: Path, name: str, *, columns: int, header: int = 0) -> dict[str, tuple[str, ...]]:
    """Read a list: a line an image, its name first. Empty where there is no such file."""
    path = _find(place, name)
    if path is None:
        return {}
    rows = {}
    text = read_text(Member(name, str(path), "file"))
    for number, line in enumerate(text.splitlines()[header:], header + 1):
        image, *values = line.split()
        if len(values) != columns or not all(v.lstrip("-").isdecimal() for v in values):
            raise StoreError(
                f"{path}: line {number}: a name and {columns} numbers were expected, "
                f"got {line[:60]!r}"
            )
        rows[image] = tuple(values)
    return rows
