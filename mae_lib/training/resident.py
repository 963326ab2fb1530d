"""Images that stay on the device, and the little that a step needs from the host.

Boxes are drawn on the host in float64 (exp, log and square roots differ between devices) and sent
as whole numbers, one small table a step; masks are drawn on the device (kernels/mask_order.py). So
no image crosses the bus after the first step.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from mae_lib.images.store import Store
from mae_lib.kernels.crop import draw_boxes
from mae_lib.study.definition import Cell
from mae_lib.training.batches import Sampler

# Of the device's free memory; the rest is for weights, moments and activations.
SHARE_FOR_IMAGES = 0.5
# Columns of the table of a step.
ITEM, EPOCH, BOX, FLIP = 0, 1, slice(2, 6), 6
_COLUMNS = 7
_RING = 3


@dataclass(frozen=True)
class Draws:
    """What a step is made of: int64 `[B, 7]` of item, epoch, box (top, left, height, width), flip."""

    table: np.ndarray


class HostDraws:
    """Draws the tables of a cell's steps: the numbers of `training.batches`, without pixels."""

    def __init__(self, cell: Cell, store: Store):
        recipe = cell.recipe
        self.sampler = Sampler(store.subset(cell.images, cell.seed), recipe.batch_size, cell.seed)
        self.seed, self.size = cell.seed, store.images.shape[1]
        self.crop_min, self.flip = recipe.crop_min, recipe.flip

    def __call__(self, step: int) -> Draws:
        """Return the table of step `step` (from 0)."""
        items, epochs = self.sampler.batch(step)
        boxes, flips = draw_boxes(
            self.seed, items, epochs, size=self.size, crop_min=self.crop_min, flip=self.flip
        )
        table = np.empty((len(items), _COLUMNS), np.int64)
        table[:, ITEM], table[:, EPOCH] = items, epochs
        table[:, BOX], table[:, FLIP] = boxes.numpy(), flips.numpy()
        return Draws(table)


class Inbox:
    """A table at a fixed place on the device, filled without waiting for it.

    Three pinned copies on the host take turns, so that one is never overwritten while its
    transfer is under way; the host runs at most three steps ahead.
    """

    def __init__(self, batch: int, device: torch.device):
        self.table = torch.zeros(batch, _COLUMNS, dtype=torch.int64, device=device)
        self._pinned: list[Tensor] = []
        self._sent: list[torch.cuda.Event] = []
        self._turn = 0
        if device.type == "cuda":
            shape = (batch, _COLUMNS)
            self._pinned = [
                torch.zeros(shape, dtype=torch.int64, pin_memory=True) for _ in range(_RING)
            ]
            self._sent = [torch.cuda.Event() for _ in range(_RING)]

    def fill(self, draws: Draws) -> None:
        """Send a table; work issued later on this stream reads it."""
        source = torch.from_numpy(draws.table)
        if not self._pinned:
            self.table.copy_(source)
            return
        turn = self._turn % _RING
        if self._turn >= _RING:
            self._sent[turn].synchronize()
        self._pinned[turn].copy_(source)
        self.table.copy_(self._pinned[turn], non_blocking=True)
        self._sent[turn].record()
        self._turn += 1


def resident_images(
    store: Store, device: torch.device
) -> tuple[UInt8[Tensor, "N S S 3"] | None, str]:
    """Copy a store's images to the device; None and the reason when they do not fit there."""
    needed = store.images.nbytes
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if needed > SHARE_FOR_IMAGES * free:
            return None, (
                f"{needed / 1e9:.1f} GB of images are more than {SHARE_FOR_IMAGES:.0%} of the "
                f"{free / 1e9:.1f} GB that are free on the device"
            )
    images = torch.empty(store.images.shape, dtype=torch.uint8, device=device)
    rows = max(1, 2**28 // max(1, store.images[0].nbytes))
    for first in range(0, len(images), rows):
        part = np.ascontiguousarray(store.images[first : first + rows])
        images[first : first + rows].copy_(torch.from_numpy(part.copy()))
    return images, ""
