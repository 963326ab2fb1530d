"""A model's sizes as the config.json of another project, and a model built from such a folder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from mae_lib.errors import KernelError, RecordError
from mae_lib.kernels.crop import MEAN, SD
from mae_lib.model.encoders import NORM_EPS
from mae_lib.model.interchange import SPELLINGS, load_tensors, recognise, spelled
from mae_lib.model.mae import CHANNELS, MaskedAutoencoder
from mae_lib.model.masking import keep_count
from mae_lib.model.weight_files import read_config, read_weights
from mae_lib.study.models import MODELS, ModelShape, model_shape

# Our own section of config.json in the formats that have no words for a decoder.
SECTION = "masked_autoencoder"
# The original's: used where a checkpoint does not say.
MASK_RATIO = 0.75
# timm builds any plain encoder from this entry point once its sizes are given.
_TIMM_PLAIN = "vit_base_patch16_224"


@dataclass(frozen=True)
class Sizes:
    """All that a model is built from."""

    shape: ModelShape
    pixels: int
    patch_size: int
    keep: int
    norm_pix: bool


def sizes_of(model: MaskedAutoencoder) -> Sizes:
    """Read the sizes of a model off its modules, so that a recipe's own decoder is in them."""
    shape, blocks = model.shape, model.decoder_blocks
    shape = ModelShape(
        shape.embed_dim,
        shape.depth,
        shape.num_heads,
        model.mask_token.shape[-1],
        len(blocks),
        blocks[0].attn.num_heads,
        stem=shape.stem,
        stem_tiles=shape.stem_tiles,
    )
    return Sizes(shape, model.pixels, model.patch_size, model.keep, model.norm_pix)


def hf_config(sizes: Sizes) -> dict:
    """Return the config.json of transformers' ViTMAEForPreTraining."""
    shape = sizes.shape
    return {
        "architectures": ["ViTMAEForPreTraining"],
        "model_type": "vit_mae",
        "hidden_size": shape.embed_dim,
        "num_hidden_layers": shape.depth,
        "num_attention_heads": shape.num_heads,
        "intermediate_size": 4 * shape.embed_dim,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02,
        # Hugging Face's default of 1e-12 is not what the weights were trained with.
        "layer_norm_eps": NORM_EPS,
        "image_size": sizes.pixels,
        "patch_size": sizes.patch_size,
        "num_channels": CHANNELS,
        "qkv_bias": True,
        "decoder_hidden_size": shape.decoder_dim,
        "decoder_num_hidden_layers": shape.decoder_depth,
        "decoder_num_attention_heads": shape.decoder_heads,
        "decoder_intermediate_size": 4 * shape.decoder_dim,
        "mask_ratio": ratio_of(sizes),
        "norm_pix_loss": sizes.norm_pix,
        "dtype": "float32",
    }


def hf_preprocessor(sizes: Sizes) -> dict:
    """Return preprocessor_config.json: whole images resized, then normalised as in training."""
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": sizes.pixels, "width": sizes.pixels},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(MEAN),
        "image_std": list(SD),
    }


def timm_config(sizes: Sizes) -> dict:
    """Return the config.json that `timm.create_model("local-dir:FOLDER")` builds the encoder from."""
    shape = sizes.shape
    arguments = {
        "img_size": sizes.pixels,
        "global_pool": "token",
        "embed_dim": shape.embed_dim,
        "depth": shape.depth,
        "num_heads": shape.num_heads,
    }
    convolution = {}
    if shape.stem is None:
        arguments["patch_size"] = sizes.patch_size
        convolution = {"first_conv": "patch_embed.proj"}
    return {
        "architecture": shape.stem or _TIMM_PLAIN,
        "num_classes": 0,
        "num_features": shape.embed_dim,
        "global_pool": "token",
        "model_args": arguments,
        "pretrained_cfg": {
            "num_classes": 0,
            "input_size": [CHANNELS, sizes.pixels, sizes.pixels],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "mean": list(MEAN),
            "std": list(SD),
            "classifier": "head",
            **convolution,
        },
        SECTION: own_section(sizes),
    }


