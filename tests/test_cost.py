"""Counts equal timm's parameters, torch's FLOP counter and published sizes."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mae_lib.cost import CHANNELS, cost_of, count
from mae_lib.images.public_sizes import feasibility, feasible_totals
from mae_lib.model.mae import MaskedAutoencoder
from mae_lib.study.load import load_study
from mae_lib.study.models import MODELS, model_shape

import timm  # isort: skip - after the shim

PLAIN = [name for name, shape in MODELS.items() if shape.stem is None and name != "vit_522b"]


def cost_and_model(name, *, pixels, patch, keep):
    shape = model_shape(name)
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


def test_the_hybrid_has_timms_parameters_and_flops():
    shape = model_shape("vit_hybrid")
    with torch.device("meta"):
        theirs = timm.create_model(shape.stem, num_classes=0)
        with FlopCounterMode(display=False) as counter:
            theirs(torch.empty(1, 3, 224, 224))
    cost = count(shape, tokens=196, kept=39, values=768, decoder=(512, 8), pixels=224)
    assert cost.params_encoder == sum(p.numel() for p in theirs.parameters())
    assert cost.flops_forward_full == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_the_522_billion_model_has_its_size_and_price():
    shape = model_shape("vit_522b")
    cost = count(shape, tokens=65536, kept=13107, values=768, decoder=(512, 8), pixels=4096)
    assert cost.params_encoder == pytest.approx(523.1e9, rel=2e-3)
    assert cost.flops_per_image == pytest.approx(4.6e16, rel=0.02)
    assert cost.gpu_hours(800 * 200_000) == pytest.approx(5.2e6, rel=0.02)
    assert cost.state_bytes == pytest.approx(8.4e12, rel=0.01)


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
