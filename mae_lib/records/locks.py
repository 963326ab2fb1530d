"""One process at a time on one thing: flock, which the kernel frees when its owner dies."""

import contextlib
import fcntl
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

from mae_lib.errors import BusyError, MaeError
from mae_lib.records.atomic import not_written

# In a cell's folder: the first is held by whoever trains it and dies with him; the second by rank 0,
# which may then still be saving.
CELL_LOCK, RANKS_LOCK = ".lock", ".ranks.lock"


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock file `path` (made if missing, left behind empty).

    A worker process imports the script that started it. Where that script's work is not guarded,
    the worker would begin it again and wait here for its own parent, for ever: it is refused.
    Raises: BusyError when `wait` is False and another process holds it; MaeError when the file
    cannot be made.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise MaeError(
            "this script starts worker processes, which import it: put its work under `if __name__ "
            '== "__main__":`, then run it again',
            exit_code=2,
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise not_written(path, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise BusyError(f"{path}: held by another process; wait for it, or stop it") from None
        yield
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Say whether a process that lives holds the lock file `path`; nothing is made or waited for.

    The look itself is a shared lock of a moment.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
