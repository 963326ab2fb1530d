"""The encoders of the grid by name, each with its default decoder. Shapes only: no torch."""

import math
from dataclasses import dataclass

from mae_lib.errors import StudyError
from mae_lib.study.suggest import nearest


@dataclass(frozen=True)
class ModelShape:
    """Width, depth and heads of an encoder and of its default decoder; MLPs are 4 wide.

    `stem` is None for a plain patch embedding, else the timm model whose stem (and block shape)
    it takes: it sees the whole image, masked patches filled. With `stem_tiles` it sees each visible
    patch as an image of its own, so that the mask saves as much of the stem as of the image.
    The default decoder is about half the encoder's width: the 512 x 8 of the MAE paper would be
    96 % of the work of a tiny encoder.
    """

    embed_dim: int
    depth: int
    num_heads: int
    decoder_dim: int
    decoder_depth: int
    decoder_heads: int
    stem: str | None = None
    stem_tiles: bool = False


MODELS: dict[str, ModelShape] = {
    "vit_pico": ModelShape(64, 2, 2, 64, 1, 2),
    "vit_nano": ModelShape(96, 4, 3, 64, 1, 2),
    "vit_micro": ModelShape(128, 4, 4, 96, 2, 3),
    "vit_tiny_d6": ModelShape(192, 6, 3, 128, 2, 4),
    "vit_tiny": ModelShape(192, 12, 3, 128, 2, 4),
    "vit_small": ModelShape(384, 12, 6, 192, 4, 6),
    "vit_base": ModelShape(768, 12, 12, 512, 8, 16),
    "vit_large": ModelShape(1024, 24, 16, 512, 8, 16),
    "vit_huge": ModelShape(1280, 32, 16, 512, 8, 16),
    # The paper names "ViT-Hybrid" and no shape: the ResNet-50 stem on a base encoder is the one
    # of the ViT paper (Dosovitskiy et al. 2021, table 2, R50+ViT-B/16).
    "vit_hybrid": ModelShape(768, 12, 12, 512, 8, 16, stem="vit_base_r50_s16_224"),
    "vit_hybrid_tiles": ModelShape(
        768, 12, 12, 512, 8, 16, stem="vit_base_r50_s16_224", stem_tiles=True
    ),
    # timm's other hybrids, all with patches of 32 pixels: R26+ViT-S/32, R50+ViT-L/32 and a bare
    # convolution before ViT-Ti (timm's name says s16; its stride is 4 x 8).
    "vit_hybrid_tiny": ModelShape(192, 12, 3, 128, 2, 4, stem="vit_tiny_r_s16_p8_224"),
    "vit_hybrid_r26": ModelShape(384, 12, 6, 192, 4, 6, stem="vit_small_r26_s32_224"),
    "vit_hybrid_r26_tiles": ModelShape(
        384, 12, 6, 192, 4, 6, stem="vit_small_r26_s32_224", stem_tiles=True
    ),
    "vit_hybrid_large": ModelShape(1024, 24, 16, 512, 8, 16, stem="vit_large_r50_s32_224"),
    # On the way to the paper's size, with heads 128 wide as there: 100.7 and 197.3 billion at
    # 224 pixels and patch 16 (12 width^2 depth, and positions).
    "vit_100b": ModelShape(10240, 80, 80, 512, 8, 16),
    "vit_200b": ModelShape(14336, 80, 112, 512, 8, 16),
    # The paper names 522 billion parameters and no shape: this one has 523.1 billion.
    "vit_522b": ModelShape(18432, 128, 144, 512, 8, 16),
}


def model_shape(name: str) -> ModelShape:
    """Look a model up by name.

    Raises: StudyError naming the nearest known model.
    """
    if name not in MODELS:
        raise StudyError(f"model: unknown name, got {name!r}{nearest(name, MODELS)}")
    return MODELS[name]


def require_decoder(model: str, dim: int | None, heads: int | None = None) -> None:
    """Refuse a decoder `dim` wide that its heads, or the four parts of a position, do not divide.

    None stands for the model's own. Raises: StudyError.
    """
    shape = model_shape(model)
    width, count = dim or shape.decoder_dim, heads or shape.decoder_heads
    unit = math.lcm(count, 4)
    if width % unit:
        below = width - width % unit
        fitting = f"{below} or {below + unit}" if below else f"{unit}"
        raise StudyError(
            f"decoder_dim: must be a multiple of its {count} heads and of 4 (the sines and cosines "
            f"of a position), got {width}; {fitting} would do"
        )
