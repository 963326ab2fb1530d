"""Loops over memory, compiled for this processor by numba and run on the threads that torch holds.

A second pool of threads would fight torch's own for the cores, since an idle OpenMP thread spins for
a while. So a loop is handed to the OpenMP library that torch has loaded. numba is optional: without
it, or without such a library, `available()` is False and nothing here may be used.

What such loops are made of is in native_code.py.
"""

import ctypes
import functools
import importlib.metadata
import importlib.util
import re
from pathlib import Path

import torch


@functools.cache
def available() -> bool:
    """Say whether loops can be compiled and run here."""
    return importlib.util.find_spec("numba") is not None and openmp() is not None


def version() -> str | None:
    """Return the version of numba that compiles here, None where loops cannot be had."""
    return importlib.metadata.version("numba") if available() else None


def parts() -> int:
    """Return into how many parts loops are divided: one a thread."""
    return torch.get_num_threads()


def symbols() -> dict[str, int]:
    """Return the addresses of what compiled code asks OpenMP for: its thread, and how many."""
    names = ("omp_get_thread_num", "omp_get_num_threads")
    return {n: ctypes.cast(getattr(openmp(), n), ctypes.c_void_p).value for n in names}


@functools.cache
def openmp() -> ctypes.CDLL | None:
    """Return the OpenMP library that this process has loaded, torch's own before any other."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return None
    found = re.findall(r"\S+/lib(?:gomp|iomp5|omp)\b\S*", maps.read_text(encoding="utf-8"))
    home = str(Path(torch.__file__).parent)
    for path in sorted(set(found), key=lambda path: not path.startswith(home)):
        library = ctypes.CDLL(path)
        if hasattr(library, "GOMP_parallel"):
            words = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
            library.GOMP_parallel.argtypes, library.GOMP_parallel.restype = words, None
            return library
    return None
