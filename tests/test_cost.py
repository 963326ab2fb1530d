"""Counts equal timm's parameters, torch's FLOP counter and published sizes."""

import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mae_lib.cost import (
    CHANNELS,
    PEAK_FLOPS,
    STEMS,
    UTILISATION,
    cost_of,
    cost_of_sizes,
    count,
)
from mae_lib.errors import StudyError
from mae_lib.images.public_sizes import feasibility, feasible_totals
from mae_lib.model.mae import MaskedAutoencoder
from mae_lib.model.masking import keep_count
from mae_lib.study.load import load_study
from mae_lib.study.models import MODELS, ModelShape, model_shape

import timm  # isort: skip - after the shim

PLAIN = [name for name, shape in MODELS.items() if shape.stem is None]
HYBRID = [name for name, shape in MODELS.items() if shape.stem]


def cost_and_model(name, *, pixels, patch, keep):
    shape = model_shape(name)
    if shape.embed_dim > 10_000:
        # A hundred blocks are counted as one by one and only take longer.
        shape = dataclasses.replace(shape, depth=4)
    model = MaskedAutoencoder(shape, pixels=pixels, patch_size=patch, keep=keep)
    cost = count(
        shape,
        tokens=(pixels // patch) ** 2,
        kept=keep,
        values=patch**2 * CHANNELS,
        decoder=(shape.decoder_dim, shape.decoder_depth),
        pixels=pixels,
    )
    return cost, model


@pytest.mark.parametrize("name", PLAIN)
def test_parameters_and_flops_equal_those_of_the_real_model(name):
    with torch.device("meta"):
        cost, model = cost_and_model(name, pixels=64, patch=8, keep=12)
        sizes = {n: p.numel() for n, p in model.named_parameters()}
        images = torch.empty(2, 64, 64, 3)
        order = torch.empty(2, 64, dtype=torch.int64)
        with FlopCounterMode(display=False) as counter:
            # The reference choice of kernels keeps every product visible to the counter.
            model(images, order).backward()
    encoder = sum(n for name, n in sizes.items() if name.startswith("encoder."))
    assert encoder == cost.params_encoder
    assert sum(sizes.values()) == cost.params_total
    assert counter.get_total_flops() == pytest.approx(2 * cost.flops_per_image, rel=0.01)


def test_vit_huge_at_224_has_the_published_parameters():
    shape = model_shape("vit_huge")
    cost = count(shape, tokens=256, kept=51, values=588, decoder=(512, 8), pixels=224)
    assert cost.params_encoder == 630_764_800


@pytest.mark.parametrize("name", HYBRID)
def test_the_hybrids_have_timms_parameters_and_flops(name):
    shape = model_shape(name)
    patch = STEMS[shape.stem].patch_size
    with torch.device("meta"):
        theirs = timm.create_model(shape.stem, num_classes=0, weight_init="skip")
        with FlopCounterMode(display=False) as counter:
            theirs(torch.empty(1, 3, 224, 224))
    cost = cost_of_sizes(name, pixels=224, patch_size=patch)
    assert cost.params_encoder == sum(p.numel() for p in theirs.parameters())
    assert cost.flops_forward_full == pytest.approx(counter.get_total_flops(), rel=0.01)


@pytest.mark.parametrize("name", ["vit_hybrid_r26", "vit_hybrid_r26_tiles"])
def test_a_masked_step_of_a_hybrid_has_the_counted_flops(name):
    # Backward is 2 forwards but for the stem's first convolution, whose input needs no gradient.
    with torch.device("meta"):
        cost, model = cost_and_model(name, pixels=64, patch=32, keep=1)
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(2, 64, 64, 3), torch.empty(2, 4, dtype=torch.int64))
    assert counter.get_total_flops() == pytest.approx(2 * cost.flops_per_image / 3, rel=0.01)


def test_tiles_do_exactly_the_visible_share_of_a_stems_work():
    sizes = {"pixels": 224, "patch_size": 16}
    filled, tiles = (cost_of_sizes(n, **sizes) for n in ("vit_hybrid", "vit_hybrid_tiles"))
    assert tiles.flops_forward_full == filled.flops_forward_full
    stem = filled.flops_forward_full - 12 * _encoder_block(197)
    saved = (filled.flops_per_image - tiles.flops_per_image) / 3
    assert saved == pytest.approx(stem * (196 - 39) / 196, rel=1e-12)


def _encoder_block(tokens):
    return 24 * tokens * 768**2 + 4 * tokens**2 * 768


def test_activations_are_what_autograd_keeps_within_a_tenth():
    model = MaskedAutoencoder(model_shape("vit_small"), pixels=64, patch_size=8, keep=12)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    order = torch.rand(8, 64).argsort(1)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(torch.randn(8, 64, 64, 3), order)
    assert loss.requires_grad
    counted = 2 * 8 * cost_of_sizes("vit_small", pixels=64, patch_size=8).activation_bytes_per_image
    assert counted == pytest.approx(sum(kept.values()), rel=0.1)


def test_a_stems_patch_is_the_only_one_it_takes():
    with pytest.raises(StudyError, match="the stem of vit_hybrid has patches of 16 pixels, got 32"):
        cost_of_sizes("vit_hybrid", pixels=224, patch_size=32)


