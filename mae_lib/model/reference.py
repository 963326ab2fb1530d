"""The textbook masked auto-encoder, plain and slow: the oracle that the fast form is tested against.

Every patch is embedded, shuffled, encoded where visible, put back in place, decoded in full and
scored where masked. It takes the parameters of a `MaskedAutoencoder` and shares no code with it.
Source: He et al. 2022 (arXiv 2111.06377), section 3.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional


def reference_loss(
    model, images: Float[Tensor, "B height width C"], order: Int[Tensor, "B L"]
) -> Float[Tensor, ""]:
    """Return the loss of `model`'s parameters on images whose patches are masked by `order`."""
    encoder, keep = model.encoder, model.keep
    place = torch.argsort(order, dim=1)
    x = _embed(model, images, place < keep) + encoder.pos_embed[:, 1:]
    visible = torch.gather(x, 1, order[:, :keep, None].expand(-1, -1, x.shape[-1]))
    first = (encoder.cls_token + encoder.pos_embed[:, :1]).expand(len(x), -1, -1)
    x = _blocks(encoder.blocks, torch.cat([first, visible], dim=1))
    x = model.decoder_embed(encoder.norm(x))

    hidden = model.mask_token.expand(len(x), order.shape[1] - keep, -1)
    shuffled = torch.cat([x[:, 1:], hidden], dim=1)
    restored = torch.gather(shuffled, 1, place[..., None].expand_as(shuffled))
    x = torch.cat([x[:, :1], restored], dim=1) + model.decoder_pos_embed
    x = model.decoder_pred(model.decoder_norm(_blocks(model.decoder_blocks, x)))[:, 1:]

    target = _patchify(images, model.patch_size)
    if model.norm_pix:
        mean = target.mean(-1, keepdim=True)
        variance = target.var(-1, keepdim=True)
        target = (target - mean) / (variance + 1e-6) ** 0.5
    error = ((x - target) ** 2).mean(-1)
    masked = (place >= keep).to(error.dtype)
    return (error * masked).sum() / masked.sum()


def _embed(model, images: Tensor, visible: Tensor) -> Tensor:
    """Embed every patch; a convolutional stem gets its images with hidden patches set to 0,
    or one patch at a time."""
    pixels, patch = images.permute(0, 3, 1, 2), model.patch_size
    if model.shape.stem_tiles:
        embed = model.encoder.patch_embed
        tiles = [tile for row in pixels.split(patch, 2) for tile in row.split(patch, 3)]
        return torch.stack([embed.proj(embed.backbone(tile)).flatten(1) for tile in tiles], 1)
    if model.has_stem:
        grid = visible.view(len(images), 1, images.shape[1] // patch, images.shape[2] // patch)
        shown = functional.interpolate(grid.to(images.dtype), scale_factor=patch)
        return model.encoder.patch_embed(pixels * shown)
    proj = model.encoder.patch_embed.proj
    return functional.conv2d(pixels, proj.weight, proj.bias, stride=patch).flatten(2).mT


def _blocks(blocks, x: Tensor) -> Tensor:
    for block in blocks:
        x = x + _attention(block.attn, block.norm1(x))
        hidden = functional.gelu(block.mlp.fc1(block.norm2(x)))
        x = x + block.mlp.fc2(hidden)
    return x


def _attention(attention, x: Tensor) -> Tensor:
    batch, tokens, dim = x.shape
    heads = attention.num_heads
    q, k, v = attention.qkv(x).view(batch, tokens, 3, heads, dim // heads).unbind(2)
    scores = torch.einsum("bnhd,bmhd->bhnm", q, k) / (dim // heads) ** 0.5
    mixed = torch.einsum("bhnm,bmhd->bnhd", scores.softmax(-1), v)
    return attention.proj(mixed.reshape(batch, tokens, dim))


def _patchify(images: Tensor, patch: int) -> Tensor:
    rows = [
        images[:, top : top + patch, left : left + patch].flatten(1)
        for top in range(0, images.shape[1], patch)
        for left in range(0, images.shape[2], patch)
    ]
    return torch.stack(rows, dim=1)
