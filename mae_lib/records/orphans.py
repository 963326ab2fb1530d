"""No child outlives its parent."""

import ctypes
import sys


def die_with_parent(number: int) -> None:
    """Ask Linux to signal this process when its parent dies, so that no orphan goes on."""
    if sys.platform == "linux":
        set_death_signal = 1
        ctypes.CDLL(None, use_errno=True).prctl(set_death_signal, number)
