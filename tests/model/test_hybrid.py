"""A hybrid's stem is timm's own, sees no masked pixel, and trains exactly like the textbook form."""

import dataclasses

import numpy as np
import pytest
import torch

from mae_lib.errors import KernelError
from mae_lib.kernels.patches import gather_patches
from mae_lib.model.encoders import build_encoder
from mae_lib.model.hybrid import fill_masked
from mae_lib.model.mae import MaskedAutoencoder
from mae_lib.model.masking import patch_order
from mae_lib.model.reference import reference_loss
from mae_lib.model.timm_modules import create_model
from mae_lib.study.models import MODELS, ModelShape

# The stem of R50+ViT-B/16 on a narrow encoder: 16 patches of 16 pixels.
SHAPE = ModelShape(24, 1, 3, 16, 2, 2, stem=MODELS["vit_hybrid"].stem)
PIXELS, PATCH, TOKENS, KEEP = 64, 16, 16, 3
TILES = dataclasses.replace(SHAPE, stem_tiles=True)
# The bare convolution, the R26 stem and R50 with a stage more, patches of 32 pixels: the stems of the
# grid as they are, on a narrow encoder of one block, as deeper ones run the very same code.
OTHERS = {
    name: dataclasses.replace(MODELS[name], embed_dim=24, depth=1, num_heads=3, decoder_depth=2)
    for name in ("vit_hybrid_tiny", "vit_hybrid_r26", "vit_hybrid_r26_tiles", "vit_hybrid_large")
}


def build(dtype=torch.float32, compute_dtype=None, shape=SHAPE) -> MaskedAutoencoder:
    model = MaskedAutoencoder(
        shape, pixels=PIXELS, patch_size=PATCH, keep=KEEP, compute_dtype=compute_dtype
    )
    return model.initialise(1).to(dtype)


def batch(dtype=torch.float32):
    images = torch.randn(2, PIXELS, PIXELS, 3, generator=torch.Generator().manual_seed(0))
    return images.to(dtype), patch_order(0, np.arange(2), 0, TOKENS)


