"""Files appear whole or not at all: temporary name, fsync, rename, fsync of the folder."""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from mae_lib.errors import MaeError
from mae_lib.records.faults import tick

_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it becomes `path`, else it is removed.

    Raises: MaeError in one line when the disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tick()
        yield temporary
        tick()
        _sync(temporary, os.O_RDWR)
        os.replace(temporary, path)
        tick()
        _sync(path.parent, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except OSError as error:
        raise not_written(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def append_line(path: Path, line: str) -> None:
    """Add one line to a log whose last line may be cut by a crash: its reader drops such a line.

    Raises: MaeError in one line when the disk is full or the folder cannot be written.
    """
    try:
        tick()
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise not_written(path, error) from error


def not_written(path: Path, error: OSError) -> MaeError:
    """Return the one-line error of a file that could not be written."""
    return MaeError(
        f"{error.filename or path}: cannot be written, got {error.strerror or error}; "
        "free space or allow writing, then run the same command again",
        exit_code=2 if error.errno in _NOT_WRITABLE else 1,
    )


def write_bytes(path: Path, data: bytes) -> str:
    """Write bytes; return their sha256."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def write_text(path: Path, text: str) -> str:
    """Write UTF-8 text; return its sha256."""
    return write_bytes(path, text.encode())


def write_json(path: Path, value: object) -> str:
    """Write JSON with sorted keys, refusing NaN; return its sha256."""
    return write_text(path, json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n")


def sha256_of(path: Path) -> str:
    """Hash a file in blocks of a mebibyte."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
