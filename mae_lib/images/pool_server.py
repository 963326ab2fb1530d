"""What the fork server of a pool imports first: a worker whose starter is gone says nothing.

Such a worker finds its pool's semaphores or its pipe gone, and Python would print where it stood below
the one line that the starter ended with. What fails later reaches the starter with its task.
"""

import sys
from types import TracebackType

_GONE = (FileNotFoundError, EOFError, BrokenPipeError, ConnectionResetError)


def _unless_gone(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if not issubclass(kind, _GONE):
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _unless_gone
