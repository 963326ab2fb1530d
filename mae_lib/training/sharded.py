"""Checkpoints of a model that lies over several processes: each writes its part, any number reads.

`step-N/` holds a safetensors file a rank, written by torch.distributed.checkpoint; the sealed record
`step-N.json` beside it, written after it, keeps their sha256. The usual reader and writer of
torch.distributed.checkpoint keep their table of contents as a pickle (`.metadata`); those for
Hugging Face's format, used here, keep it in the headers of the safetensors files, so that nothing on
disk is ever unpickled.
"""

import contextlib
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.tensor import DTensor, distribute_tensor

from mae_lib.errors import MaeError, RecordError
from mae_lib.records.atomic import not_written, sha256_of
from mae_lib.records.faults import tick
from mae_lib.training.world import World


def write_shards(folder: Path, tensors: Mapping[str, Tensor], world: World) -> dict[str, str]:
    """Write every rank's part of `tensors` into `folder`; return sha256 by file name on every rank.

    The folder appears whole or not at all. Tensors that all ranks hold are written once. Every rank
    must call.
    Raises: MaeError on every rank in one line when one of them cannot write.
    """
    part = folder.with_name(f".{folder.name}.tmp")
    with _together(world, folder):
        if world.writes:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            tick()
    try:
        writer = dcp.HuggingFaceStorageWriter(str(part), save_distributed=True)
        dcp.save(dict(tensors), storage_writer=writer)
        found: list[dict[str, str]] = [{} for _ in range(world.size)]
        own = {file.name: sha256_of(file) for file in part.glob(f"shard-{world.rank + 1:05d}-*")}
        # Between the processes of one run only: c10d packs what it carries as pickles.
        dist.all_gather_object(found, own)
    except CheckpointException as error:
        causes = [cause for cause, _ in error.failures.values()]
        cause = next((c for c in causes if isinstance(c, OSError)), OSError(0, str(causes[0])))
        raise not_written(folder, cause) from error
    with _together(world, folder):
        if world.writes:
            tick()
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(part, folder)
            _sync(folder.parent)
    return {name: sha256 for each in found for name, sha256 in each.items()}


def require_whole(folder: Path, shards: Mapping[str, str], world: World) -> None:
    """Compare the files of a sharded checkpoint with their hashes, each rank a part of them.

    Raises: RecordError, on every rank when one finds a file cut or changed.
    """
    mine = sorted(shards)[world.rank :: world.size]
    whole = all(
        (folder / name).is_file() and sha256_of(folder / name) == shards[name] for name in mine
    )
    if not world.all_agree(whole):
        raise RecordError(f"{folder}: a part of it is missing, cut or changed")


def read_shards(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Fill `tensors`, whole or lying over any number of ranks, from a sharded checkpoint.

    Check it with `require_whole` before. Every rank must call.
    """
    with warnings.catch_warnings():
        # One process reads them too; that is what it is warned of.
        warnings.filterwarnings("ignore", message="torch.distributed is")
        reader = dcp.HuggingFaceStorageReader(str(folder))
        dcp.load(dict(tensors), storage_reader=reader)


def copy_whole(target: Tensor, source: Tensor) -> None:
    """Copy a whole tensor, held by every rank, into one that may lie over ranks."""
    if isinstance(target, DTensor):
        source = distribute_tensor(
            source.to(target.device), target.device_mesh, target.placements, src_data_rank=None
        )
    target.copy_(source)


@contextlib.contextmanager
def _together(world: World, path: Path) -> Iterator[None]:
    """What rank 0 does alone fails on all ranks or on none."""
    failure = None
    try:
        yield
    except OSError as error:
        failure = not_written(path, error)
    if not world.all_agree(failure is None):
        raise failure or MaeError(f"{path}: cannot be written, as another rank says")


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
