"""Names of a masked auto-encoder's tensors in other projects' checkpoints, and the way between.

Tensors are renamed and, where queries, keys and values are kept apart, cut or joined along their
first axis in this order; nothing is transposed. Patch embeddings are convolutions `[D, C, P, P]`
everywhere; the decoder's head predicts each patch as (row, column, channel) everywhere. Position
tables have a leading axis of 1 outside (`[1, L + 1, D]`); our decoder's lacks it, and is computed,
not stored.
Source: names as in facebookresearch/mae (`models_mae.py`), timm 1.0 (`VisionTransformer`),
transformers 4 and 5 (`ViTMAEForPreTraining`); names are facts, no code is taken.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mae_lib.errors import RecordError
from mae_lib.model.mae import MaskedAutoencoder

DECODER_POSITIONS = "decoder_pos_embed"
# Other programs compute positions in float32; more than this is another table.
POSITION_TOLERANCE = 1e-4
_BLOCK = re.compile(r"(encoder\.blocks|decoder_blocks)\.(\d+)\.(.+)\.(weight|bias)")
_PARTS = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")


@dataclass(frozen=True)
class Spelling:
    """How a family of checkpoints spells our names.

    `modules` maps beginnings of names; `blocks` where the encoder's and decoder's blocks lie;
    `parts` the modules of one block: three names where queries, keys and values are apart.
    """

    modules: Mapping[str, str]
    blocks: Mapping[str, str]
    parts: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {part: (part,) for part in _PARTS}
    )


_DECODER = {
    name: name
    for name in ("mask_token", DECODER_POSITIONS, "decoder_embed", "decoder_norm", "decoder_pred")
}
_ENCODER = ("cls_token", "pos_embed", "patch_embed", "norm")

_HF_MODULES = {
    "encoder.cls_token": "vit.embeddings.cls_token",
    "encoder.pos_embed": "vit.embeddings.position_embeddings",
    "encoder.patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
    "encoder.norm": "vit.layernorm",
    **{name: f"decoder.{name}" for name in _DECODER},
}
_HF_PARTS = {
    "norm1": ("layernorm_before",),
    "attn.qkv": tuple(f"attention.attention.{name}" for name in ("query", "key", "value")),
    "attn.proj": ("attention.output.dense",),
    "norm2": ("layernorm_after",),
    "mlp.fc1": ("intermediate.dense",),
    "mlp.fc2": ("output.dense",),
}
_HF_5_PARTS = _HF_PARTS | {
    "attn.qkv": tuple(f"attention.{name}_proj" for name in "qkv"),
    "attn.proj": ("attention.o_proj",),
    "mlp.fc1": ("mlp.fc1",),
    "mlp.fc2": ("mlp.fc2",),
}

SPELLINGS: dict[str, Spelling] = {
    # What training leaves in weights.safetensors.
    "ours": Spelling(
        {f"encoder.{name}": f"encoder.{name}" for name in _ENCODER} | _DECODER,
        {"encoder.blocks": "encoder.blocks", "decoder_blocks": "decoder_blocks"},
    ),
    # facebookresearch/mae; its encoder's names are timm's.
    "mae": Spelling(
        {f"encoder.{name}": name for name in _ENCODER} | _DECODER,
        {"encoder.blocks": "blocks", "decoder_blocks": "decoder_blocks"},
    ),
    # The published files of facebook/vit-mae-*, read by transformers 4 and 5.
    "hf": Spelling(
        _HF_MODULES,
        {"encoder.blocks": "vit.encoder.layer", "decoder_blocks": "decoder.decoder_layers"},
        _HF_PARTS,
    ),
    # The modules of transformers 5 in memory.
    "hf, modules of 5": Spelling(
        _HF_MODULES,
        {"encoder.blocks": "vit.layers", "decoder_blocks": "decoder.decoder_layers"},
        _HF_5_PARTS,
    ),
    # What save_pretrained of transformers 5.24 writes: the decoder's blocks under a name of its
    # own, which is neither that of the published files nor that of the modules.
    "hf, saved by 5": Spelling(
        _HF_MODULES,
        {"encoder.blocks": "vit.encoder.layer", "decoder_blocks": "decoder.decoder_encoder.layer"},
        _HF_PARTS,
    ),
}


def spelled(name: str, spelling: Spelling) -> tuple[str, ...]:
    """Return the name, or the three names, of our tensor `name` in another spelling."""
    if match := _BLOCK.fullmatch(name):
        blocks, number, part, kind = match.groups()
        where = f"{spelling.blocks[blocks]}.{number}"
        return tuple(f"{where}.{theirs}.{kind}" for theirs in spelling.parts[part])
    for ours, theirs in spelling.modules.items():
        if name == ours or name.startswith(f"{ours}."):
            return (theirs + name.removeprefix(ours),)
    raise KeyError(name)


def exported(model: MaskedAutoencoder, spelling: str) -> dict[str, Tensor]:
    """Return every tensor of `model` in another spelling, the decoder's positions included.

    Raises: RecordError when that spelling has no name for a tensor (a convolutional stem).
    """
    tensors = {}
    for name, tensor in _named_tensors(model).items():
        try:
            names = spelled(name, SPELLINGS[spelling])
        except KeyError:
            raise RecordError(
                f"{name}: has no name in {spelling}: a convolutional stem is timm's; export to timm",
                exit_code=2,
            ) from None
        for theirs, part in zip(names, tensor.chunk(len(names)), strict=True):
            tensors[theirs] = part.contiguous().clone()
    return tensors


def recognise(names: Iterable[str]) -> str:
    """Return the spelling that explains most of a checkpoint's names.

    Raises: RecordError when it is no masked auto-encoder in any spelling.
    """
    names = set(names)
    firsts = [f"{blocks}.0.attn.qkv.weight" for blocks in ("encoder.blocks", "decoder_blocks")]
    probes = ("encoder.cls_token", "encoder.pos_embed", "mask_token", *firsts)
    found = {
        key: sum(names.issuperset(spelled(probe, spelling)) for probe in probes)
        for key, spelling in SPELLINGS.items()
    }
    best = max(found, key=lambda key: found[key])
    if found[best] < 3:
        some = ", ".join(sorted(names)[:3]) or "nothing"
        raise RecordError(
            f"checkpoint: holds no vision transformer in the names of mae, timm or Hugging Face, "
            f"got {some}",
            exit_code=2,
        )
    return best


def load_tensors(
    model: MaskedAutoencoder, tensors: Mapping[str, Tensor], *, decoder: bool = True
) -> None:
    """Load a checkpoint in any spelling into `model`, every tensor checked before any is changed.

    With `decoder=False` only the encoder is loaded, and the checkpoint may be an encoder alone.
    Raises: RecordError naming the first tensor that is missing, left over or of another shape.
    """
    spelling = SPELLINGS[recognise(tensors)]
    wanted = {
        name: tensor
        for name, tensor in _named_tensors(model).items()
        if decoder or name.startswith("encoder.")
    }
    loaded, used = {}, set()
    for name, ours in wanted.items():
        loaded[name], names = _joined(name, ours, tensors, spelling)
        used.update(names)
    _refuse_left_over(set(tensors) - used, spelling, decoder=decoder)
    if decoder:
        _check_positions(loaded[DECODER_POSITIONS], wanted[DECODER_POSITIONS])
    with torch.no_grad():
        for name, tensor in loaded.items():
            wanted[name].copy_(tensor)


def _named_tensors(model: MaskedAutoencoder) -> dict[str, Tensor]:
    """Every stored tensor of ours, and the decoder's positions as `[1, L + 1, d]`."""
    return {**model.state_dict(), DECODER_POSITIONS: model.decoder_pos_embed[None]}


