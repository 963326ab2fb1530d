"""Checkpoints from which a run goes on bit for bit: parameters, both moments, step.

`state/step-N.safetensors` holds the tensors, `state/step-N.json` (sealed, written after it) their
sha256 and the step; the newest two are kept. Nothing is ever unpickled.
"""

import errno
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mae_lib.errors import RecordError
from mae_lib.records.atomic import not_written, replacing, sha256_of
from mae_lib.records.quarantine import quarantine
from mae_lib.records.sealed import read_sealed, write_sealed

KEPT = 2


def save_checkpoint(
    folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, *, step: int, meta: dict
) -> None:
    """Write the state after `step` steps, then drop all but the newest two."""
    path = folder / f"step-{step:08d}.safetensors"
    write_tensors(path, {**_parameters(model), **_moments(model, optimizer)})
    write_sealed(path.with_suffix(".json"), {**meta, "step": step, "sha256": sha256_of(path)})
    for old in sorted(folder.glob("step-*.json"))[:-KEPT]:
        old.unlink()
        old.with_suffix(".safetensors").unlink(missing_ok=True)


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write tensors to one safetensors file, atomically."""
    on_host = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        try:
            save_file(on_host, temporary)
        except SafetensorError as error:
            # It wraps what the system said; a full disk is what can go wrong here.
            raise not_written(path, OSError(errno.EIO, str(error))) from error


def restore_checkpoint(
    folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> dict | None:
    """Load the newest whole checkpoint and return its meta; None when there is none.

    A damaged checkpoint is moved aside (`*.corrupt`) and the one before it is taken.
    """
    for record in sorted(folder.glob("step-*.json"), reverse=True):
        tensors_path = record.with_suffix(".safetensors")
        try:
            meta = read_sealed(record)
            if not tensors_path.exists() or sha256_of(tensors_path) != meta["sha256"]:
                raise RecordError(f"{tensors_path}: cut or changed")
        except RecordError:
            for path in (record, tensors_path):
                if path.exists():
                    quarantine(path)
            continue
        _restore(load_file(tensors_path), model, optimizer, step=meta["step"])
        return meta
    return None


def _parameters(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {f"model.{name}": p for name, p in model.named_parameters()}


def _moments(model, optimizer) -> dict[str, torch.Tensor]:
    moments = {}
    for name, parameter in model.named_parameters():
        state = optimizer.state.get(parameter)
        if state:
            moments[f"exp_avg.{name}"] = state["exp_avg"]
            moments[f"exp_avg_sq.{name}"] = state["exp_avg_sq"]
    return moments


def _restore(tensors, model, optimizer, *, step: int) -> None:
    for name, parameter in model.named_parameters():
        parameter.data.copy_(tensors[f"model.{name}"])
        if f"exp_avg.{name}" in tensors:
            optimizer.state[parameter] = {
                "step": torch.tensor(float(step), device=parameter.device),
                "exp_avg": tensors[f"exp_avg.{name}"].to(parameter.device),
                "exp_avg_sq": tensors[f"exp_avg_sq.{name}"].to(parameter.device),
            }