def mae_config(sizes: Sizes) -> dict:
    """Return our own config.json: facebookresearch/mae has none, its sizes lie in its code."""
    return {SECTION: own_section(sizes)}


def own_section(sizes: Sizes) -> dict:
    """Return everything that a model is built from, in our words."""
    shape = sizes.shape
    return {
        "embed_dim": shape.embed_dim,
        "depth": shape.depth,
        "num_heads": shape.num_heads,
        "stem": shape.stem,
        "stem_tiles": shape.stem_tiles,
        "decoder_dim": shape.decoder_dim,
        "decoder_depth": shape.decoder_depth,
        "decoder_heads": shape.decoder_heads,
        "pixels": sizes.pixels,
        "patch_size": sizes.patch_size,
        "keep": sizes.keep,
        "norm_pix": sizes.norm_pix,
    }


CONFIGS: dict[str, Callable[[Sizes], dict]] = {
    "hf": hf_config,
    "timm": timm_config,
    "mae": mae_config,
}


def ratio_of(sizes: Sizes) -> float:
    """Return a mask ratio from which Hugging Face's own rule, int(L (1 - ratio)), gets our count.

    The shortest decimal that does it: 0.8 where 0.8 was meant, unless binary rounding of it keeps
    another count (100 patches), or the count was rounded by the exact rule.
    """
    tokens = (sizes.pixels // sizes.patch_size) ** 2
    for digits in range(1, 8):
        for kept in (sizes.keep, sizes.keep + 0.5):
            ratio = round(1 - kept / tokens, digits)
            if int(tokens * (1 - ratio)) == sizes.keep:
                return ratio
    return 1 - (sizes.keep + 0.5) / tokens


def model_from(
    path: Path, *, model: str | None = None, decoder: bool | None = None
) -> MaskedAutoencoder:
    """Build the model of a checkpoint in any spelling, and load it.

    Sizes come from config.json where there is one, else from the tensors' shapes; the number of
    heads, which no tensor tells, then comes from the known model of the same width and depth, or
    from `model`, a name of the grid. `decoder=False` takes an encoder alone and leaves the decoder
    at its initialisation; None takes what is there.
    Raises: RecordError in one line for anything that is not such a checkpoint.
    """
    try:
        tensors = read_weights(path)
        sizes = _checkpoint_sizes(tensors, read_config(path), model)
        _check_first(tensors, sizes)
        if decoder is None:
            decoder = _has_decoder(tensors)
        built = MaskedAutoencoder(
            sizes.shape,
            pixels=sizes.pixels,
            patch_size=sizes.patch_size,
            keep=sizes.keep,
            norm_pix=sizes.norm_pix,
        ).initialise(0)
        load_tensors(built, tensors, decoder=decoder)
    except (RecordError, KernelError) as error:
        where = "" if str(error).startswith(str(path)) else f"{path}: "
        code = error.exit_code if isinstance(error, RecordError) else 2
        raise RecordError(f"{where}{error}", exit_code=code) from None
    return built


def _check_first(tensors: Mapping[str, Tensor], sizes: Sizes) -> None:
    """Compare sizes with the tensors before memory is taken for a model of these sizes."""
    spelling, shape = SPELLINGS[recognise(tensors)], sizes.shape
    name, positions = (
        spelled(f"encoder.{each}", spelling)[0] for each in ("cls_token", "pos_embed")
    )
    dim = shape.embed_dim
    tokens = (sizes.pixels // max(1, sizes.patch_size)) ** 2 + 1
    for theirs, wanted in ((name, [1, 1, dim]), (positions, [1, tokens, dim])):
        if theirs in tensors and list(tensors[theirs].shape) != wanted:
            raise RecordError(
                f"{theirs}: of another architecture or image size, "
                f"got {list(tensors[theirs].shape)}, wanted {wanted}",
                exit_code=2,
            )
    blocks = shape.depth + shape.decoder_depth
    if blocks > len(tensors) or max(shape.decoder_dim, sizes.patch_size) > 10**5:
        raise RecordError(
            f"config.json: of another architecture, {blocks} blocks for {len(tensors)} tensors",
            exit_code=2,
        )


def _has_decoder(tensors: Mapping[str, Tensor]) -> bool:
    return spelled("mask_token", SPELLINGS[recognise(tensors)])[0] in tensors


def _checkpoint_sizes(tensors: Mapping[str, Tensor], config: dict, model: str | None) -> Sizes:
    if model is None and SECTION in config:
        return _from_section(config[SECTION])
    if model is None and config.get("model_type") == "vit_mae":
        return _from_hf(config)
    return _from_tensors(tensors, model)


def _from_section(section: dict) -> Sizes:
    names = ("embed_dim", "depth", "num_heads", "decoder_dim", "decoder_depth", "decoder_heads")
    try:
        shape = ModelShape(
            *(int(section[name]) for name in names),
            stem=section["stem"],
            stem_tiles=bool(section["stem_tiles"]),
        )
        numbers = (int(section[name]) for name in ("pixels", "patch_size", "keep"))
        return Sizes(shape, *numbers, norm_pix=bool(section["norm_pix"]))
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(f"config.json: {SECTION}: not as written, got {error}") from None


def _from_hf(config: dict) -> Sizes:
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads")
    names = (*names, *(f"decoder_{name}" for name in names))
    try:
        shape = ModelShape(*(int(config[name]) for name in names))
        pixels, patch = int(config["image_size"]), int(config["patch_size"])
        ratio = float(config.get("mask_ratio", MASK_RATIO))
        keep = keep_count((pixels // patch) ** 2, ratio)
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise RecordError(f"config.json: not of ViTMAE, got {error}", exit_code=2) from None
    return Sizes(shape, pixels, patch, keep, bool(config.get("norm_pix_loss", False)))


def _from_tensors(tensors: Mapping[str, Tensor], model: str | None) -> Sizes:
    spelling = SPELLINGS[recognise(tensors)]

    def found(name: str) -> Tensor:
        theirs = spelled(name, spelling)[0]
        if theirs not in tensors:
            raise RecordError(f"{theirs}: missing in the checkpoint", exit_code=2)
        return tensors[theirs]

    def blocks(where: str) -> int:
        names = (spelled(f"{where}.{i}.norm1.weight", spelling)[0] for i in range(len(tensors)))
        return next(i for i, name in enumerate((*names, "")) if name not in tensors)

    patch = found("encoder.patch_embed.proj.weight").shape[-1]
    tokens = found("encoder.pos_embed").shape[1] - 1
    side = round(tokens**0.5)
    if model is None:
        dim, depth = found("encoder.cls_token").shape[-1], blocks("encoder.blocks")
        shape = _known(dim, depth, "")
        if _has_decoder(tensors):
            dim, depth = found("mask_token").shape[-1], blocks("decoder_blocks")
            like = _known(dim, depth, "decoder_")
            shape = ModelShape(
                shape.embed_dim, shape.depth, shape.num_heads, dim, depth, like.decoder_heads
            )
    else:
        shape = model_shape(model)
    return Sizes(shape, side * patch, patch, keep_count(tokens, MASK_RATIO), norm_pix=True)


def _known(dim: int, depth: int, prefix: str) -> ModelShape:
    names = ("decoder_dim", "decoder_depth") if prefix else ("embed_dim", "depth")
    for shape in MODELS.values():
        if shape.stem is None and tuple(getattr(shape, name) for name in names) == (dim, depth):
            return shape
    raise RecordError(
        f"checkpoint: {prefix}width {dim} and {depth} blocks are no known model's, so its number of "
        "heads is not known; put its config.json beside it, or name the model",
        exit_code=2,
    )
