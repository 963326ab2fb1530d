"""The loss and every gradient equal Hugging Face's own masked auto-encoder in float64."""

import pytest
import torch

from mae_lib.bench.step import Setting, transformers_model
from mae_lib.model.mae import MaskedAutoencoder
from mae_lib.model.masking import keep_count
from mae_lib.model.positions import sincos_positions
from mae_lib.study.models import ModelShape

pytest.importorskip(
    "transformers", reason='transformers is not installed: pip install "mae-lib[peers]"'
)

# 64 patches, and 100: there binary rounding keeps 19 of 100 instead of 20.
SETTINGS = [
    Setting(ModelShape(48, 3, 3, 32, 2, 2), 32, 4, 3),
    Setting(ModelShape(24, 2, 2, 16, 1, 2), 20, 2, 3),
]
BLOCK = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.o_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def renamed(theirs: dict[str, torch.Tensor], shape: ModelShape) -> dict[str, torch.Tensor]:
    """Give tensors of Hugging Face's model our names; queries, keys and values are stacked."""
    ours = {
        "encoder.cls_token": theirs["vit.embeddings.cls_token"],
        "mask_token": theirs["decoder.mask_token"],
    }
    layers = {
        "encoder.patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
        "encoder.norm": "vit.layernorm",
        "decoder_embed": "decoder.decoder_embed",
        "decoder_norm": "decoder.decoder_norm",
        "decoder_pred": "decoder.decoder_pred",
    }
    for mine, other, depth in (
        ("encoder.blocks", "vit.layers", shape.depth),
        ("decoder_blocks", "decoder.decoder_layers", shape.decoder_depth),
    ):
        for i in range(depth):
            layers |= {f"{mine}.{i}.{a}": f"{other}.{i}.{b}" for a, b in BLOCK.items()}
            for kind in ("weight", "bias"):
                parts = [theirs[f"{other}.{i}.attention.{c}_proj.{kind}"] for c in "qkv"]
                ours[f"{mine}.{i}.attn.qkv.{kind}"] = torch.cat(parts)
    for mine, other in layers.items():
        for kind in ("weight", "bias"):
            ours[f"{mine}.{kind}"] = theirs[f"{other}.{kind}"]
    return ours


def both(setting: Setting):
    theirs = transformers_model(setting, "sdpa").double()
    generator = torch.Generator().manual_seed(3)
    for parameter in theirs.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator).double()
    ours = MaskedAutoencoder(
        setting.shape,
        pixels=setting.pixels,
        patch_size=setting.patch_size,
        keep=keep_count(setting.tokens, 0.8),
    ).double()
    missing = ours.load_state_dict(renamed(theirs.state_dict(), setting.shape), strict=False)
    assert missing.missing_keys == ["encoder.pos_embed"]
    assert missing.unexpected_keys == []
    return ours, theirs, generator


@pytest.mark.parametrize("setting", SETTINGS, ids=["64 patches", "100 patches"])
def test_loss_and_every_gradient_equal_hugging_faces_in_float64(setting):
    ours, theirs, generator = both(setting)
    side = setting.pixels
    images = torch.randn(setting.batch, side, side, 3, generator=generator).double()
    noise = torch.rand(setting.batch, setting.tokens, generator=generator).double()
    # Hugging Face leaves positions at zero in a fresh model (5.23): both get ours.
    theirs.vit.embeddings.position_embeddings.data.copy_(ours.encoder.pos_embed)
    theirs.decoder.decoder_pos_embed.data.copy_(ours.decoder_pos_embed[None])
    expected = theirs(pixel_values=images.permute(0, 3, 1, 2), noise=noise).loss
    loss = ours(images, noise.argsort(1))
    assert abs(loss - expected) <= 1e-12 * abs(expected)
    expected.backward()
    loss.backward()
    gradients = renamed({n: p.grad for n, p in theirs.named_parameters()}, setting.shape)
    for name, parameter in ours.named_parameters():
        if parameter.requires_grad:
            difference = (parameter.grad - gradients[name]).norm()
            assert difference <= 1e-9 * gradients[name].norm(), name


@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (10, 10), (3, 5)])
def test_positions_equal_hugging_faces(rows, columns):
    from transformers.models.vit_mae import modeling_vit_mae

    theirs = modeling_vit_mae.build_2d_sinusoidal_position_embedding(
        rows, columns, embed_dim=24, cls_token=True, dtype=torch.float64
    )
    # Their builder puts rows first; their model turns the halves, as the published weights have it.
    theirs = torch.cat([theirs[:, 12:], theirs[:, :12]], dim=1)
    torch.testing.assert_close(sincos_positions(24, rows, columns), theirs, atol=1e-12, rtol=0)
