"""Fetch the bytes of a member or an entry: cheap, from any process, nothing unpacked to disk."""

import zlib
from pathlib import Path

from mae_lib.errors import StoreError
from mae_lib.images.layouts.entry import FILE, GZIP, ZIP, Entry, Member
from mae_lib.images.layouts.guard import MAX_MEMBER_BYTES, require_readable
from mae_lib.images.layouts.gzip_slices import gzip_slices


def read_bytes(path: Path, item: Entry | Member, name: str) -> bytes:
    """Return an item's bytes out of the file at `path`.

    Raises: StoreError when they are cut, changed or too many (exit code 4); when they cannot be
    had now, with another exit code: that says nothing of the image.
    """
    try:
        content = _read(path, item, name)
    except FileNotFoundError:
        raise StoreError(
            f"{path}: {name}: gone since the source was listed, or a link to nothing; put it back "
            "and run the same command again",
            exit_code=2,
        ) from None
    except OSError as error:
        raise StoreError(
            f"{path}: {name}: cannot be read, got {error.strerror}; once it can, the same command "
            "goes on",
            exit_code=1,
        ) from None
    except zlib.error as error:
        raise StoreError(f"{path}: {name}: damaged, got {error}; fetch it again") from None
    if item.size >= 0 and len(content) != item.size:
        raise StoreError(
            f"{path}: {name}: cut, got {len(content):,} of {item.size:,} bytes; fetch it again"
        )
    if item.crc32 is not None and zlib.crc32(content) != item.crc32:
        raise StoreError(f"{path}: {name}: damaged, its checksum differs; fetch it again")
    return content


def read_text(member: Member) -> str:
    """Return a member's text, as publishers write their lists: UTF-8, any line ends."""
    try:
        return read_bytes(Path(member.file), member, member.path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise StoreError(f"{member.file}: {member.path}: is no text, got {error}") from None


def _read(path: Path, item: Entry | Member, name: str) -> bytes:
    require_readable(path, name, item.size)
    if item.kind == GZIP:
        return gzip_slices(path).read(item.offset, item.size)
    with open(path, "rb") as file:
        if item.kind == FILE:
            content = file.read(MAX_MEMBER_BYTES + 1)
            require_readable(path, name, len(content))
            return content
        file.seek(item.offset)
        if item.kind == ZIP:
            unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
            return unpacker.decompress(file.read(item.packed), item.size + 1)
        return file.read(item.size)
