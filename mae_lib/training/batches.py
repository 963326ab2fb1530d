"""Which images a step sees, how they are cropped and masked: a function of the step alone.

No state is carried from step to step, so a run that was cut goes on with the very batches of an
undisturbed one, however it is split.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from mae_lib.images.store import Store, open_store
from mae_lib.images.streaming import needs_streaming, prefetched
from mae_lib.kernels.crop import draw_boxes, normalise
from mae_lib.kernels.crop_integer import crop_way
from mae_lib.kernels.philox import Purpose, random_order
from mae_lib.model.masking import patch_order
from mae_lib.study.definition import Cell
from mae_lib.training.loader import in_order


@dataclass(frozen=True)
class Batch:
    """Normalised pixels `[B, H, W, 3]` and the patch order `[B, L]`, visible patches first."""

    pixels: Tensor
    order: Tensor

    def parts(self, images: int | None) -> "tuple[Batch, ...]":
        """Split into batches of `images` (the last may be smaller); None leaves it whole."""
        if images is None or images >= len(self.pixels):
            return (self,)
        pairs = zip(self.pixels.split(images), self.order.split(images), strict=True)
        return tuple(Batch(*pair) for pair in pairs)


class Sampler:
    """The sequence of items and epochs over a subset, in batches that may cross epochs."""

    def __init__(self, subset: np.ndarray, batch_size: int, seed: int):
        self.subset, self.batch_size, self.seed = subset, batch_size, seed
        self._orders: dict[int, np.ndarray] = {}

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return store indices and epochs of one step: int64 `[B]` each."""
        positions = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs, within = np.divmod(positions, len(self.subset))
        items = np.empty(self.batch_size, np.int64)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            items[chosen] = self.subset[self._order(int(epoch))[within[chosen]]]
        self._orders = {e: o for e, o in self._orders.items() if e >= epochs[-1]}
        return items, epochs

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            items = np.arange(len(self.subset), dtype=np.uint64)
            self._orders[epoch] = random_order(self.seed, Purpose.ORDER, items, epoch)
        return self._orders[epoch]


@dataclass(frozen=True)
class Drawn:
    """What the host prepares of a batch: uint8 images `[B, S, S, 3]`, crops, flips and masks."""

    images: Tensor
    boxes: Tensor
    flips: Tensor
    order: Tensor


class DrawnSteps:
    """A dataset 'step -> what the host prepares of its batch', the same in any process.

    `rows` are the images of each batch that this process computes: all ranks draw the same
    sequence, and each takes its part of it.
    """

    def __init__(self, cell: Cell, store: Store, rows: slice = slice(None)):
        self.cell, self.folder, self.rows = cell, store.folder, rows
        subset = store.subset(cell.images, cell.seed)
        self.sampler = Sampler(subset, cell.recipe.batch_size, cell.seed)
        self._images = store.images

    def __getitem__(self, step: int) -> Drawn:
        cell, images = self.cell, self._opened()
        items, epochs = (part[self.rows] for part in self.sampler.batch(step))
        boxes, flips = draw_boxes(
            cell.seed,
            items,
            epochs,
            size=images.shape[1],
            crop_min=cell.recipe.crop_min,
            flip=cell.recipe.flip,
        )
        order = patch_order(cell.seed, items, epochs, cell.tokens)
        return Drawn(torch.from_numpy(images[items]), boxes, flips, order)

    def __getstate__(self) -> dict:
        # A memory-mapped array would travel to another process as a copy of itself.
        return self.__dict__ | {"_images": None}

    def _opened(self) -> np.ndarray:
        if self._images is None:
            self._images = open_store(self.folder).images
        return self._images


def batches(
    cell: Cell,
    store: Store,
    *,
    start: int,
    stop: int,
    device: torch.device,
    dtype: torch.dtype,
    rows: slice = slice(None),
    workers: int = 0,
) -> Iterator[Batch]:
    """Yield the batches of steps `start` to `stop`: crops, flips and masks drawn by counter.

    `workers` processes read and draw ahead; what they hand over is cropped here, on the device, so
    that their number changes no bit. Without workers, a thread reads ahead of a store that is
    larger than its share of memory, for a CUDA device into pinned buffers that are used again.
    """
    crop = crop_way(cell.recipe.crop)
    prepared = in_order(DrawnSteps(cell, store, rows), start, stop, workers=workers)
    if workers == 0 and needs_streaming(store.images.nbytes, device):
        prepared = prefetched(map(_pinned, prepared) if device.type == "cuda" else prepared)
    for drawn in prepared:
        boxes, flips = _sent(drawn.boxes, device), _sent(drawn.flips, device)
        pixels = crop(_sent(drawn.images, device), boxes, flips, cell.pixels)
        yield Batch(normalise(pixels).to(dtype), _sent(drawn.order, device))


def _pinned(drawn: Drawn) -> Drawn:
    """Copy to pinned memory, of which torch keeps a pool: a buffer returns to it when all copies out
    of it have ended."""
    return Drawn(*(getattr(drawn, field.name).pin_memory() for field in fields(drawn)))


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to the device; from pinned memory, so that the host does not wait for what runs there."""
    if device.type != "cuda":
        return tensor.to(device)
    # What is pinned already is not copied again.
    return tensor.pin_memory().to(device, non_blocking=True)