def test_the_exact_rule_keeps_one_patch_more_where_binary_rounding_loses_it():
    kept = [
        cost_of_sizes("vit_pico", pixels=40, patch_size=4, keep_rule=rule).kept
        for rule in ("reference", "exact")
    ]
    assert kept == [keep_count(100, 0.8, rule=rule) for rule in ("reference", "exact")] == [19, 20]


@pytest.fixture(scope="module")
def claim():
    return cost_of_sizes("vit_522b", pixels=4096, patch_size=16)


def test_the_522_billion_model_has_its_size_and_price(claim):
    assert claim.params_encoder == pytest.approx(523.1e9, rel=2e-3)
    assert (claim.tokens, claim.kept) == (65_536, 13_107)
    assert claim.flops_per_image == pytest.approx(4.6e16, rel=0.02)
    assert claim.flops_attention / claim.flops_per_image == pytest.approx(0.106, abs=0.001)
    assert claim.flops_decoder / claim.flops_per_image == pytest.approx(0.005, abs=0.001)
    patch_14 = cost_of_sizes("vit_522b", pixels=4096, patch_size=14)
    assert patch_14.flops_per_image / claim.flops_per_image == pytest.approx(1.34, abs=0.005)


@pytest.mark.parametrize(
    ("passes", "flops", "hours"),
    [(1, 9.2e21, 6.5e3), (50, 4.6e23, 3.2e5), (200, 1.8e24, 1.3e6), (800, 7.4e24, 5.2e6),
     (1600, 1.5e25, 1.0e7)],
)  # fmt: skip
def test_passes_over_200_000_images_cost_what_the_notes_say(claim, passes, flops, hours):
    seen = passes * 200_000
    assert claim.flops_per_image * seen == pytest.approx(flops, rel=0.03)
    assert claim.gpu_hours(seen) == pytest.approx(hours, rel=0.04)


def test_800_passes_are_591_years_of_one_gpu_and_211_days_of_1024(claim):
    hours = claim.gpu_hours(800 * 200_000)
    assert hours / 24 / 365.25 == pytest.approx(591, rel=0.002)
    assert hours / 24 / 1024 == pytest.approx(211, rel=0.002)


def test_fine_tuning_and_scoring_see_every_token(claim):
    whole = claim.flops_forward_full
    attention = 4 * 128 * 65_537**2 * 18_432
    assert attention / whole == pytest.approx(0.37, abs=0.005)
    flops = 3 * whole * 50 * 0.02 * 1_281_167
    assert flops == pytest.approx(4.2e23, rel=0.01)
    seconds = PEAK_FLOPS * UTILISATION * 3600
    assert flops / seconds == pytest.approx(2.9e5, rel=0.02)
    assert 50_000 * whole / seconds == pytest.approx(3_800, rel=0.01)


def test_the_522_billion_model_needs_its_memory(claim):
    assert 2 * claim.params_total == pytest.approx(1.04e12, rel=0.01)
    assert claim.state_bytes == pytest.approx(8.4e12, rel=0.01)
    assert claim.activation_bytes_per_image == pytest.approx(1.05e12, rel=0.02)
    assert claim.checkpointed_bytes_per_image == pytest.approx(62e9, rel=0.01)


def test_the_claims_model_has_far_more_parameters_than_images(claim):
    assert claim.params_encoder / 200_000 == pytest.approx(2.6e6, rel=0.01)
    assert claim.kept * 200_000 == pytest.approx(2.6e9, rel=0.01)
    # The text rule of 20 tokens a parameter, at the paper's round 522 billion.
    assert 20 * 522e9 / (claim.kept * 200_000) == pytest.approx(3_983, abs=1)


@pytest.mark.parametrize(
    ("dim", "depth", "billions"),
    [(18_432, 128, 523.1), (16_384, 162, 523.0), (20_480, 104, 524.8), (24_576, 72, 523.5)],
)
def test_other_shapes_of_522_billion_have_their_counts(dim, depth, billions):
    shape = ModelShape(dim, depth, dim // 128, 512, 8, 16)
    cost = count(shape, tokens=65_536, kept=13_107, values=768, decoder=(512, 8), pixels=4096)
    # The notes count blocks and embedding; positions of 65,536 patches add up to 0.3 %.
    assert cost.params_encoder == pytest.approx(billions * 1e9, rel=4e-3)


@pytest.mark.parametrize(("name", "billions"), [("vit_100b", 100.7), ("vit_200b", 197.3)])
def test_the_shapes_on_the_way_have_their_documented_counts(name, billions):
    cost = cost_of_sizes(name, pixels=224, patch_size=16)
    assert cost.params_encoder == pytest.approx(billions * 1e9, rel=5e-4)


def test_a_cell_of_226_pixels_is_counted_at_224():
    cells = load_study("paper").cells
    costs = {cell.resolution: cost_of(cell) for cell in cells if cell.model == "vit_base"}
    assert (costs[226].tokens, costs[226].kept) == (196, 39)
    assert (costs[256].tokens, costs[256].kept) == (256, 51)


def test_the_papers_mixture_cannot_be_had_and_the_largest_total_is_known():
    sources = load_study("paper").data.sources
    table = feasibility(200_000, sources).set_index("source")
    assert table.asked.to_dict() == {
        "imagenet": 100_000, "celeba": 63_000, "cifar10": 10_000, "ade20k": 27_000
    }  # fmt: skip
    assert table.missing.to_dict() == {"imagenet": 0, "celeba": 0, "cifar10": 0, "ade20k": 6_790}
    assert feasible_totals(sources) == {"train": 149_703, "with_validation": 164_518}
