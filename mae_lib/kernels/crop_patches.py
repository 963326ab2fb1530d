"""From images that stay on the device to the patches of a step: one launch, nothing kept between.

Visible patches come first, as `order` says. Every device gives the same bytes, and since a grey
level is turned into a channel by a table of 256 values, the same floats.
"""

import functools

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from mae_lib.kernels.crop import MEAN, draw_boxes, normalise
from mae_lib.kernels.crop_integer import crop_integer
from mae_lib.kernels.dispatch import chosen
from mae_lib.kernels.patches import gather_patches


def crop_patches(
    store: UInt8[Tensor, "N height width 3"],
    index: Int[Tensor, " B"],
    boxes: Int[Tensor, "B 4"],
    flips: Bool[Tensor, " B"],
    order: Int[Tensor, "B n"],
    *,
    out: int,
    patch: int,
    dtype: torch.dtype,
) -> Float[Tensor, "B n ppC"] | UInt8[Tensor, "B n ppC"]:
    """Cut, resize (integer weights), flip, normalise and gather, by the kernel where there is one.

    `index` names the images of `store`, `order` the patches wanted; values come in (row, column,
    channel) order, normalised, or as grey levels with dtype uint8.
    """
    way = chosen("crop_patches", crop_patches_reference, store)
    return way(store, index, boxes, flips, order, out=out, patch=patch, dtype=dtype)


def crop_patches_reference(
    store: UInt8[Tensor, "N height width 3"],
    index: Int[Tensor, " B"],
    boxes: Int[Tensor, "B 4"],
    flips: Bool[Tensor, " B"],
    order: Int[Tensor, "B n"],
    *,
    out: int,
    patch: int,
    dtype: torch.dtype,
) -> Float[Tensor, "B n ppC"] | UInt8[Tensor, "B n ppC"]:
    """Return the same by torch: the definition."""
    images = crop_integer(store[index.long()], boxes, flips, out)
    if dtype != torch.uint8:
        images = normalise(images.float()).to(dtype)
    return gather_patches(images, order.long(), patch)


@functools.lru_cache(maxsize=8)
def level_table(device: torch.device) -> Float[Tensor, "256 3"]:
    """Return the normalised value of each grey level of each channel, made on the host."""
    levels = torch.arange(256.0)[:, None].expand(256, len(MEAN))
    return normalise(levels[None])[0].to(device).contiguous()


def random_arguments(
    batch: int, *, stored: int, out: int, patch: int, device: torch.device, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Draw a store of `batch` noise images of side `stored`, their crops and patch orders."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, stored, stored, 3)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    index = torch.randperm(batch, generator=generator)
    boxes, flips = draw_boxes(seed, index.numpy(), 0, size=stored, crop_min=0.2, flip=True)
    order = torch.rand(batch, (out // patch) ** 2, generator=generator).argsort(1)
    tensors = images, index, boxes.int(), flips, order
    return tuple(tensor.to(device) for tensor in tensors)
