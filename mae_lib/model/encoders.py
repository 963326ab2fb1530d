"""Encoders: timm's own modules hold the parameters, so that trained weights load into timm."""

import functools

import torch

from mae_lib.model.positions import sincos_positions
from mae_lib.model.timm_modules import VisionTransformer
from mae_lib.study.models import ModelShape

# The original's value. timm's default is the same; Hugging Face's default is 1e-12.
NORM_EPS = 1e-6


def build_encoder(shape: ModelShape, *, pixels: int, patch_size: int) -> VisionTransformer:
    """Build a timm VisionTransformer without a head and with fixed sine-cosine positions."""
    encoder = VisionTransformer(
        img_size=pixels,
        patch_size=patch_size,
        embed_dim=shape.embed_dim,
        depth=shape.depth,
        num_heads=shape.num_heads,
        num_classes=0,
        global_pool="token",
        norm_layer=functools.partial(torch.nn.LayerNorm, eps=NORM_EPS),
        weight_init="skip",
    )
    side = pixels // patch_size
    encoder.pos_embed.data.copy_(sincos_positions(shape.embed_dim, side, side)[None])
    encoder.pos_embed.requires_grad_(False)
    return encoder
