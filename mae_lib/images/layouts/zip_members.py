"""List the members of a zip without reading them, and read one by its place."""

import itertools
import os
import stat
import struct
import zipfile
from pathlib import Path
from typing import BinaryIO

from mae_lib.errors import StoreError
from mae_lib.images.layouts.entry import SLICE, ZIP, Member
from mae_lib.images.layouts.guard import Census, refuse, require_inside, require_ratio

_LOCAL = struct.Struct("<4s5H3L2H")
_LOCAL_MAGIC = b"PK\x03\x04"
_ENCRYPTED = 0x1
# What zipfile raises for a file that is cut, damaged, of a version to come, or no zip.
UNREADABLE = (
    zipfile.BadZipFile, NotImplementedError, struct.error, OSError, ValueError, OverflowError,
)  # fmt: skip


def zip_members(path: Path, file: str) -> list[Member]:
    """Return the plain files of the zip at `path` in its order; `file` is how entries name it.

    Raises: StoreError when the archive is cut, damaged or refused.
    """
    try:
        with zipfile.ZipFile(path) as archive, open(path, "rb") as source:
            infos = archive.infolist()
            census = Census(path)
            for info in infos:
                _require_plain(path, info)
                census.add(info.orig_filename)
            starts = [_data_start(path, source, info) for info in infos]
    except UNREADABLE as error:
        raise StoreError(f"{path}: cut or damaged, got {error}; fetch the file again") from None
    _require_apart(path, infos, starts)
    return [
        Member(
            info.orig_filename,
            file,
            SLICE if info.compress_type == zipfile.ZIP_STORED else ZIP,
            start,
            info.file_size,
            0 if info.compress_type == zipfile.ZIP_STORED else info.compress_size,
            info.CRC,
        )
        for info, start in zip(infos, starts, strict=True)
        if not info.is_dir()
    ]


def _require_plain(path: Path, info: zipfile.ZipInfo) -> None:
    name = info.orig_filename
    require_inside(path, name)
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise refuse(path, name, "is no plain file")
    if info.flag_bits & _ENCRYPTED:
        raise refuse(path, name, "is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise refuse(path, name, f"is packed by method {info.compress_type}, not deflate")
    if info.compress_type == zipfile.ZIP_STORED and info.file_size != info.compress_size:
        raise refuse(path, name, "states two sizes")
    require_ratio(path, name, info.file_size, info.compress_size)


def _data_start(path: Path, source: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Find where a member's bytes begin: the central list knows only where its header does."""
    source.seek(info.header_offset)
    header = _LOCAL.unpack(source.read(_LOCAL.size))
    if header[0] != _LOCAL_MAGIC:
        raise refuse(path, info.orig_filename, "has no header where the list says")
    name_length, extra_length = header[9], header[10]
    encoding = "utf-8" if header[2] & 0x800 else "cp437"
    if source.read(name_length).decode(encoding) != info.orig_filename:
        raise refuse(path, info.orig_filename, "has another name in its header")
    return info.header_offset + _LOCAL.size + name_length + extra_length


def _require_apart(path: Path, infos: list[zipfile.ZipInfo], starts: list[int]) -> None:
    """Refuse members that share bytes: that is how a small zip unpacks to petabytes."""
    spans = sorted(
        (info.header_offset, start + info.compress_size, info.orig_filename)
        for info, start in zip(infos, starts, strict=True)
    )
    for (_, end, _), (begin, _, name) in itertools.pairwise(spans):
        if begin < end:
            raise refuse(path, name, "shares its bytes with another member, a bomb")
    if spans and spans[-1][1] > os.path.getsize(path):
        raise refuse(path, spans[-1][2], "ends beyond the file")
