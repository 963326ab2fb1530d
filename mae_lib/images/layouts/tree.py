"""A folder or an archive as one list of files: the layouts need not tell them apart."""

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

from mae_lib.errors import StoreError
from mae_lib.images.layouts.entry import FILE, Member
from mae_lib.images.layouts.tar_members import tar_members
from mae_lib.images.layouts.zip_members import UNREADABLE, zip_members

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")


def is_archive(path: Path) -> bool:
    """Say whether a file's name is that of an archive."""
    return path.name.endswith(ARCHIVE_SUFFIXES) and path.is_file()


def members_of(place: Path, *, nested: bool = False) -> Iterator[Member]:
    """Yield the files of a folder (sorted) or an archive (in its order); `file` is absolute.

    Raises: StoreError when it cannot be read or is refused, StoreError with exit code 2 when it
    is not there.
    """
    if place.is_dir():
        yield from _folder_members(place, "")
    elif place.name.endswith(".zip") and place.is_file():
        yield from zip_members(place, str(place))
    elif is_archive(place):
        yield from tar_members(place, str(place), nested=nested)
    else:
        raise StoreError(f"{place}: no such folder or archive", exit_code=2)


def first_names(place: Path, count: int) -> list[str]:
    """Return the names of the first files of an archive, none where it cannot be read."""
    names: list[str] = []
    try:
        if place.name.endswith(".zip"):
            with zipfile.ZipFile(place) as archive:
                return [info.filename for info in archive.infolist() if not info.is_dir()][:count]
        for member in members_of(place):
            names.append(member.path)
            if len(names) == count:
                break
    except (StoreError, *UNREADABLE):
        pass
    return names


def _folder_members(folder: Path, prefix: str) -> Iterator[Member]:
    # os.scandir and no stat: a million of those take minutes on a network disk.
    with os.scandir(folder) as found:
        items = sorted(found, key=lambda item: item.name)
    for item in items:
        if item.name.startswith("."):
            continue
        if item.is_dir():
            yield from _folder_members(Path(item.path), f"{prefix}{item.name}/")
        else:
            yield Member(f"{prefix}{item.name}", item.path, FILE)
