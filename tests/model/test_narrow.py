"""Weights cast together give the bits of weights cast one by one, in a handful of operations."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from mae_lib.model.block import run_block
from mae_lib.model.mae import MaskedAutoencoder
from mae_lib.model.narrow import narrowed
from mae_lib.study.models import ModelShape


@pytest.fixture
def model() -> MaskedAutoencoder:
    shape = ModelShape(32, 3, 2, 16, 2, 1)
    return MaskedAutoencoder(
        shape, pixels=12, patch_size=4, keep=3, compute_dtype=torch.bfloat16
    ).initialise(0)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, 12, 12, 3, generator=generator)
    return images, torch.rand(2, 9, generator=generator).argsort(1)


def gradients(model, loss) -> list[torch.Tensor]:
    return torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad])


def casts(model, way) -> int:
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        gradients(model, way(*batch()))
    return sum(event.name == "aten::_to_copy" for event in seen.events())


def test_the_loss_and_every_gradient_have_the_same_bits(model):
    one_by_one, together = model(*batch()), narrowed(model)(*batch())
    assert torch.equal(one_by_one, together)
    for mine, other in zip(gradients(model, together), gradients(model, one_by_one), strict=True):
        assert mine.dtype == torch.float32
        assert torch.equal(mine, other)


def test_twelve_casts_a_block_and_pass_are_saved(model):
    blocks = len(model.encoder.blocks) + len(model.decoder_blocks)
    assert casts(model, model) - casts(model, narrowed(model)) == 2 * 12 * blocks


def test_where_nothing_is_cast_or_blocks_are_wrapped_the_model_is_called(model):
    model.run_block = run_block
    assert narrowed(model) is model
    model.run_block, model.compute_dtype = None, None
    assert narrowed(model) is model
    assert narrowed(model.encoder) is model.encoder
