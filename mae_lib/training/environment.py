"""What the bits of a training depend on beside its settings: recorded once, taken back on resume."""

import os
from dataclasses import asdict
from pathlib import Path

import torch

from mae_lib.errors import RecordError
from mae_lib.kernels import choose, native
from mae_lib.kernels.linear_fp8 import require_fp8
from mae_lib.records.provenance import available_cores, processor, versions
from mae_lib.records.quarantine import quarantine
from mae_lib.records.sealed import read_sealed, write_sealed
from mae_lib.study.definition import Cell, Recipe, settings_of
from mae_lib.study.execution import Execution
from mae_lib.training.checkpoint import drop_checkpoints
from mae_lib.training.world import World


def device() -> torch.device:
    """Return the accelerator where there is one, else the processor; MAE_DEVICE=cpu forces it."""
    wish = os.environ.get("MAE_DEVICE", "cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wish)


def kernels_for(recipe: Recipe, kernels: dict[str, str], where: torch.device) -> dict[str, str]:
    """Return the ways in force for a recipe: precision fp8 takes its own products.

    Raises: KernelError for fp8 on a device that has none.
    """
    if recipe.precision != "fp8":
        return kernels
    require_fp8(where)
    return kernels | {"linear": "fp8"}


def environment_for(cell: Cell, folder: Path, world: World, execution: Execution) -> dict:
    """Return `environment_of`, looked up and recorded by rank 0 and read by all others."""
    if world.size == 1:
        return environment_of(cell, folder, execution)
    if world.writes:
        environment_of(cell, folder, execution)
    world.wait()
    recorded = read_sealed(folder / "cell.json")["environment"]
    # Ranks share the cores of a machine, however many threads the run was begun with.
    return recorded | {"threads": int(os.environ.get("MAE_THREADS", recorded["threads"]))}


def environment_of(cell: Cell, folder: Path, execution: Execution) -> dict:
    """Read the environment that a begun cell was trained in, or record this one.

    `execution` is recorded with it, and anew when a resumed run is asked for another.
    A run begun on another processor, or with other libraries, loses its checkpoints: its bits
    could not be kept. Raises: RecordError when the folder belongs to another cell.
    """
    path = folder / "cell.json"
    here = {
        "processor": processor(),
        "device": torch.cuda.get_device_name() if device().type == "cuda" else "cpu",
        "threads": int(os.environ.get("MAE_THREADS", available_cores())),
        "versions": versions(),
    }
    # In bfloat16 a processor may run loops that numba compiled.
    if here["device"] == "cpu" and cell.recipe.precision == "bf16" and native.available():
        here["versions"] = here["versions"] | {"numba": native.version()}
    if path.exists():
        try:
            begun = read_sealed(path)
        except RecordError:
            begun = {}
            quarantine(path)
        if begun.get("digest", cell.digest) != cell.digest:
            raise RecordError(f"{path}: belongs to cell {begun['digest']}, not {cell.digest}")
        before = begun.get("environment", {})
        if all(before.get(key) == here[key] for key in ("processor", "device", "versions")):
            if before.get("execution", asdict(Execution())) != asdict(execution):
                before |= {"execution": asdict(execution)}
                write_description(cell, folder, before)
            return before
        drop_checkpoints(folder / "state")
    here |= {"kernels": choose.best(), "execution": asdict(execution)}
    write_description(cell, folder, here)
    return here


def write_description(cell: Cell, folder: Path, environment: dict) -> None:
    """Write cell.json: settings, and what the bits depend on beside them."""
    about = {"id": cell.id, "digest": cell.digest, "settings": settings_of(cell)}
    write_sealed(folder / "cell.json", about | {"environment": environment})
