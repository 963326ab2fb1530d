"""Parameters, FLOPs, memory and hours of any cell on any device, trained or not.

Counted from shapes, never measured: what a device reaches of its peak is the one number taken from
elsewhere, and `mae_lib.devices` says from where, and how many devices a model needs.
"""

from dataclasses import dataclass

from mae_lib.errors import StudyError
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
# Recomputed in the backward pass, a block keeps its input alone, in 16 bits.
CHECKPOINT_BYTES = 2


@dataclass(frozen=True)
class Stem:
    """timm's ResNet before a hybrid's encoder: bottlenecks a stage, pixels a side of a patch."""

    stages: tuple[int, ...]
    patch_size: int


STEMS: dict[str, Stem] = {
    "vit_base_r50_s16_224": Stem((3, 4, 9), 16),
    "vit_small_r26_s32_224": Stem((2, 2, 2, 2), 32),
    "vit_large_r50_s32_224": Stem((3, 4, 6, 3), 32),
    # Stride 4, then patches of 8 x 8 of its 64 channels.
    "vit_tiny_r_s16_p8_224": Stem((), 32),
}


@dataclass(frozen=True)
class Cost:
    """What a cell holds and does. FLOPs count a multiply-add as two, matrix products only.

    `flops_per_image` is one training step on one image: forward, and backward as two forwards;
    `flops_attention` and `flops_decoder` are the parts of it in the encoder's attention products
    and in the decoder. Activations are of one image in 16-bit arithmetic: all of them, only each
    block's input (`checkpointed`, the rest recomputed), and those of one encoder block.
    """

    params_encoder: int
    params_total: int
    params_block: int
    tokens: int
    kept: int
    flops_per_image: float
    flops_forward_full: float
    flops_attention: float
    flops_decoder: float
    state_bytes: int
    activation_bytes_per_image: int
    checkpointed_bytes_per_image: int
    block_bytes_per_image: int

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
    """Count a cell. A hybrid's stem sees the whole image, masked pixels filled, or its tiles."""
    recipe = cell.recipe
    return cost_of_sizes(
        cell.model,
        pixels=cell.pixels,
        patch_size=cell.patch_size,
        mask_ratio=cell.mask_ratio,
        keep_rule=recipe.keep_rule,
        decoder_dim=recipe.decoder_dim,
        decoder_depth=recipe.decoder_depth,
    )


def cost_of_sizes(
    model: str,
    *,
    pixels: int,
    patch_size: int,
    mask_ratio: float = 0.8,
    keep_rule: str = "reference",
    decoder_dim: int | None = None,
    decoder_depth: int | None = None,
) -> Cost:
    """Count a model of the grid by name. Pixels beyond whole patches are dropped (226 is 224).

    Raises: StudyError for an unknown model, or a patch that its stem does not have.
    """
    shape, tokens = model_shape(model), (pixels // patch_size) ** 2
    if shape.stem and STEMS[shape.stem].patch_size != patch_size:
        raise StudyError(
            f"patch_size: the stem of {model} has patches of {STEMS[shape.stem].patch_size} pixels, "
            f"got {patch_size}"
        )
    kept = tokens * (1 - mask_ratio)
    return count(
        shape,
        tokens=tokens,
        kept=max(1, int(kept) if keep_rule == "reference" else int(round(kept, 9))),
        values=patch_size**2 * CHANNELS,
        decoder=(decoder_dim or shape.decoder_dim, decoder_depth or shape.decoder_depth),
        pixels=pixels - pixels % patch_size,
    )


def count(
    shape: ModelShape, *, tokens: int, kept: int, values: int, decoder: tuple[int, int], pixels: int
) -> Cost:
    """Count an encoder with its decoder on `tokens` patches of `values` numbers, `kept` visible."""
    dim, (decoder_dim, decoder_depth), masked = shape.embed_dim, decoder, tokens - kept
    stem_params, stem_flops, embedded = _embedding(shape, values, pixels, tokens)
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
    # A filled image goes through the stem whole; tiles and plain patches only where visible.
    seen = tokens if shape.stem and not shape.stem_tiles else kept
    stem_share = stem_flops * seen / tokens + 2 * embedded * dim * seen
    decoding = 2 * (kept + 1) * dim * decoder_dim + full_blocks + last
    decoding += 2 * masked * decoder_dim * values
    forward = stem_share + shape.depth * _block_flops(dim, kept + 1, kept + 1) + decoding
    whole = stem_flops + 2 * embedded * dim * tokens
    whole += shape.depth * _block_flops(dim, tokens + 1, tokens + 1)
    token_channels = (kept + 1) * dim * shape.depth + (tokens + 1) * decoder_dim * decoder_depth
    return Cost(
        params_encoder=encoder,
        params_total=encoder + decoder_params,
        params_block=_block_params(dim),
        tokens=tokens,
        kept=kept,
        flops_per_image=3.0 * forward,
        flops_forward_full=float(whole),
        flops_attention=12.0 * shape.depth * (kept + 1) ** 2 * dim,
        flops_decoder=3.0 * decoding,
        state_bytes=STATE_BYTES * (encoder + decoder_params),
        activation_bytes_per_image=ACTIVATION_BYTES * token_channels,
        checkpointed_bytes_per_image=CHECKPOINT_BYTES * token_channels,
        block_bytes_per_image=ACTIVATION_BYTES * (kept + 1) * dim,
    )


def _block_params(dim: int) -> int:
    """Two norms, packed qkv and projection, an MLP four wide; every one with its bias."""
    return 12 * dim * dim + 13 * dim


def _block_flops(dim: int, queries: int, tokens: int) -> int:
    """Keys and values for all tokens; queries, projection and MLP for `queries` of them."""
    products = 2 * dim * dim * (2 * tokens + 2 * queries + 8 * queries)
    return products + 4 * queries * tokens * dim


def _embedding(shape: ModelShape, values: int, pixels: int, tokens: int) -> tuple[int, float, int]:
    """Return parameters and FLOPs of a convolutional stem on all patches (0 without), and how many
    values of an embedded patch are projected."""
    if shape.stem is None:
        return values * shape.embed_dim + shape.embed_dim, 0.0, values
    stem = STEMS[shape.stem]
    side = stem.patch_size if shape.stem_tiles else pixels
    params, flops, projected = _resnet_stem(stem, side)
    flops *= tokens if shape.stem_tiles else 1
    return params + projected * shape.embed_dim + shape.embed_dim, flops, projected


def _resnet_stem(stem: Stem, pixels: int) -> tuple[int, float, int]:
    """Count a ResNet with bottlenecks, stride 4 before its stages, on one image.

    Source: Dosovitskiy et al. 2021 (arXiv 2010.11929), appendix B; Steiner et al. 2022
    (arXiv 2106.10270); timm's vision_transformer_hybrid.
    """
    side = -(-pixels // 2)
    params = 7 * 7 * CHANNELS * 64 + 2 * 64
    flops = 2.0 * 7 * 7 * CHANNELS * 64 * side**2
    side, width = -(-side // 2), 64
    for stage, blocks in enumerate(stem.stages):
        out, stride = 256 * 2**stage, 2 if stage else 1
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
    stride = 4 * 2 ** max(0, len(stem.stages) - 1)
    return params, flops, width * (stem.patch_size // stride) ** 2
