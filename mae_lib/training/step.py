"""One update of the weights from one batch: micro-batches, clipping, and no step on a NaN.

Nothing here waits for the device: the caller reads the returned tensors when it wants them.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from mae_lib.records.faults import in_step
from mae_lib.training.batches import Batch
from mae_lib.training.memory import OutOfMemory, halved, memory_lacking
from mae_lib.training.world import clip_gradients, gradients_summed


class Step:
    """Update `model` by `optimizer` (fused AdamW, which skips on the device) once a call.

    A batch is computed `micro_batch` images at a time (None: at once) and its gradient is the mean
    over all of them, so that the split moves the last bits alone. Where memory ends it is halved
    and the step tried again (`may_halve`: not on several ranks, of which one alone may lack it).
    Once the norm of a gradient is not finite, that update and all after it are skipped: weights
    and moments stay as they were before it, and `applied`, the count of updates since `done` ones,
    stands still. The norm is that of the whole gradient, equal on every rank, so that all ranks
    skip or none.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        clip_grad: float = 0.0,
        micro_batch: int | None = None,
        done: int = 0,
        may_halve: bool = True,
    ):
        self.model, self.optimizer, self.micro_batch = model, optimizer, micro_batch
        self.number, self.may_halve = done, may_halve
        # What turns pixels and order into the loss: the model, or a faster way to call it.
        self.loss_of = model
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.limit = clip_grad or math.inf
        where = self.parameters[0].device
        self.failed = torch.zeros((), device=where)
        self.applied = torch.zeros((), device=where, dtype=torch.int64)
        self.optimizer.found_inf = self.failed

    def __call__(self, batch: Batch) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the loss before the update and the norm of its gradient, both on the device."""
        self.number += 1
        loss = self._backward(batch)
        norm = clip_gradients(self.parameters, self.limit).detach()
        # In place: a captured step (graph.py) finds it where it was.
        self.failed.copy_(torch.maximum(self.failed, (~torch.isfinite(norm)).to(self.failed.dtype)))
        self.applied += self.failed == 0
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss, norm

    def _backward(self, batch: Batch) -> Float[Tensor, ""]:
        """Add the gradient of the mean loss over the batch, in as large parts as fit."""
        while True:
            try:
                return self._accumulate(batch)
            except (RuntimeError, MemoryError) as error:
                if (kind := memory_lacking(error)) is None:
                    raise
            # Here, not in the handler: there the traceback still holds the tensors of the try.
            self.optimizer.zero_grad(set_to_none=True)
            images = len(batch.pixels)
            at_once = min(self.micro_batch or images, images)
            if not self.may_halve:
                raise OutOfMemory(
                    kind,
                    f"step {self.number} does not fit with {at_once} images at once on each device",
                    "set micro_batch in the study's execution to half of it",
                )
            self.micro_batch = halved(at_once, step=self.number, kind=kind)

    def _accumulate(self, batch: Batch) -> Float[Tensor, ""]:
        images, total = len(batch.pixels), None
        parts = batch.parts(self.micro_batch)
        for part in parts:
            with gradients_summed(self.model, last=part is parts[-1]):
                loss = self._loss(part)
                if len(part.pixels) < images:
                    loss = loss * (len(part.pixels) / images)
                loss.backward()
            total = loss.detach() if total is None else total + loss.detach()
        return total

    def _loss(self, part: Batch) -> Float[Tensor, ""]:
        fault = in_step(self.number, len(part.pixels))
        if fault == "oom":
            raise torch.OutOfMemoryError("out of memory, as MAE_FAULT_AT asks for")
        loss = self.loss_of(part.pixels, part.order)
        return loss * math.nan if fault == "nan" else loss
