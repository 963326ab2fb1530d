"""Let the C library keep the memory that a training step frees, for the next step to take.

By default glibc gives large blocks back to the system at once, and each step faults tens of
thousands of pages in again: 5 to 10 % of its time (benchmarks/README.md). Results do not change.
"""

import ctypes
import functools
import platform

# mallopt's names for its parameters, from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# glibc before 2.35 refuses more than 32 MiB.
_BLOCK_BYTES = (1 << 30, 32 << 20)
_KEEP_BYTES = (1 << 31) - 1


@functools.cache
def keep_freed_memory() -> bool:
    """Ask glibc to keep freed blocks for the life of this process; say whether it will.

    Peak memory stays as it was within a few per cent: what is kept is taken again.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    if not any(library.mallopt(_MMAP_THRESHOLD, size) for size in _BLOCK_BYTES):
        return False
    return bool(library.mallopt(_TRIM_THRESHOLD, _KEEP_BYTES))
