"""Checkpoints from which a run goes on bit for bit: parameters, both moments, step.

One process writes the tensors to `state/step-N.safetensors`, several write their parts into
`state/step-N/` (`mae_lib.training.sharded`); `state/step-N.json` (sealed, written after them) keeps
their sha256 and the step; the newest two are kept. Any number of processes goes on from either
kind. Nothing is ever unpickled.
"""

import errno
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mae_lib.errors import MaeError, RecordError
from mae_lib.records.atomic import not_written, replacing, sha256_of
from mae_lib.records.quarantine import quarantine
from mae_lib.records.sealed import read_sealed, write_sealed
from mae_lib.training.sharded import copy_whole, read_shards, require_whole, write_shards
from mae_lib.training.world import World, alone

KEPT = 2
_ALONE = alone(torch.device("cpu"))


def save_checkpoint(
    folder: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    step: int,
    meta: dict,
    world: World = _ALONE,
) -> None:
    """Write the state after `step` steps, then drop all but the newest two; every rank must call.

    Raises: MaeError on every rank when one of them cannot write.
    """
    record = folder / f"step-{step:08d}.json"
    tensors = {**_parameters(model), **_moments(model, optimizer)}
    if world.size == 1:
        path = record.with_suffix(".safetensors")
        write_tensors(path, tensors)
        hashes: dict = {"sha256": sha256_of(path)}
    else:
        hashes = {"shards": write_shards(record.with_suffix(""), tensors, world)}
    failure = None
    if world.writes:
        try:
            write_sealed(record, {**meta, "step": step, **hashes})
            for old in sorted(folder.glob("step-*.json"))[:-KEPT]:
                _drop(old)
        except MaeError as error:
            failure = error
    if not world.all_agree(failure is None):
        raise failure or MaeError(f"{record}: cannot be written, as rank 0 says")


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
    folder: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    world: World = _ALONE,
    *,
    digest: str | None = None,
) -> dict | None:
    """Load the newest whole checkpoint and return its meta; None when there is none.

    A damaged checkpoint is moved aside (`*.corrupt`) and the one before it is taken. Every rank
    must call, and all take the same one.
    Raises: RecordError for a checkpoint of another cell than `digest`, or of another architecture;
    it is left as it is.
    """
    while (record := _newest(folder, world)) is not None:
        meta = read_sealed(record)
        if digest is not None and meta.get("digest", digest) != digest:
            raise RecordError(
                f"{record}: belongs to cell {meta['digest']}, not {digest}; move it away",
                exit_code=2,
            )
        try:
            _require_whole(record, meta, world)
            tensors = {} if "shards" in meta else _loaded(record.with_suffix(".safetensors"))
        except RecordError:
            if world.writes:
                _set_aside(record)
            world.wait()
            continue
        with torch.no_grad():
            _restore(record, meta, tensors, model, optimizer)
        return meta
    return None


def drop_checkpoints(folder: Path) -> None:
    """Remove every checkpoint of a run; what was set aside as damaged stays."""
    for path in sorted(folder.glob("step-*")):
        if ".corrupt" in path.name:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _drop(record: Path) -> None:
    """Remove a checkpoint, its record first: without it the rest counts for nothing."""
    record.unlink()
    record.with_suffix(".safetensors").unlink(missing_ok=True)
    shutil.rmtree(record.with_suffix(""), ignore_errors=True)


def _set_aside(record: Path) -> None:
    for path in (record, record.with_suffix(".safetensors"), record.with_suffix("")):
        if path.exists():
            quarantine(path)


def _newest(folder: Path, world: World) -> Path | None:
    """Return the newest record whose seal holds; rank 0 looks, so that all see the same."""
    step = -1
    if world.writes:
        for record in sorted(folder.glob("step-*.json"), reverse=True):
            try:
                step = int(read_sealed(record)["step"])
                break
            except RecordError:
                _set_aside(record)
    step = world.told(step)
    return None if step < 0 else folder / f"step-{step:08d}.json"


def _require_whole(record: Path, meta: dict, world: World) -> None:
    if "shards" in meta:
        require_whole(record.with_suffix(""), meta["shards"], world)
        return
    path = record.with_suffix(".safetensors")
    whole = not world.writes or (path.exists() and sha256_of(path) == meta["sha256"])
    if not world.all_agree(whole):
        raise RecordError(f"{path}: cut or changed")


def _parameters(model: torch.nn.Module) -> dict[str, Tensor]:
    return {f"model.{name}": p for name, p in model.named_parameters()}


def _moments(model, optimizer) -> dict[str, Tensor]:
    moments = {}
    for name, parameter in model.named_parameters():
        state = optimizer.state.get(parameter)
        if state:
            moments[f"exp_avg.{name}"] = state["exp_avg"]
            moments[f"exp_avg_sq.{name}"] = state["exp_avg_sq"]
    return moments


def _loaded(path: Path) -> dict[str, Tensor]:
    """Read tensors and nothing else; what is no safetensors file, a pickle say, is damaged."""
    try:
        return load_file(path)
    except SafetensorError as error:
        raise RecordError(f"{path}: no safetensors file, got {error}") from None


def _require_fitting(record: Path, targets: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    """Refuse tensors of another architecture before one of them is copied."""
    for name, target in targets.items():
        got = list(found[name].shape) if name in found else "nothing"
        if got != list(target.shape):
            raise RecordError(
                f"{record}: {name}: of another architecture, got {got}, "
                f"wanted {list(target.shape)}; move it away",
                exit_code=2,
            )


def _restore(record: Path, meta: dict, tensors: dict[str, Tensor], model, optimizer) -> None:
    for parameter in model.parameters():
        if parameter.requires_grad:
            optimizer.state[parameter] = {
                "step": torch.tensor(float(meta["step"]), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
    targets = {**_parameters(model), **_moments(model, optimizer)}
    if "shards" in meta:
        read_shards(record.with_suffix(""), targets)
        return
    _require_fitting(record, targets, tensors)
    for name, target in targets.items():
        copy_whole(target, tensors[name])