def redrawn(images, order):
    """Draw every masked pixel anew, one of them as NaN."""
    other = torch.randn(images.shape, generator=torch.Generator().manual_seed(9)).to(images.dtype)
    shown = fill_masked(torch.ones_like(images), order, keep=KEEP, patch=PATCH) == 1
    assert shown.float().mean() == KEEP / TOKENS
    changed = torch.where(shown, images, 10 * other)
    row, column = divmod(int(order[0, -1]), PIXELS // PATCH)
    changed[0, row * PATCH, column * PATCH] = torch.nan
    return changed


@pytest.mark.parametrize("shape", [SHAPE, TILES], ids=["filled", "tiles"])
@pytest.mark.parametrize("compute_dtype", [None, torch.bfloat16])
def test_redrawn_masked_pixels_do_not_move_a_visible_token_by_one_bit(compute_dtype, shape):
    model, (images, order) = build(compute_dtype=compute_dtype, shape=shape), batch()
    with torch.no_grad():
        tokens, again = (
            model.embed(pixels, gather_patches(pixels, order[:, :KEEP], PATCH), order)
            for pixels in (images, redrawn(images, order))
        )
    assert torch.equal(tokens, again)
    assert torch.isfinite(tokens).all()


def test_without_the_filling_masked_pixels_would_leak():
    model, (images, order) = build(), batch()
    visible = order[:, :KEEP, None].expand(-1, -1, SHAPE.embed_dim)
    with torch.no_grad():
        tokens, again = (
            model.encoder.patch_embed(pixels.permute(0, 3, 1, 2)).gather(1, visible)
            for pixels in (images, redrawn(images, order).nan_to_num(0.0))
        )
    moved = (tokens - again).norm(dim=-1) / tokens.norm(dim=-1)
    assert moved.min() > 0.05


def require_the_textbook_form(model, images, order):
    parameters = [p for p in model.parameters() if p.requires_grad]
    loss, expected = model(images, order), reference_loss(model, images, order)
    assert abs(loss - expected) <= 1e-12 * abs(expected)
    gradients = [torch.autograd.grad(each, parameters) for each in (loss, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        assert (ours - theirs).norm() <= 1e-9 * theirs.norm()


@pytest.mark.parametrize("shape", [SHAPE, TILES], ids=["filled", "tiles"])
def test_loss_and_every_gradient_equal_the_textbook_form_in_float64(shape):
    model = MaskedAutoencoder(shape, pixels=32, patch_size=PATCH, keep=2).initialise(1).double()
    images, order = batch(torch.float64)[0][:, 9:41, 9:41], patch_order(0, np.arange(2), 0, 4)
    require_the_textbook_form(model, images, order)


def test_a_stem_takes_images_that_are_not_square_and_of_one_channel():
    model = MaskedAutoencoder(SHAPE, pixels=(32, 48), patch_size=PATCH, keep=2, channels=1)
    model = model.initialise(1).double()
    images = batch(torch.float64)[0][:, :32, :48, :1]
    require_the_textbook_form(model, images, patch_order(0, np.arange(2), 0, 6))
    theirs = create_model(
        SHAPE.stem, img_size=(32, 48), in_chans=1, num_classes=0, embed_dim=24, depth=1, num_heads=3
    )
    theirs.load_state_dict(model.encoder.state_dict(), strict=True)


def test_whole_images_get_timms_own_features_and_the_weights_load_strictly():
    model, (images, _) = build(torch.float64), batch(torch.float64)
    fresh = build_encoder(SHAPE, pixels=PIXELS, patch_size=PATCH).double()
    fresh.load_state_dict(model.encoder.state_dict(), strict=True)
    with torch.no_grad():
        expected = fresh.eval().forward_features(images.permute(0, 3, 1, 2))
        torch.testing.assert_close(model.encode(images), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", OTHERS)
def test_the_other_stems_leak_nothing_and_are_the_textbook_form(name):
    model = MaskedAutoencoder(OTHERS[name], pixels=64, patch_size=32, keep=1).initialise(1).double()
    images, _ = batch(torch.float64)
    order = patch_order(0, np.arange(2), 0, 4)
    require_the_textbook_form(model, images, order)
    hidden = fill_masked(torch.ones_like(images), order, keep=1, patch=32) == 0
    other = torch.where(hidden, images + 3, images)
    tokens, again = (
        model.embed(pixels, gather_patches(pixels, order[:, :1], 32), order)
        for pixels in (images, other)
    )
    assert torch.equal(tokens, again)


def test_tiles_know_nothing_of_each_other():
    model, (images, order) = build(shape=TILES), batch()
    patches = gather_patches(images, order[:, :KEEP], PATCH)
    changed = patches.clone()
    changed[:, 1:] += 1
    with torch.no_grad():
        tokens, again = (model.embed(images, each, order) for each in (patches, changed))
    assert torch.equal(tokens[:, 0], again[:, 0])
    assert not torch.equal(tokens[:, 1], again[:, 1])


@pytest.mark.parametrize("name", [name for name, shape in MODELS.items() if shape.stem])
def test_the_grids_hybrids_have_the_names_of_timms_own_models(name):
    shape = MODELS[name]
    patch = 16 if "s16_224" in shape.stem else 32
    with torch.device("meta"):
        theirs = create_model(shape.stem, num_classes=0, img_size=64, weight_init="skip")
        ours = MaskedAutoencoder(shape, pixels=64, patch_size=patch, keep=1).encoder
    expected = {name: p.shape for name, p in theirs.state_dict().items()}
    assert {name: p.shape for name, p in ours.state_dict().items()} == expected


def test_bf16_gives_the_loss_within_bf16_and_gradients_in_fp32():
    images, order = batch()
    expected = build()(images, order)
    model = build(compute_dtype=torch.bfloat16)
    loss = model(images, order)
    loss.backward()
    assert abs(loss - expected) < 0.02 * expected
    kernel = model.encoder.patch_embed.backbone.stem.conv.weight
    assert kernel.grad.dtype == torch.float32
    assert kernel.grad.abs().max() > 0


def test_initialisation_draws_the_stem_from_the_seed_alone():
    weights = []
    for seed in (1, 1, 2):
        torch.manual_seed(len(weights))
        model = MaskedAutoencoder(SHAPE, pixels=PIXELS, patch_size=PATCH, keep=KEEP)
        weights.append(model.initialise(seed).state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    name = "encoder.patch_embed.backbone.stem.conv.weight"
    assert not torch.equal(weights[0][name], weights[2][name])


@pytest.mark.parametrize(("pixels", "patch"), [(64, 8), (64, 32), (60, 20)])
def test_a_patch_that_the_stem_does_not_have_is_refused_in_one_line(pixels, patch):
    with pytest.raises(KernelError, match=f"patches of 16 pixels|got {patch}"):
        build_encoder(SHAPE, pixels=pixels, patch_size=patch)
