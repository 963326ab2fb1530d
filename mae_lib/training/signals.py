"""SIGTERM and Ctrl-C end a run at the next step edge, after a checkpoint; a second one at once."""

import contextlib
import signal
import threading
from collections.abc import Iterator


class Stop:
    """Whether a signal asked the run to end."""

    def __init__(self):
        self.requested = False


@contextlib.contextmanager
def stopping(*, second_ends: bool = True) -> Iterator[Stop]:
    """Catch SIGTERM and SIGINT inside the block (main thread only) and put the old handlers back.

    `second_ends` lets a second signal end the process at once.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(number, frame):
        if stop.requested and second_ends:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        stop.requested = True

    old = {number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
