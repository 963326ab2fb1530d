"""The fast masked auto-encoder equals the textbook one, and its encoder is timm's."""

import dataclasses

import numpy as np
import pytest
import torch

from mae_lib.errors import KernelError
from mae_lib.kernels import choose
from mae_lib.kernels.patches import gather_patches
from mae_lib.model import reference
from mae_lib.model.encoders import build_encoder
from mae_lib.model.mae import MaskedAutoencoder
from mae_lib.model.masking import keep_count, patch_order
from mae_lib.model.positions import sincos_positions
from mae_lib.model.timm_modules import create_model
from mae_lib.study.models import MODELS, ModelShape

SMALL = ModelShape(24, 3, 3, 16, 2, 2)


def model_and_batch(shape, *, pixels, patch, norm_pix=True, dtype=torch.float64, batch=3):
    tokens = (pixels // patch) ** 2
    model = MaskedAutoencoder(
        shape, pixels=pixels, patch_size=patch, keep=keep_count(tokens, 0.8), norm_pix=norm_pix
    ).initialise(5)
    generator = torch.Generator().manual_seed(1)
    # Zero biases and unit norms would hide a missing term.
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    images = torch.randn(batch, pixels, pixels, 3, generator=generator)
    return model.to(dtype), images.to(dtype), patch_order(2, np.arange(batch), 0, tokens)


def gradients(model, loss):
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.autograd.grad(loss, parameters)


def require_the_textbook_form(model, images, order):
    expected = reference.reference_loss(model, images, order)
    loss = model(images, order)
    assert abs(loss - expected) <= 1e-12 * abs(expected)
    for ours, theirs in zip(gradients(model, loss), gradients(model, expected), strict=True):
        assert (ours - theirs).norm() <= 1e-9 * theirs.norm()


@pytest.mark.parametrize("norm_pix", [True, False])
@pytest.mark.parametrize(
    ("shape", "pixels", "patch"),
    [(SMALL, 12, 3), (SMALL, 20, 4), (MODELS["vit_pico"], 32, 4), (MODELS["vit_tiny_d6"], 64, 8)],
)
def test_loss_and_every_gradient_equal_the_textbook_form_in_float64(shape, pixels, patch, norm_pix):
    model, images, order = model_and_batch(shape, pixels=pixels, patch=patch, norm_pix=norm_pix)
    require_the_textbook_form(model, images, order)


# Every plain size of the grid with its own widths, heads and decoder's width, one block deep in the
# encoder and two in the decoder: the deeper blocks run the very same code. vit_100b and larger are
# planned, not run.
PLAIN = ("vit_nano", "vit_micro", "vit_tiny", "vit_small", "vit_base", "vit_large", "vit_huge")


@pytest.mark.parametrize("name", PLAIN)
def test_every_size_of_the_grid_is_the_textbook_form_in_float64(name):
    shape = dataclasses.replace(MODELS[name], depth=1, decoder_depth=2)
    model, images, order = model_and_batch(shape, pixels=12, patch=4, batch=2)
    require_the_textbook_form(model, images, order)


def test_images_that_are_not_square_nor_of_three_channels_are_the_textbook_form_in_float64():
    model = MaskedAutoencoder(SMALL, pixels=(12, 20), patch_size=4, keep=3, channels=1)
    model = model.initialise(5).double()
    images = torch.randn(2, 12, 20, 1, generator=torch.Generator().manual_seed(1)).double()
    order = patch_order(2, np.arange(2), 0, 15)
    require_the_textbook_form(model, images, order)
    shown = model.reconstruct(images, order)
    visible = order[:, :3]
    assert torch.equal(gather_patches(shown, visible, 4), gather_patches(images, visible, 4))
    theirs = create_model(
        "vit_tiny_patch16_224", img_size=(12, 20), in_chans=1, patch_size=4, embed_dim=24,
        depth=3, num_heads=3, num_classes=0,
    ).double()  # fmt: skip
    theirs.load_state_dict(model.encoder.state_dict(), strict=True)
    expected = theirs.eval().forward_features(images.permute(0, 3, 1, 2))
    torch.testing.assert_close(model.encode(images), expected, rtol=1e-9, atol=1e-11)
    with pytest.raises(KernelError, match=r"\[batch, 12, 20, 1\] is what this model takes"):
        model(images.transpose(1, 2), order)
    with pytest.raises(KernelError, match="square images of 3 channels are wanted here"):
        _ = model.pixels


@pytest.mark.parametrize("pixels", [(12, 22), (10, 20)])
def test_a_side_that_no_patch_divides_is_refused(pixels):
    with pytest.raises(KernelError, match="patch_size must divide pixels"):
        MaskedAutoencoder(SMALL, pixels=pixels, patch_size=4, keep=3)


@pytest.mark.parametrize(
    "choice", [choose.REFERENCE, choose.best(), choose.REFERENCE | {"linear": "onednn"}]
)
def test_every_kernel_choice_gives_the_loss_within_fp32(choice):
    model, images, order = model_and_batch(MODELS["vit_nano"], pixels=32, patch=4)
    expected = reference.reference_loss(model, images, order)
    with choose.using(choice):
        loss = model.float()(images.float(), order)
        loss.backward()
    assert abs(loss - expected) < 1e-5 * abs(expected)


def test_bf16_weights_give_the_loss_within_bf16():
    model, images, order = model_and_batch(MODELS["vit_nano"], pixels=32, patch=4)
    expected = model(images, order)
    model.float().compute_dtype = torch.bfloat16
    loss = model(images.float(), order)
    assert loss.dtype == torch.float32
    assert abs(loss - expected) < 0.02 * abs(expected)


def test_features_are_timms_own_and_the_weights_load_strictly_into_timm():
    model, images, _ = model_and_batch(MODELS["vit_pico"], pixels=32, patch=4)
    fresh = build_encoder(MODELS["vit_pico"], pixels=32, patch_size=4).double()
    fresh.load_state_dict(model.encoder.state_dict(), strict=True)
    theirs = fresh.eval().forward_features(images.permute(0, 3, 1, 2))
    torch.testing.assert_close(model.encode(images), theirs, rtol=1e-9, atol=1e-11)


def test_masked_pixels_do_not_reach_the_encoder_by_one_bit():
    model, images, order = model_and_batch(MODELS["vit_pico"], pixels=32, patch=4)
    changed = images.clone()
    for image, patches in enumerate(order[:, model.keep :]):
        for patch in patches.tolist():
            top, left = 4 * (patch // 8), 4 * (patch % 8)
            changed[image, top : top + 4, left : left + 4] += 1.0
    visible = [
        model.embed(x, gather_patches(x, order[:, : model.keep], 4), order)
        for x in (images, changed)
    ]
    assert torch.equal(*visible)


def test_reconstruction_pastes_the_visible_patches_and_scales_the_others():
    model, images, order = model_and_batch(MODELS["vit_pico"], pixels=32, patch=4)
    shown = model.reconstruct(images, order)
    visible = order[:, : model.keep]
    assert torch.equal(gather_patches(shown, visible, 4), gather_patches(images, visible, 4))
    true = gather_patches(images, order[:, model.keep :], 4)
    error = gather_patches(shown, order[:, model.keep :], 4) - true
    scaled = error / torch.sqrt(true.var(-1, keepdim=True) + 1e-6)
    torch.testing.assert_close(scaled.square().mean(), model(images, order))


def test_initialisation_depends_on_the_seed_alone():
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(models))
        model, *_ = model_and_batch(SMALL, pixels=12, patch=3)
        models.append(model.initialise(seed).state_dict())
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    assert not torch.equal(models[0]["mask_token"], models[2]["mask_token"])


@pytest.mark.parametrize(
    ("tokens", "ratio", "reference_rule", "exact_rule"),
    [
        (64, 0.8, 12, 12),
        (196, 0.8, 39, 39),
        (100, 0.8, 19, 20),
        (400, 0.8, 79, 80),
        (64, 0.75, 16, 16),
    ],
)
def test_keep_count_follows_its_named_rule(tokens, ratio, reference_rule, exact_rule):
    assert keep_count(tokens, ratio) == reference_rule
    assert keep_count(tokens, ratio, "exact") == exact_rule


@pytest.mark.parametrize(("pixels", "keep"), [(14, 3), (12, 0), (12, 16)])
def test_sizes_that_cannot_be_cut_or_masked_are_refused_in_one_line(pixels, keep):
    with pytest.raises(KernelError, match=f"pixels {pixels}, keep {keep}"):
        MaskedAutoencoder(SMALL, pixels=pixels, patch_size=3, keep=keep)


@pytest.mark.parametrize(
    ("ratio", "rule", "said"),
    [
        (0.8, "nearest", "keep_rule: one of reference, exact, got 'nearest'"),
        (0.999, "exact", "mask_ratio: 0.999 leaves 0 of 16"),
        (0.0, "reference", "mask_ratio: 0 leaves 16 of 16"),
    ],
)
def test_a_keep_count_that_cannot_be_is_refused(ratio, rule, said):
    with pytest.raises(KernelError, match=said):
        keep_count(16, ratio, rule)


def test_an_order_is_a_permutation_that_does_not_depend_on_the_batch():
    whole = patch_order(3, np.arange(10), 4, 49)
    assert torch.equal(whole.sort(dim=1).values, torch.arange(49).expand(10, -1))
    assert torch.equal(whole[6:], patch_order(3, np.arange(6, 10), 4, 49))
    assert not torch.equal(whole, patch_order(3, np.arange(10), 5, 49))
    first = torch.bincount(patch_order(0, np.arange(4900), 0, 49)[:, 0], minlength=49)
    # 100 expected each; five standard deviations of a binomial count
    assert (first - 100).abs().max() < 50


def test_positions_have_a_zero_class_row_and_differ_everywhere():
    positions = sincos_positions(32, 4, 6)
    assert positions.shape == (25, 32)
    assert (positions[0] == 0).all()
    assert torch.cdist(positions, positions).fill_diagonal_(1).min() > 1e-3