def _joined(
    name: str, ours: Tensor, tensors: Mapping[str, Tensor], spelling: Spelling
) -> tuple[Tensor, tuple[str, ...]]:
    """Find our tensor `name` in a checkpoint, its parts joined, and check its shape."""
    try:
        names = spelled(name, spelling)
    except KeyError:
        names = (name,)
    if missing := [theirs for theirs in names if theirs not in tensors]:
        only = "" if name.startswith("encoder.") else " (an encoder alone loads with decoder=False)"
        raise RecordError(
            f"{missing[0]}: missing in the checkpoint, wanted {list(ours.shape)}{only}", exit_code=2
        )
    shape = (ours.shape[0] // len(names), *ours.shape[1:])
    for theirs in names:
        if tensors[theirs].shape != shape:
            raise RecordError(
                f"{theirs}: of another architecture{_about(name)}, "
                f"got {list(tensors[theirs].shape)}, wanted {list(shape)}",
                exit_code=2,
            )
    return torch.cat([tensors[theirs] for theirs in names]), names


def _about(name: str) -> str:
    return " or image size" if name.endswith("pos_embed") else ""


def _refuse_left_over(names: set[str], spelling: Spelling, *, decoder: bool) -> None:
    """A tensor that nobody asked for means another model; only a decoder left out on purpose is."""
    if not decoder:
        places = [*(spelling.modules[name] for name in _DECODER), spelling.blocks["decoder_blocks"]]
        names = {n for n in names if not any(n == p or n.startswith(f"{p}.") for p in places)}
    if names:
        more = f" (+{len(names) - 1} more)" if len(names) > 1 else ""
        raise RecordError(
            f"{sorted(names)[0]}: of another architecture, this model has no such tensor{more}",
            exit_code=2,
        )


def _check_positions(theirs: Tensor, ours: Tensor) -> None:
    far = (theirs.to(ours.dtype) - ours).abs().max()
    if ours.device.type != "meta" and far > POSITION_TOLERANCE:
        raise RecordError(
            f"{DECODER_POSITIONS}: not the fixed sine-cosine table that is computed here, "
            f"got values up to {float(far):.2g} away",
            exit_code=2,
        )
