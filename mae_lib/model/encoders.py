"""Encoders: timm's own modules hold the parameters, so that trained weights load into timm."""

import functools

import torch

from mae_lib.errors import KernelError
from mae_lib.model.positions import sincos_positions
from mae_lib.model.timm_modules import VisionTransformer, create_model
from mae_lib.study.models import ModelShape

# The original's value. timm's default is the same; Hugging Face's default is 1e-12.
NORM_EPS = 1e-6


def build_encoder(
    shape: ModelShape, *, pixels: int | tuple[int, int], patch_size: int, channels: int = 3
) -> VisionTransformer:
    """Build a timm VisionTransformer without a head and with fixed sine-cosine positions.

    `pixels` is the side of square images, or (height, width).
    With `shape.stem`, patches are embedded by the convolutional stem of that timm model.
    Raises: KernelError when the stem's patches are of another size.
    """
    height, width = (pixels, pixels) if isinstance(pixels, int) else pixels
    settings = {
        "img_size": pixels,
        "in_chans": channels,
        "embed_dim": shape.embed_dim,
        "depth": shape.depth,
        "num_heads": shape.num_heads,
        "num_classes": 0,
        "global_pool": "token",
        "norm_layer": functools.partial(torch.nn.LayerNorm, eps=NORM_EPS),
        "weight_init": "skip",
    }
    if shape.stem is None:
        encoder = VisionTransformer(patch_size=patch_size, **settings)
    else:
        encoder = create_model(shape.stem, **settings)
        stride = encoder.patch_embed.feat_ratio()
        covered = tuple(stride * count for count in encoder.patch_embed.grid_size)
        if stride != patch_size or covered != (height, width):
            raise KernelError(
                f"patch_size: the stem of {shape.stem} has patches of {stride} pixels, "
                f"got {patch_size} at {height} x {width} px",
                exit_code=2,
            )
    positions = sincos_positions(shape.embed_dim, height // patch_size, width // patch_size)
    encoder.pos_embed.data.copy_(positions[None])
    encoder.pos_embed.requires_grad_(False)
    return encoder
