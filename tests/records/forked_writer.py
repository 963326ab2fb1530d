"""A writer of a sealed file and a table, and as a script one that is broken at each of some points.

The script imports everything once and forks a process a point: `forked_writer.py FOLDER KIND POINT...`
writes into FOLDER/POINT and prints how each ended.
"""

import os
import sys
from pathlib import Path

import pandas as pd

from mae_lib.records.sealed import write_sealed
from mae_lib.records.sidecar import write_table


def write(folder: Path) -> None:
    for n in range(3):
        write_sealed(folder / "a.json", {"n": n, "text": "x" * 5000})
        write_table(folder / "b.csv", pd.DataFrame({"n": [n] * 50}))


def _broken(folder: Path, fault: str) -> int:
    if (pid := os.fork()) == 0:
        os.environ["MAE_FAULT_AT"] = fault
        code = 1
        try:
            write(folder)
            code = 0
        finally:
            # No exit handler of the parent's, and no traceback of what was meant to fail.
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    here, kind, *points = sys.argv[1:]
    print(*(_broken(Path(here) / point, f"{kind}:{point}") for point in points))
