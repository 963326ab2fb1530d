"""Cut images into patches, all of them at once or in a given order."""

import torch
from jaxtyping import Int, Shaped
from torch import Tensor


def patchify(images: Shaped[Tensor, "B height width C"], patch: int) -> Shaped[Tensor, "B L ppC"]:
    """Return every patch, row by row, its values in (row, column, channel) order."""
    batch, height, width, channels = images.shape
    grid = images.view(batch, height // patch, patch, width // patch, patch, channels)
    return grid.permute(0, 1, 3, 2, 4, 5).reshape(batch, -1, patch * patch * channels)


def unpatchify(
    patches: Shaped[Tensor, "B L ppC"], patch: int, columns: int
) -> Shaped[Tensor, "B height width C"]:
    """Put patches back into images; the inverse of `patchify`."""
    batch, tokens, values = patches.shape
    channels = values // patch**2
    grid = patches.view(batch, tokens // columns, columns, patch, patch, channels)
    grid = grid.permute(0, 1, 3, 2, 4, 5)
    return grid.reshape(batch, tokens // columns * patch, columns * patch, channels)


def gather_patches(
    images: Shaped[Tensor, "B height width C"], order: Int[Tensor, "B n"], patch: int
) -> Shaped[Tensor, "B n ppC"]:
    """Return the patches named by `order`, in one copy of those patches only."""
    batch, height, width, channels = images.shape
    columns = width // patch
    grid = images.view(batch, height // patch, patch, columns, patch, channels)
    rows = torch.arange(batch, device=images.device)[:, None]
    chosen = grid.permute(0, 1, 3, 2, 4, 5)[rows, order // columns, order % columns]
    return chosen.reshape(batch, order.shape[1], patch * patch * channels)
