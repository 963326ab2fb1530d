"""List the members of a tar, plain or gzip, and of the tars inside it, without reading them."""

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from mae_lib.errors import StoreError
from mae_lib.images.layouts.entry import GZIP, SLICE, Member
from mae_lib.images.layouts.guard import Census, refuse, require_inside
from mae_lib.images.layouts.gzip_slices import gzip_slices

# Headers are 512 bytes and names behind them a few hundred; a header that claims more is a bomb.
_MAX_HEADER_BYTES = 2**20
_BLOCK = tarfile.BLOCKSIZE


def tar_members(path: Path, file: str, *, nested: bool = False) -> Iterator[Member]:
    """Yield the plain files of the tar at `path`, in its order; `file` is how entries name it.

    `nested` also opens each `X.tar` in it, as `X/...`: ImageNet's tar of class tars.
    Raises: StoreError when the archive is cut, damaged or refused.
    """
    packed = is_gzip(path)
    census = Census(path)
    if packed:
        read, total = gzip_slices(path).read, None
    else:
        source = open(path, "rb")  # noqa: SIM115 - closed with the generator, below
        read, total = _reader(source), os.path.getsize(path)
    try:
        for name, offset, size in _scan(path, read, 0, total):
            census.add(name)
            kind = GZIP if packed else SLICE
            if not (nested and name.endswith(".tar")):
                yield Member(name, file, kind, offset, size)
                continue
            folder = name.removesuffix(".tar")
            for inner, inner_offset, inner_size in _scan(f"{path}/{name}", read, offset, size):
                census.add(f"{folder}/{inner}")
                yield Member(f"{folder}/{inner}", file, kind, inner_offset, inner_size)
    finally:
        if not packed:
            source.close()


def is_gzip(path: Path) -> bool:
    """Say whether a file begins as gzip does."""
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _reader(source: io.BufferedReader) -> Callable[[int, int], bytes]:
    def read(offset: int, size: int) -> bytes:
        source.seek(offset)
        return source.read(size)

    return read


class _Window(io.RawIOBase):
    """A part of a file as tarfile wants it, which refuses to read more than a header at once."""

    def __init__(self, path: Path | str, read: Callable[[int, int], bytes], start: int):
        self._path, self._read, self._start, self._at = path, read, start, 0

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence:
            raise io.UnsupportedOperation("only from the start")
        self._at = offset
        return offset

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER_BYTES:
            raise refuse(self._path, "a header", f"claims {size:,} bytes, a bomb")
        content = self._read(self._start + self._at, size)
        self._at += len(content)
        return content


def _scan(
    path: Path | str, read: Callable[[int, int], bytes], start: int, length: int | None
) -> Iterator[tuple[str, int, int]]:
    """Yield name, absolute offset and size of each plain file of the tar at `start`."""
    last, end = "its beginning", start
    try:
        with tarfile.open(fileobj=_Window(path, read, start), mode="r:") as archive:
            for member in archive:
                # tarfile keeps every header it has seen; a million of them is too many.
                archive.members = []
                name = member.name.removeprefix("./") if member.name != "." else member.name
                end = start + member.offset_data + -(-member.size // _BLOCK) * _BLOCK
                if member.isdir():
                    if name != ".":
                        require_inside(path, name)
                    end = start + member.offset_data
                    continue
                require_inside(path, name)
                if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
                    raise refuse(path, name, "is no plain file")
                if length is not None and member.offset_data + member.size > length:
                    raise tarfile.ReadError("unexpected end of data")
                yield name, start + member.offset_data, member.size
                last = member.name
    except (tarfile.TarError, EOFError, OSError, UnicodeError, ValueError) as error:
        raise StoreError(
            f"{path}: cut or damaged after {last}, got {error}; fetch the file again"
        ) from None
    # tarfile takes a broken header for the end; a whole archive ends with blocks of zeros.
    mark = read(end, _BLOCK) if length is None or end + _BLOCK <= start + length else b""
    if len(mark) < _BLOCK or any(mark):
        raise StoreError(f"{path}: cut or damaged after {last}, got no end mark; fetch it again")
