"""Where tests break a run: at the n-th point of a write, or in the n-th step of a training.

Does nothing unless MAE_FAULT_AT is set. Writes: `kill:7`, `enospc:7`. Steps, counted from 1:
`step:kill:12` dies by SIGKILL before the step, `step:term:12` is told to end there, `step:nan:12`
gets a loss that is no number, `step:oom:12` runs out of memory at its first try, and
`step:oom:12:4` with more than 4 images at once.
"""

import errno
import itertools
import os
import signal

_VARIABLE = "MAE_FAULT_AT"
_count = itertools.count(1)
_tried: set[int] = set()


def tick() -> None:
    """Count one point of a write, and fail there when the environment asks for it."""
    wish = os.environ.get(_VARIABLE, "")
    if not wish or wish.startswith("step:"):
        return
    kind, at = wish.split(":")
    if next(_count) == int(at):
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def in_step(number: int, images: int) -> str | None:
    """Return what is to go wrong in step `number` with `images` at once: `nan`, `oom` or None."""
    if not (wish := os.environ.get(_VARIABLE, "")).startswith("step:"):
        return None
    _, kind, at, *held = wish.split(":")
    if number != int(at):
        return None
    if kind == "nan":
        return kind
    if kind == "oom":
        fits = images <= int(held[0]) if held else number in _tried
        _tried.add(number)
        return None if fits else kind
    if number not in _tried:
        _tried.add(number)
        os.kill(os.getpid(), signal.SIGKILL if kind == "kill" else signal.SIGTERM)
    return None
