"""Parameters, FLOPs, memory and GPU-hours of any cell, trained or not. Counted, never measured."""

from dataclasses import dataclass

from mae_lib.study.definition import Cell
from mae_lib.study.models import ModelShape, model_shape

CHANNELS = 3
# bf16 dense peak of one H200 or H100, and the share of it that large trainings reach.
PEAK_FLOPS = 989e12
UTILISATION = 0.4
# fp32 master weight, two moments, gradient: AdamW in mixed precision, bytes a parameter.
STATE_BYTES = 16
# A block keeps about 34 bytes a token and channel for its backward pass in 16-bit arithmetic.
# Source: Korthikanti et al. 2022 (arXiv 2205.05198), equation 2, without the attention matrix.
ACTIVATION_BYTES = 34


@dataclass(frozen=True)
class Cost:
    """What a cell holds and does. FLOPs count a multiply-add as two, matrix products only.

    `flops_per_image` is one training step on one image: forward, and backward as two forwards.
    """

    params_encoder: int
    params_total: int
    tokens: int
    kept: int
    flops_per_image: float
    flops_forward_full: float
    state_bytes: int
    activation_bytes_per_image: int

    def gpu_hours(
        self,
        images_seen: float | int,
        *,
        peak: float = PEAK_FLOPS,
        utilisation: float = UTILISATION,
    ) -> float:
        """Return hours on one accelerator for training on `images_seen` images."""
        return self.flops_per_image * images_seen / (peak * utilisation) / 3600


def cost_of(cell: Cell) -> Cost:
    """Count a cell. A hybrid's stem sees the whole image, masked pixels filled."""
    shape, recipe = model_shape(cell.model), cell.recipe
    tokens = cell.tokens
    kept = max(1, int(tokens * (1 - cell.mask_ratio)))
    values = cell.patch_size**2 * CHANNELS
    decoder = (
        recipe.decoder_dim or shape.decoder_dim,
        recipe.decoder_depth or shape.decoder_depth,
    )
    return count(
        shape, tokens=tokens, kept=kept, values=values, decoder=decoder, pixels=cell.pixels
    )


def count(
    shape: ModelShape, *, tokens: int, kept: int, values: int, decoder: tuple[int, int], pixels: int
) -> Cost:
    """Count an encoder with its decoder on `tokens` patches of `values` numbers, `kept` visible."""
    dim, (decoder_dim, decoder_depth), masked = shape.embed_dim, decoder, tokens - kept
    stem_params, stem_flops, embedded = _embedding(shape, values, pixels)
    encoder = stem_params + dim * (tokens + 2) + shape.depth * _block_params(dim) + 2 * dim
    decoder_params = (
        dim * decoder_dim
        + 2 * decoder_dim
        + decoder_depth * _block_params(decoder_dim)
        + 2 * decoder_dim
        + decoder_dim * values
        + values
    )
    full_blocks = (decoder_depth - 1) * _block_flops(decoder_dim, tokens + 1, tokens + 1)
    last = _block_flops(decoder_dim, masked, tokens + 1)
    stem_share = stem_flops + 2 * embedded * dim * (tokens if shape.stem else kept)
    forward = (
        stem_share
        + shape.depth * _block_flops(dim, kept + 1, kept + 1)
        + 2 * (kept + 1) * dim * decoder_dim
        + full_blocks
        + last
        + 2 * masked * decoder_dim * values
    )
    whole = stem_flops + 2 * embedded * dim * tokens
    whole += shape.depth * _block_flops(dim, tokens + 1, tokens + 1)
    token_channels = (kept + 1) * dim * shape.depth + (tokens + 1) * decoder_dim * decoder_depth
    return Cost(
        params_encoder=encoder,
        params_total=encoder + decoder_params,
        tokens=tokens,
        kept=kept,
        flops_per_image=3.0 * forward,
        flops_forward_full=float(whole),
        state_bytes=STATE_BYTES * (encoder + decoder_params),
        activation_bytes_per_image=ACTIVATION_BYTES * token_channels,
    )


def _block_params(dim: int) -> int:
    """Two norms, packed qkv and projection, an MLP four wide; every one with its bias."""
    return 12 * dim * dim + 13 * dim


def _block_flops(dim: int, queries: int, tokens: int) -> int:
    """Keys and values for all tokens; queries, projection and MLP for `queries` of them."""
    products = 2 * dim * dim * (2 * tokens + 2 * queries + 8 * queries)
    return products + 4 * queries * tokens * dim


def _embedding(shape: ModelShape, values: int, pixels: int) -> tuple[int, float, int]:
    """Return parameters, FLOPs of a convolutional stem (0 without), and values an embedded patch."""
    if shape.stem is None:
        return values * shape.embed_dim + shape.embed_dim, 0.0, values
    params, flops, width = _resnet_stem(pixels)
    return params + width * shape.embed_dim + shape.embed_dim, flops, width


def _resnet_stem(pixels: int) -> tuple[int, float, int]:
    """Count the ResNet-50 of R50+ViT-B/16: stages of 3, 4 and 9 bottlenecks, stride 16 in all.

    Source: Dosovitskiy et al. 2021 (arXiv 2010.11929), appendix B; timm's vit_base_r50_s16.
    """
    side = -(-pixels // 2)
    params = 7 * 7 * CHANNELS * 64 + 2 * 64
    flops = 2.0 * 7 * 7 * CHANNELS * 64 * side**2
    side, width = -(-side // 2), 64
    for blocks, out, stride in ((3, 256, 1), (4, 512, 2), (9, 1024, 2)):
        for block in range(blocks):
            middle, before = out // 4, side
            side = -(-side // stride) if block == 0 else side
            kernels = ((width * middle, before), (9 * middle * middle, side), (middle * out, side))
            norms = middle + middle + out
            if block == 0:
                kernels, norms = (*kernels, (width * out, side)), norms + out
            params += sum(k for k, _ in kernels) + 2 * norms
            flops += sum(2.0 * k * at**2 for k, at in kernels)
            width = out
    return params, flops, width
