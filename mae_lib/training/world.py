"""The processes that train one cell together: who this one is, and how the model lies over them.

One device needs no launcher and no process group. Several are started by torchrun, whose
environment `joined` reads: gloo between processors, NCCL between GPUs. Every rank draws the same
batch sequence and computes its own contiguous rows of each batch; gradients are means over ranks.
"""

import contextlib
import functools
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from mae_lib.errors import StudyError
from mae_lib.model.block import run_block
from mae_lib.model.checkpointing import recomputed
from mae_lib.model.mae import MaskedAutoencoder


@dataclass(frozen=True)
class World:
    """This process among those that train one cell; alone, there is no process group."""

    device: torch.device
    rank: int = 0
    size: int = 1
    mesh: DeviceMesh | None = None

    @property
    def writes(self) -> bool:
        """Whether this process writes what only one may write."""
        return self.rank == 0

    def rows(self, batch_size: int) -> slice:
        """Return this rank's rows of a batch.

        Raises: StudyError when the ranks cannot take equally many: the mean would be another one.
        """
        if batch_size % self.size:
            raise StudyError(
                f"execution.devices: {self.size} must divide the batch of {batch_size} images, so "
                "that every device takes equally many; change either"
            )
        share = batch_size // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of `value` over ranks, every rank the same bits."""
        if self.size == 1:
            return value
        total = value.clone()
        dist.all_reduce(total)
        return total / self.size

    def all_agree(self, answer: bool) -> bool:
        """Return whether every rank answers yes."""
        if self.size == 1:
            return answer
        votes = torch.tensor(int(answer))
        dist.all_reduce(votes, dist.ReduceOp.MIN)
        return bool(votes)

    def told(self, number: int) -> int:
        """Return the number that rank 0 holds."""
        if self.size == 1:
            return number
        message = torch.tensor(number)
        dist.broadcast(message, src=0)
        return int(message)

    def wait(self) -> None:
        """Return when every rank has come here."""
        self.all_agree(True)


def alone(device: torch.device) -> World:
    """Return the world of one process."""
    return World(device)


def launched() -> bool:
    """Whether torchrun started this process."""
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= set(os.environ)


@contextlib.contextmanager
def joined(kind: str) -> Iterator[World]:
    """Join the processes that torchrun started, on devices of `kind` (cpu or cuda), then leave.

    Without torchrun, yields the world of one process.
    """
    if not launched():
        yield alone(torch.device(kind))
        return
    device = torch.device(kind)
    if kind == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    # Small answers travel between processors, so that asking never waits for a GPU.
    dist.init_process_group("cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo")
    size = dist.get_world_size()
    mesh = init_device_mesh(kind, (size,), mesh_dim_names=("data",))
    yield World(device, dist.get_rank(), size, mesh)
    # Not after an error: a rank that leaves in good order waits for those that no longer answer.
    dist.destroy_process_group()


class Agreement:
    """Lets ranks act at the same step edge, though a signal and a clock reach each at its own time.

    Each rank says at every edge whether it was asked to stop and whether a checkpoint is due; the
    answer is read one edge later, so that neither a rank nor a GPU waits for it.
    """

    def __init__(self, world: World):
        self.world = world
        self._pending: tuple[Tensor, dist.Work] | None = None

    def __call__(self, *, stop: bool, save: bool) -> tuple[bool, bool]:
        """Say what this rank wants, and return what all do: stop, save."""
        if self.world.size == 1:
            return stop, save
        before = self._pending
        votes = torch.tensor([int(stop), int(save and self.world.writes)])
        self._pending = (votes, dist.all_reduce(votes, dist.ReduceOp.MAX, async_op=True))
        if before is None:
            return False, False
        before[1].wait()
        asked_to_stop, asked_to_save = before[0].tolist()
        return bool(asked_to_stop), bool(asked_to_save)


def spread(
    model: MaskedAutoencoder,
    world: World,
    *,
    sharding: str = "ddp",
    checkpoint_activations: bool = False,
) -> torch.nn.Module:
    """Lay `model` over the world's devices and return the module whose call gives the loss.

    `ddp` keeps a whole copy on every device; `fsdp2` cuts parameters, gradients and moments over
    them and gathers one block at a time. Parameters stay those of `model`, under their names: build
    the optimiser after this.
    """
    model.run_block = recomputed(run_block) if checkpoint_activations else None
    if world.size == 1:
        return model.to(world.device)
    return SHARDINGS[sharding](model, world)


def _replicate(model: MaskedAutoencoder, world: World) -> torch.nn.Module:
    return DistributedDataParallel(model.to(world.device), gradient_as_bucket_view=True)


def _cut(model: MaskedAutoencoder, world: World) -> torch.nn.Module:
    """FSDP2, a group of parameters a block, the rest with the root.

    Our forward drives timm's parameters and never calls a block, so FSDP's hooks would not run: the
    block gets our forward as a method of its own, and FSDP is told of it.
    """
    # Inputs stay as they are, for the loss reads its targets from them.
    plain = MixedPrecisionPolicy(cast_forward_inputs=False)
    lean = plain
    if model.compute_dtype is not None:
        # Products take 16-bit weights in bf16: gathering these moves half the bytes to the same
        # bits. A stem is among the rest, and standardises its weights in fp32.
        lean = MixedPrecisionPolicy(
            param_dtype=model.compute_dtype,
            reduce_dtype=torch.float32,
            cast_forward_inputs=False,
        )
    run = model.run_block or run_block
    for block in (*model.encoder.blocks, *model.decoder_blocks):
        block.run = functools.partial(run, block)
        fully_shard(block, mesh=world.mesh, mp_policy=lean)
        register_fsdp_forward_method(block, "run")
    model.run_block = _run_gathered
    rest = plain if model.has_stem else lean
    # The rest is small; cut again at once, it is whole in no checkpoint after images were encoded.
    fully_shard(model, mesh=world.mesh, mp_policy=rest, reshard_after_forward=True)
    for method in ("encode", "reconstruct"):
        register_fsdp_forward_method(model, method)
    return model.to(world.device)


def _run_gathered(block, x: Tensor, **keywords) -> Tensor:
    return block.run(x, **keywords)


SHARDINGS = {"ddp": _replicate, "fsdp2": _cut}


@contextlib.contextmanager
def gradients_summed(module: torch.nn.Module, *, last: bool) -> Iterator[None]:
    """Take the mean of gradients over ranks after the `last` micro-batch only."""
    if isinstance(module, DistributedDataParallel):
        with contextlib.nullcontext() if last else module.no_sync():
            yield
        return
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(last)
    yield


def clip_gradients(parameters: list[torch.nn.Parameter], most: float) -> Tensor:
    """Scale gradients down to a global norm of at most `most` (inf: leave them); return the norm.

    The norm is that of the whole model, on every rank the same, also where each holds a part.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = get_total_norm(gradients, foreach=True)
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    # Without a limit the factor is 1: a pass over every gradient that moves no bit.
    if math.isfinite(most):
        clip_grads_with_norm_(parameters, most, norm, foreach=True)
    return norm


def whole(model: torch.nn.Module) -> dict[str, Tensor]:
    """Return all parameters and stored buffers, gathered; every rank must call, rank 0 reads it.

    One tensor is gathered at a time and kept in host memory by rank 0 alone.
    """
    tensors = {}
    for name, value in model.state_dict().items():
        full = value.full_tensor() if isinstance(value, DTensor) else value
        if not dist.is_initialized() or dist.get_rank() == 0:
            tensors[name] = full.detach().cpu()
    return tensors
