"""Where tests break a run: every write passes `tick`, which can kill or fail at the n-th call.

Does nothing unless MAE_FAULT_AT is set (`kill:7` or `enospc:7`).
"""

import errno
import itertools
import os
import signal

_count = itertools.count(1)


def tick() -> None:
    """Count one point of a write, and fail there when the environment asks for it."""
    if (wish := os.environ.get("MAE_FAULT_AT")) is None:
        return
    kind, at = wish.split(":")
    if next(_count) == int(at):
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
