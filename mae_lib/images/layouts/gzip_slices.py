"""Read any part of what a gzip file unpacks to, without unpacking it to disk or into memory.

The decompressor's state is copied every few megabytes (about 50 kB each), so that a later read
starts from the nearest copy: 4 MB of work at most for a random read, none for reads in order.
"""

import bisect
import functools
import os
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mae_lib.errors import StoreError
from mae_lib.images.layouts.guard import MAX_RATIO, RATIO_MATTERS_BYTES, refuse

_CHUNK = 2**16
_SPACING = 4 * 2**20
# zlib's flag for the gzip header and checksum.
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


@dataclass
class _Cursor:
    """A place in the unpacked bytes: `piece` starts at `start`, `state` goes on behind it."""

    start: int
    piece: bytes
    packed: int
    state: object

    @property
    def end(self) -> int:
        return self.start + len(self.piece)

    def copy(self) -> "_Cursor":
        return _Cursor(self.start, self.piece, self.packed, self.state.copy())


class GzipSlices:
    """The unpacked bytes of a gzip file (one member, as publishers make them), read by position.

    Safe to share among threads of one process; a forked or spawned process opens its own.
    """

    def __init__(self, path: Path):
        self._path = path
        self._lock = threading.Lock()
        self._packed_size = os.path.getsize(path)
        self._marks = [_Cursor(0, b"", 0, zlib.decompressobj(_GZIP_WINDOW))]
        self._here = self._marks[0].copy()

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` unpacked bytes at `offset`, fewer where the file ends.

        Raises: StoreError when the file is damaged, cut or a bomb.
        """
        with self._lock, open(self._path, "rb") as file:
            at = self._nearest(offset)
            file.seek(at.packed)
            parts = []
            while True:
                if at.end > offset:
                    parts.append(at.piece[max(0, offset - at.start) : offset + size - at.start])
                if at.end >= offset + size or not self._advance(at, file):
                    break
            self._here = at
        return b"".join(parts)

    def _nearest(self, offset: int) -> _Cursor:
        index = bisect.bisect_right([mark.start for mark in self._marks], offset) - 1
        if self._marks[index].start <= self._here.start <= offset:
            return self._here
        return self._marks[index].copy()

    def _advance(self, at: _Cursor, file: BinaryIO) -> bool:
        """Unpack the next piece; False at the end."""
        try:
            while not at.state.eof:
                chunk = at.state.unconsumed_tail or file.read(_CHUNK)
                if not chunk:
                    raise StoreError(
                        f"{self._path}: cut after {at.end:,} unpacked bytes; fetch it again"
                    )
                piece = at.state.decompress(chunk, _CHUNK)
                if not piece:
                    continue
                at.start, at.piece, at.packed = at.end, piece, file.tell()
                if at.end > max(RATIO_MATTERS_BYTES, MAX_RATIO * self._packed_size):
                    raise refuse(self._path, "its content", "unpacks without end, a bomb")
                if at.start - self._marks[-1].start >= _SPACING:
                    self._marks.append(at.copy())
                return True
        except zlib.error as error:
            raise StoreError(
                f"{self._path}: damaged after {at.end:,} unpacked bytes, got {error}; "
                "fetch it again"
            ) from None
        if at.state.unused_data.strip(b"\0"):
            raise StoreError(f"{self._path}: holds more behind its gzip end; fetch it again")
        return False


@functools.lru_cache(maxsize=4)
def _opened(path: str, stamp: tuple[int, int]) -> GzipSlices:
    return GzipSlices(Path(path))


def gzip_slices(path: Path) -> GzipSlices:
    """Open a gzip file, or return the one this process has open: its copies are worth keeping.

    Raises: FileNotFoundError.
    """
    status = os.stat(path)
    return _opened(str(path), (status.st_mtime_ns, status.st_size))
