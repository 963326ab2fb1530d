"""A damaged file is moved aside under a name that says so, never read and never overwritten."""

import itertools
from pathlib import Path


def quarantine(path: Path) -> Path:
    """Rename `x` to `x.corrupt` (or `x.corrupt-1`, ...) and return the new path."""
    for n in itertools.count():
        target = path.with_name(f"{path.name}.corrupt" + (f"-{n}" if n else ""))
        if not target.exists():
            path.rename(target)
            return target
    raise AssertionError
