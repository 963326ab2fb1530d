"""A folder or an archive as one list of files: the layouts need not tell them apart."""

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

from mae_lib.errors import StoreError
from mae_lib.images.layouts.entry import FILE, Member
from mae_lib.images.layouts.guard import is_name
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


def _folder_members(
    folder: Path, prefix: str, above: tuple[tuple[int, int], ...] = ()
) -> Iterator[Member]:
    """Yield the files below a folder; `above` are the folders on the way here, as (device, inode)."""
    # os.scandir and no stat: a million of those take minutes on a network disk.
    try:
        here = os.stat(folder)
        with os.scandir(folder) as found:
            items = sorted(found, key=lambda item: item.name)
    except OSError as error:
        raise _unlisted(str(folder), f"cannot be listed, got {error.strerror}") from None
    above = (*above, (here.st_dev, here.st_ino))
    for item in items:
        if item.name.startswith("."):
            continue
        if not is_name(item.name):
            raise _unlisted(ascii(item.path), "is no name in UTF-8 on one line; rename it")
        if item.is_dir():
            if item.is_symlink() and _identity(item) in above:
                raise _unlisted(item.path, "links back to a folder above it; remove the link")
            yield from _folder_members(Path(item.path), f"{prefix}{item.name}/", above)
        # A link to nothing is listed, so that reading it says so; a pipe would never end.
        elif item.is_file() or not os.path.exists(item.path):
            yield Member(f"{prefix}{item.name}", item.path, FILE)
        else:
            raise _unlisted(item.path, "is no plain file; remove it")


def _identity(item: os.DirEntry) -> tuple[int, int]:
    found = item.stat()
    return found.st_dev, found.st_ino


def _unlisted(path: str, problem: str) -> StoreError:
    return StoreError(f"{path}: {problem}", exit_code=2)
