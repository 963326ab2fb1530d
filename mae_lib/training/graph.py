"""One update as a fixed sequence of device work, replayed as one CUDA graph.

A small cell's step is hundreds of launches of a few microseconds each, so the host that issues
them is the bound. Everything from the crop to AdamW therefore runs in one captured graph that
reads its inputs (which images, boxes, learning rate) from fixed places. The same body runs
uncaptured, step by step, on any device: there it is the reference of the replay.
"""

import os
import sys
from collections.abc import Callable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from mae_lib.kernels.crop import MEAN, SD, crop_resize
from mae_lib.model.mae import MaskedAutoencoder
from mae_lib.study.definition import Cell
from mae_lib.training.resident import BOX, EPOCH, FLIP, ITEM, Draws, Inbox, device_order

# Real steps that run uncaptured first: lazy state, autotuning and compilation happen there.
WARMUP_STEPS = 3


class WholeStep:
    """Crop, forward, backward, clip and AdamW on a table of draws, over images on the device.

    Call it once a step. The first steps run uncaptured (they count: nothing is undone), then the
    body is captured and replayed. `loss`, `norm` and `total` (the sum of losses since it was last
    zeroed) are tensors at fixed places; reading them waits for the device, calling does not.
    An update whose gradient is not finite changes neither weights nor moments.
    """

    def __init__(
        self,
        cell: Cell,
        model: MaskedAutoencoder,
        optimizer: torch.optim.AdamW,
        images: UInt8[Tensor, "N S S 3"],
        *,
        micro_batch: int | None = None,
        capture: bool = True,
        say: Callable[[str], None] | None = None,
    ):
        where = images.device
        self.cell, self.model, self.optimizer, self.images = cell, model, optimizer, images
        self.micro_batch = min(micro_batch or cell.recipe.batch_size, cell.recipe.batch_size)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.dtype = torch.float64 if cell.recipe.precision == "fp64" else torch.float32
        self.inbox = Inbox(cell.recipe.batch_size, where)
        # The fused update reads fp32 on CUDA; on a CPU the exact rate, as the ordinary step does.
        precise = torch.float32 if where.type == "cuda" else torch.float64
        self.lr = torch.zeros((), device=where, dtype=precise)
        self.loss, self.total, self.not_finite = (torch.zeros((), device=where) for _ in range(3))
        self.norm = torch.zeros((), device=where, dtype=self.dtype)
        # A list turned into a tensor is a copy from the host, which no capture allows.
        self._mean = 255 * torch.tensor(MEAN, device=where)
        self._sd = 255 * torch.tensor(SD, device=where)
        self._graph: torch.cuda.CUDAGraph | None = None
        # One stream for warm-up and capture: another each time would keep its own memory.
        self._side = torch.cuda.Stream() if where.type == "cuda" else None
        self._uncaptured = 0
        self.reason = "" if where.type == "cuda" else "no CUDA device"
        self._capture = capture and not self.reason
        self._say = say or (lambda line: print(line, file=sys.stderr))
        self._prepare_optimizer()

    @property
    def captured(self) -> bool:
        """Whether steps are replays by now."""
        return self._graph is not None

    def __call__(self, draws: Draws, lr: float) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Do one update; return its loss and gradient norm, which the next call overwrites."""
        self.inbox.fill(draws)
        self.lr.fill_(lr)
        if self._graph is not None:
            self._graph.replay()
        elif self._capture and self._uncaptured >= WARMUP_STEPS:
            self._try_to_capture()
        elif self._capture:
            self._on_a_side_stream(self._body)
        else:
            self._body()
        self._uncaptured += self._graph is None
        return self.loss, self.norm

    def _body(self) -> None:
        """The update itself: device work only, nothing that waits, no new places."""
        batch = self.cell.recipe.batch_size
        self.optimizer.zero_grad(set_to_none=True)
        losses = []
        for first in range(0, batch, self.micro_batch):
            rows = self.inbox.table[first : first + self.micro_batch]
            loss = self._forward(rows)
            share = len(rows) / batch
            (loss if share == 1 else loss * share).backward()
            losses.append(loss.detach() * share)
        grads = [p.grad for p in self.parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads, foreach=True)
        if self.cell.recipe.clip_grad:
            torch.nn.utils.clip_grads_with_norm_(
                self.parameters, self.cell.recipe.clip_grad, norm, foreach=True
            )
        self.loss.copy_(losses[0] if len(losses) == 1 else torch.stack(losses).sum())
        self.norm.copy_(norm)
        self.total.add_(self.loss)
        self.not_finite.copy_(~torch.isfinite(norm + self.loss))
        self.optimizer.step()

    def _forward(self, rows: Tensor) -> Tensor:
        cell = self.cell
        items, epochs = rows[:, ITEM], rows[:, EPOCH]
        order = device_order(cell.seed, items, epochs, cell.tokens)
        pixels = crop_resize(self.images[items], rows[:, BOX], rows[:, FLIP].bool(), cell.pixels)
        pixels = (pixels - self._mean) / self._sd
        return self.model(pixels.to(self.dtype), order)

    def _prepare_optimizer(self) -> None:
        """Let AdamW read its rate and the verdict on the gradient from the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
            group["capturable"] = self.lr.is_cuda
        # Fused AdamW leaves weights, moments and step as they are where `found_inf` is 1.
        self.optimizer.found_inf = self.not_finite
        # The uncaptured steps are a warm-up; torch would warn that they are slow.
        self.optimizer._warned_capturable_if_run_uncaptured = True

    def _on_a_side_stream(self, work: Callable[[], None]) -> None:
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side):
            work()
        torch.cuda.current_stream().wait_stream(self._side)

    def _try_to_capture(self) -> None:
        """Capture the body and replay it once; where that fails, say why and go on uncaptured."""
        try:
            self._graph = self._recorded()
        except RuntimeError as error:
            self._capture = False
            self.reason = " ".join(str(error).split())[:200]
            self._say(f"{self.cell.id}: steps are not captured as a CUDA graph: {self.reason}")
            self.optimizer.zero_grad(set_to_none=True)
            self._body()
            return
        self._graph.replay()

    def _recorded(self) -> torch.cuda.CUDAGraph:
        self.optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._side, capture_error_mode="thread_local"):
            self._body()
        return graph


def prepare_cuda() -> None:
    """Set what deterministic training on CUDA needs beside `use_deterministic_algorithms`."""
    # cuBLAS reads it when it makes its workspace; without it products may differ between runs.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Else every new tensor is filled with NaN first: one more launch each.
    torch.utils.deterministic.fill_uninitialized_memory = False
