"""The process that does the tasks of `bench gpu`: `python -m mae_lib.bench.gpu_worker FOLDER`.

Reads FOLDER/tasks and appends a line to FOLDER/lines when a task begins and when it ends. It ends
itself after an error that left the device unusable; the parent starts another for the rest.
"""

import importlib
import json
import signal
import sys
import traceback
from pathlib import Path

from mae_lib.records.orphans import die_with_parent

# A stage's function takes the task's arguments and yields, as it goes, mappings of a section of
# gpu.json to its rows; `error` tells of a row that could not be had.
FUNCTIONS = {
    "provenance": "mae_lib.bench.gpu_device:provenance",
    "ceilings": "mae_lib.bench.gpu_device:ceilings",
    "tests": "mae_lib.bench.gpu_tests:tests",
    "throughput": "mae_lib.bench.gpu_throughput:throughput",
    "peers": "mae_lib.bench.gpu_peers:peers",
    "kernels": "mae_lib.bench.gpu_kernels:kernels",
    "ablation": "mae_lib.bench.gpu_throughput:ablation",
    "sdpa": "mae_lib.bench.gpu_attention:sdpa",
    "profile": "mae_lib.bench.gpu_profile:profile",
    "fields": "mae_lib.bench.gpu_fields:fields",
    "together": "mae_lib.bench.gpu_together:together_rates",
    "cell": "mae_lib.bench.gpu_cell:cell",
    "compiled": "mae_lib.bench.gpu_throughput:throughput",
}
DEVICE_LOST = 75


def main(folder: Path) -> int:
    """Do the tasks of a folder in order; return the exit status."""
    die_with_parent(signal.SIGKILL)
    tasks = json.loads((folder / "tasks").read_text())
    with open(folder / "lines", "a", encoding="utf-8") as lines:
        for task in tasks:
            _say(lines, {"begin": task["id"]})
            ended = {"end": task["id"]}
            try:
                module, _, name = FUNCTIONS[task["stage"]].partition(":")
                function = getattr(importlib.import_module(module), name)
                for found in function(**task["arguments"]):
                    error = found.pop("error", None)
                    _say(lines, {"found": found, "error": error})
            except Exception as error:  # whatever it is, the other tasks go on
                ended["error"] = said(error)
                traceback.print_exc()
            _say(lines, ended)
            if not _clean_up():
                return DEVICE_LOST
    return 0


def said(error: Exception) -> str:
    """Return an error in one line, with the innermost place in our own code."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "mae_lib" in f.filename] or frames
    where = f" ({Path(ours[-1].filename).name}:{ours[-1].lineno})" if ours else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}{where}"


def _say(file, line: dict) -> None:
    file.write(json.dumps(line) + "\n")
    file.flush()


def _clean_up() -> bool:
    """Free the device's memory; say whether the device still answers."""
    import gc

    import torch

    gc.collect()
    if not torch.cuda.is_available():
        return True
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        return bool((torch.ones(1, device="cuda") + 1).item() == 2)
    except Exception:
        return False


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
