"""One image where its publisher put it: enough to read it again from any process, and no pixels."""

from collections.abc import Mapping
from dataclasses import dataclass

# How the bytes of an entry are found.
FILE = "file"  # a file of its own
SLICE = "slice"  # `size` bytes at `offset` of a file that is not compressed
ZIP = "zip"  # `packed` deflated bytes at `offset` of a zip
GZIP = "gzip"  # `size` bytes at `offset` of what a gzip file unpacks to

# What the bytes are.
IMAGE = "image"  # an encoded image: JPEG, PNG
CIFAR_RECORD = "cifar10"  # 3,073 raw bytes, see `entries.decode_raw`


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside a folder or an archive: `path` in there, and where its bytes are.

    `file` is the file on disk that holds the bytes. `crc32` is known for members of a zip.
    """

    path: str
    file: str
    kind: str
    offset: int = 0
    size: int = -1
    packed: int = 0
    crc32: int | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of a source, small and picklable.

    `name` is the publisher's and unique in its source; `label` -1 is none; `file` is relative to
    the data root, or absolute where the source lies elsewhere; `size` -1 is a file's own.
    `native` is (width, height) as published, where the layout states it. `attributes` are the
    publisher's own words about the image.
    """

    name: str
    label: int
    split: str
    file: str
    kind: str
    offset: int = 0
    size: int = -1
    packed: int = 0
    crc32: int | None = None
    coding: str = IMAGE
    native: tuple[int, int] | None = None
    attributes: Mapping | None = None


def entry_of(
    member: Member,
    *,
    name: str,
    label: int = -1,
    split: str = "train",
    native: tuple[int, int] | None = None,
    attributes: Mapping | None = None,
) -> Entry:
    """Name an image that a folder or an archive holds."""
    return Entry(
        name=name,
        label=label,
        split=split,
        file=member.file,
        kind=member.kind,
        offset=member.offset,
        size=member.size,
        packed=member.packed,
        crc32=member.crc32,
        native=native,
        attributes=attributes,
    )
