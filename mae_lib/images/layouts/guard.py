"""What an archive may hold: one that tries more is refused whole, before any member is read."""

import re
from pathlib import Path

from mae_lib.errors import StoreError

# No image or list of the public sets comes near these; a bomb does. The largest member that is
# read is an image or a text file; class tars and label maps are passed over, whatever their size.
MAX_MEMBER_BYTES = 64 * 2**20
# ImageNet has 1,281,167 training images, ADE20K 2021 some files an image.
MAX_MEMBERS = 4_000_000
# JPEG hardly shrinks, text about tenfold; a megabyte of zeros shrinks a thousandfold.
MAX_RATIO = 200
RATIO_MATTERS_BYTES = 2**20

_DRIVE = re.compile(r"^[A-Za-z]:")


def refuse(path: Path | str, name: str, problem: str) -> StoreError:
    """Return the one-line error of an archive that is refused."""
    return StoreError(f"{path}: {name!r}: {problem}; the archive is refused")


def require_inside(path: Path | str, name: str) -> None:
    """Refuse a name that would leave the archive's own folder, on any system.

    Raises: StoreError.
    """
    parts = name.split("/")
    if name.startswith("/") or "\\" in name or _DRIVE.match(name) or ".." in parts:
        raise refuse(path, name, "leaves the archive's folder")
    if not is_name(name):
        raise refuse(path, name, "is no name for a file, or no UTF-8")


def is_name(name: str) -> bool:
    """Say whether a list and a line can hold a name: UTF-8 without control characters.

    Python keeps bytes that are no UTF-8 as surrogates, which cannot be hashed or written.
    """
    return bool(name) and not any(ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 for c in name)


def require_ratio(path: Path | str, name: str, size: int, packed: int) -> None:
    """Refuse what unpacks to far more than it is.

    Raises: StoreError.
    """
    if size > RATIO_MATTERS_BYTES and size > MAX_RATIO * max(packed, 1):
        raise refuse(path, name, f"unpacks {packed:,} bytes to {size:,}, a bomb")


def require_readable(path: Path | str, name: str, size: int) -> None:
    """Refuse to read a member that is too large for an image or a list.

    Raises: StoreError.
    """
    if size > MAX_MEMBER_BYTES:
        raise refuse(path, name, f"holds {size:,} bytes, more than {MAX_MEMBER_BYTES:,}")


class Census:
    """The names seen so far in one archive: none twice, and not too many."""

    def __init__(self, path: Path | str):
        self._path = path
        # Hashes: a million names would take a hundred megabytes.
        self._seen: set[int] = set()

    def add(self, name: str) -> None:
        """Count a member's name; raises StoreError when it was there, or one too many."""
        known = hash(name.rstrip("/"))
        if known in self._seen:
            raise refuse(self._path, name, "is there twice")
        self._seen.add(known)
        if len(self._seen) > MAX_MEMBERS:
            raise refuse(self._path, name, f"is one of more than {MAX_MEMBERS:,} members")
