"""One rank of a cell that trains on several devices: `torchrun ... -m mae_lib.training.rank JOB`.

JOB is the file that `mae_lib.training.launch` writes. An error of ours goes into `outcome-RANK.json`
beside it, for torchrun keeps no exit code.
"""

import contextlib
import json
import os
import signal
import sys
from pathlib import Path

from mae_lib.errors import MaeError
from mae_lib.images.store import open_store
from mae_lib.records.atomic import write_json
from mae_lib.records.locks import RANKS_LOCK, locked
from mae_lib.records.orphans import die_with_parent
from mae_lib.study.execution import Execution
from mae_lib.study.recorded import cell_from_settings
from mae_lib.training.loop import train
from mae_lib.training.world import joined


def main(path: Path) -> None:
    """Train the job's cell as the rank that torchrun's environment names."""
    job = json.loads(path.read_text(encoding="utf-8"))
    cell, folder = cell_from_settings(job["settings"], job["digest"]), Path(job["folder"])
    store, execution = open_store(Path(job["store"])), Execution(**job["execution"])
    with joined(job["device"]) as world, contextlib.ExitStack() as held:
        if world.writes:
            # Whoever started us holds the cell; ranks that its death has left may still be saving.
            held.enter_context(locked(folder / RANKS_LOCK))
        world.wait()
        train(cell, store, folder, execution, world, **job["rhythm"])


if __name__ == "__main__":
    # What is saved when torchrun dies is kept, and no orphan trains on.
    die_with_parent(signal.SIGTERM)
    job_file = Path(sys.argv[1])
    try:
        main(job_file)
    except MaeError as error:
        outcome = {
            "kind": type(error).__name__,
            "message": str(error),
            "exit_code": error.exit_code,
        }
        # Nobody is left to read it when whoever started us is dead.
        if job_file.exists():
            write_json(job_file.with_name(f"outcome-{os.environ['RANK']}.json"), outcome)
        print(f"mae: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
