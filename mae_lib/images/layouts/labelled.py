"""A plain labelled folder or archive: `<class>/NAME.jpg`, or `<split>/<class>/NAME.jpg`.

Labels number the sorted class folders of all splits. Names are the paths below the folder, so that
equal file names of two classes differ.
"""

from collections.abc import Iterator
from pathlib import Path

from mae_lib.errors import StoreError
from mae_lib.images.layouts.entry import Entry, Member, entry_of
from mae_lib.images.layouts.tree import members_of

NAME = "folder"
SUFFIXES = (".jpg", ".jpeg", ".png")
SPLITS = ("train", "training", "val", "valid", "validation", "test")


def matches(place: Path) -> bool:
    """Say whether a folder has folders, with an image in the first that is not empty."""
    if not place.is_dir():
        return place.name.endswith((".zip", ".tar", ".tgz", ".tar.gz"))
    folders = sorted(p for p in place.iterdir() if p.is_dir() and not p.name.startswith("."))
    if folders and all(folder.name in SPLITS for folder in folders):
        folders = sorted(p for folder in folders for p in folder.iterdir() if p.is_dir())
    return any(
        path.suffix.lower() in SUFFIXES for folder in folders[:1] for path in folder.iterdir()
    )


def read(place: Path) -> Iterator[Entry]:
    """Yield the images of all classes and splits; other files are passed over.

    Raises: StoreError for an image outside of a class folder, or where there is no image.
    """
    images = [m for m in members_of(place) if m.path.lower().endswith(SUFFIXES)]
    if not images:
        raise StoreError(f"{place}: no image in it ({', '.join(SUFFIXES)})", exit_code=2)
    top = _common_top(images)
    split_up = all(_inner(m, top)[0] in SPLITS for m in images)
    placed = []
    for member in images:
        parts = _inner(member, top)
        folders = parts[1:-1] if split_up else parts[:-1]
        if not folders:
            raise StoreError(f"{place}: {member.path}: <class>/NAME was expected")
        placed.append((member, "/".join(parts), parts[0] if split_up else "train", folders[0]))
    numbers = {name: index for index, name in enumerate(sorted({p[3] for p in placed}))}
    for member, name, split, folder in placed:
        yield entry_of(
            member, name=name, label=numbers[folder], split=split, attributes={"class": folder}
        )


def classes(place: Path) -> tuple[str, ...]:
    """The class folders in label order."""
    return tuple(sorted({entry.attributes["class"] for entry in read(place) if entry.attributes}))


def _inner(member: Member, top: str) -> list[str]:
    return member.path.removeprefix(top).split("/")


def _common_top(images: list[Member]) -> str:
    """Return the one folder that an archive packs everything into, "" where there is none."""
    first = images[0].path.split("/")[0] + "/"
    deep = all(m.path.count("/") >= 2 and m.path.startswith(first) for m in images)
    return first if deep and first.rstrip("/") not in SPLITS else ""
