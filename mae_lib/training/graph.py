"""One update as a fixed sequence of device work, replayed as one CUDA graph.

A small cell's step is hundreds of launches of a few microseconds each, so the host that issues
them is the bound. Everything from the crop to AdamW therefore runs in one captured graph that
reads its inputs (which images, boxes, learning rate) from fixed places. The same body runs
uncaptured, step by step, on any device: there it is the reference of the replay.
"""

import os
import sys
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from mae_lib.images.store import Store
from mae_lib.kernels import dispatch
from mae_lib.kernels.crop import MEAN, SD
from mae_lib.kernels.crop_integer import crop_way
from mae_lib.kernels.crop_patches import crop_patches
from mae_lib.kernels.mask_order import mask_order
from mae_lib.model.narrow import narrowed
from mae_lib.study.definition import Cell
from mae_lib.training.batches import Batch
from mae_lib.training.resident import (
    BOX,
    EPOCH,
    FLIP,
    ITEM,
    Draws,
    HostDraws,
    Inbox,
    resident_images,
)
from mae_lib.training.step import Step

# Real steps that run uncaptured first: lazy state, autotuning and compilation happen there.
WARMUP_STEPS = 3

Say = Callable[[str], None]


def aloud(line: str) -> None:
    """Print a line to stderr."""
    print(line, file=sys.stderr)


def whole_step(cell: Cell, store: Store, step: Step, *, say: Say = aloud) -> "WholeStep | None":
    """Return `step` as a whole step over images on its device; None on a CPU, where the ordinary
    way is as fast, and None, said in one line, where the images do not fit on the device."""
    where = step.parameters[0].device
    if where.type != "cuda":
        return None
    prepare_cuda()
    images, why = resident_images(store, where)
    if images is None:
        say(f"{cell.id}: images stay on the host and steps are issued one by one: {why}")
        return None
    return WholeStep(cell, store, step, images, say=say)


def prepare_cuda() -> None:
    """Set what deterministic training on CUDA needs beside `use_deterministic_algorithms`."""
    # cuBLAS reads it when it makes its workspace; without it products may differ between runs.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Else every new tensor is filled with NaN first: one more launch each.
    torch.utils.deterministic.fill_uninitialized_memory = False


class WholeStep:
    """Crop, forward, backward, clip and AdamW (`step`) on tables of draws over resident images.

    Call it once a step. The first steps run uncaptured (they count: nothing is undone), then the
    body is captured and replayed. The returned loss and norm are tensors at fixed places, which
    the next call overwrites; calling waits for nothing but a free slot of the inbox. An update
    that is not finite is skipped inside the graph as `Step` skips it.
    """

    def __init__(
        self,
        cell: Cell,
        store: Store,
        step: Step,
        images: UInt8[Tensor, "N S S 3"],
        *,
        capture: bool = True,
        say: Say = aloud,
    ):
        where = images.device
        self.cell, self.step, self.images = cell, step, images
        step.loss_of = narrowed(step.model)
        self.draws = HostDraws(cell, store)
        self.dtype = step.parameters[0].dtype
        self.inbox = Inbox(cell.recipe.batch_size, where)
        # The fused update reads fp32 on CUDA; on a CPU the exact rate, as the ordinary step does.
        precise = torch.float32 if where.type == "cuda" else torch.float64
        self.lr = torch.zeros((), device=where, dtype=precise)
        self.loss, self.norm = (torch.zeros((), device=where, dtype=self.dtype) for _ in range(2))
        # A list turned into a tensor is a copy from the host, which no capture allows.
        self._mean = 255 * torch.tensor(MEAN, device=where)
        self._sd = 255 * torch.tensor(SD, device=where)
        self._graph: torch.cuda.CUDAGraph | None = None
        # One stream for warm-up and capture: another each time would keep its own memory.
        self._side = torch.cuda.Stream() if where.type == "cuda" else None
        self._cuts_patches = (
            cell.recipe.crop == "integer"
            and step.model.takes_patches
            and dispatch.takes_triton("crop_patches", where.type, self.dtype)
        )
        self._uncaptured = 0
        self._capture = capture and where.type == "cuda"
        self.say = say
        for group in step.optimizer.param_groups:
            group["lr"], group["capturable"] = self.lr, self.lr.is_cuda
        # The uncaptured steps are a warm-up; torch would warn that they are slow.
        step.optimizer._warned_capturable_if_run_uncaptured = True

    @property
    def captured(self) -> bool:
        """Whether steps are replays by now."""
        return self._graph is not None

    def tables(self, start: int, stop: int) -> Iterator[Draws]:
        """Yield what steps `start` to `stop` need from the host."""
        return (self.draws(number) for number in range(start, stop))

    def __call__(self, draws: Draws, lr: float) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Do one update; return its loss and the norm of its gradient."""
        self.inbox.fill(draws)
        self.lr.fill_(lr)
        if self._graph is not None:
            self._graph.replay()
        elif self._capture and self._uncaptured >= WARMUP_STEPS:
            self._try_to_capture()
        else:
            self._uncaptured_step()
        return self.loss, self.norm

    def _body(self) -> None:
        """The update itself: device work only, nothing that waits, outputs at fixed places."""
        loss, norm = self.step(self._batch())
        self.loss.copy_(loss)
        self.norm.copy_(norm)

    def _batch(self) -> Batch:
        cell, table = self.cell, self.inbox.table
        items, boxes, flips = table[:, ITEM], table[:, BOX], table[:, FLIP].bool()
        order = mask_order(cell.seed, items, table[:, EPOCH], cell.tokens)
        if self._cuts_patches:
            place = {"out": cell.pixels, "patch": cell.patch_size, "dtype": self.dtype}
            return Batch(crop_patches(self.images, items, boxes, flips, order, **place), order)
        crop = crop_way(cell.recipe.crop)
        pixels = crop(self.images[items], boxes, flips, cell.pixels)
        return Batch(((pixels - self._mean) / self._sd).to(self.dtype), order)

    def _uncaptured_step(self) -> None:
        if self._side is None or not self._capture:
            self._body()
        else:
            self._side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._side):
                self._body()
            torch.cuda.current_stream().wait_stream(self._side)
        self._uncaptured += 1

    def _try_to_capture(self) -> None:
        """Capture the body and replay it once; where that fails, say why and go on uncaptured."""
        try:
            self._graph = self._recorded()
        except RuntimeError as error:
            self._capture = False
            reason = " ".join(str(error).split())[:200]
            self.say(f"{self.cell.id}: steps are not captured as a CUDA graph: {reason}")
            self.step.optimizer.zero_grad(set_to_none=True)
            self._uncaptured_step()
            return
        self._graph.replay()

    def _recorded(self) -> torch.cuda.CUDAGraph:
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._side, capture_error_mode="thread_local"):
            self._body()
        return graph
