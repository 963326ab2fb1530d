"""A convolutional stem that sees no masked pixel: they are filled before it, then it is timm's own.

A stem's convolutions reach beyond a patch and its group norms average over the whole image, so
dropping tokens after it would let masked pixels through (24 to 92 % of a visible token's norm,
tests/model/test_hybrid.py). Filled with the data's mean, which normalising makes 0, they are gone;
the stem's work is not reduced by the mask. As tiles, visible patches are images of their own: the
stem does the visible share of its work exactly, and is another function than timm's on whole images
(each patch has borders and norms of its own), in training and evaluation alike.
"""

import contextlib

import torch
from jaxtyping import Float, Int
from torch import Tensor


def fill_masked(
    images: Float[Tensor, "B height width C"], order: Int[Tensor, "B L"], *, keep: int, patch: int
) -> Float[Tensor, "B height width C"]:
    """Return normalised images whose masked patches are 0; `order` names the visible ones first."""
    batch, height, width, _ = images.shape
    visible = torch.zeros(order.shape, dtype=torch.bool, device=images.device)
    visible.scatter_(1, order[:, :keep], True)
    grid = visible.view(batch, height // patch, 1, width // patch, 1, 1)
    cells = images.view(batch, height // patch, patch, width // patch, patch, -1)
    # A choice, not a product: NaN in a masked pixel must not come through either.
    return torch.where(grid, cells, cells.new_zeros(())).view(images.shape)


def visible_tokens(
    stem: torch.nn.Module,
    images: Float[Tensor, "B height width C"],
    order: Int[Tensor, "B L"],
    *,
    keep: int,
    patch: int,
    dtype: torch.dtype | None,
) -> Float[Tensor, "B keep D"]:
    """Embed images through a timm stem and return the tokens of their `keep` visible patches.

    With `dtype`, convolutions run in it; weights are standardised and norms averaged in fp32.
    """
    filled = fill_masked(images, order, keep=keep, patch=patch)
    cast = torch.autocast(images.device.type, dtype) if dtype else contextlib.nullcontext()
    with cast:
        tokens = stem(filled.permute(0, 3, 1, 2))
    chosen = order[:, :keep, None].expand(-1, -1, tokens.shape[-1])
    return torch.gather(tokens, 1, chosen)


def tile_tokens(
    stem: torch.nn.Module,
    patches: Float[Tensor, "B K ppC"],
    *,
    patch: int,
    dtype: torch.dtype | None,
) -> Float[Tensor, "B K D"]:
    """Embed patches through a timm stem, each as an image of its own; no other pixel is there."""
    batch, count, _ = patches.shape
    tiles = patches.reshape(batch * count, patch, patch, -1).permute(0, 3, 1, 2)
    cast = torch.autocast(patches.device.type, dtype) if dtype else contextlib.nullcontext()
    with cast:
        tokens = stem.proj(stem.backbone(tiles))
    return tokens.view(batch, count, -1)


def initialise_stem(stem: torch.nn.Module, generator: torch.Generator) -> None:
    """Draw a stem's convolutions anew: He's normal by fan-out, as timm draws them."""
    for module in stem.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(
                module.weight, mode="fan_out", nonlinearity="relu", generator=generator
            )
