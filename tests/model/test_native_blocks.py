"""The model runs its stacks by compiled loops where these are chosen, and nothing else changes."""

import pytest
import torch

from mae_lib.kernels import choose
from mae_lib.kernels.stack import Plan, stack_reference
from mae_lib.model.block import _parameters, run_stack
from mae_lib.model.mae import MaskedAutoencoder
from mae_lib.study.models import model_shape

NATIVE = choose.REFERENCE | {"blocks_bf16": "native"}


def built(dtype: torch.dtype | None, **more) -> MaskedAutoencoder:
    model = MaskedAutoencoder(
        model_shape("vit_tiny"), pixels=16, patch_size=4, keep=4, compute_dtype=dtype, **more
    ).initialise(0)
    del model.encoder.blocks[2:]
    return model


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(3)
    order = torch.stack([torch.randperm(16, generator=generator) for _ in range(6)])
    return torch.randn(6, 16, 16, 3, generator=generator), order


def gradients(model, images, order):
    loss = model(images, order)
    loss.backward()
    found = {n: p.grad.double() for n, p in model.named_parameters() if p.grad is not None}
    return loss.detach().double(), found


def test_the_definition_is_what_the_model_runs():
    model = built(None).double()
    x = torch.randn(4 * 17, 128, generator=torch.Generator().manual_seed(0)).double()
    blocks, norm = model.decoder_blocks, model.decoder_norm
    plan = Plan(4, blocks[0].attn.num_heads, norm.eps, 12)
    ours = stack_reference(plan, x, _parameters(blocks, norm))
    plain = run_stack(blocks, norm, x, batch=4, cast=lambda w: w, queries=12)
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-12)


def test_loss_and_gradients_are_those_of_float64_as_nearly_as_torchs(batch):
    exact = gradients(built(None).double(), batch[0].double(), batch[1])
    plain = gradients(built(torch.bfloat16), *batch)
    with choose.using(NATIVE):
        ours = gradients(built(torch.bfloat16), *batch)
    assert ours[1].keys() == plain[1].keys() == exact[1].keys()
    assert abs(ours[0] - exact[0]) <= 2 * abs(plain[0] - exact[0]) + 2**-9 * exact[0]
    for name, truth in exact[1].items():
        floor = 2**-8 * truth.norm()
        off = (ours[1][name] - truth).norm()
        assert off <= 2 * (plain[1][name] - truth).norm() + floor, name


@pytest.mark.parametrize("other", ["fp32", "stream", "wrapped"])
def test_what_loops_cannot_run_goes_torchs_way_to_the_bit(batch, other):
    wide = {"residual_dtype": torch.float32} if other == "stream" else {}

    def loss():
        model = built(None if other == "fp32" else torch.bfloat16, **wide)
        if other == "wrapped":
            from mae_lib.model.block import run_block

            model.run_block = run_block
        return model(*batch)

    plain = loss()
    with choose.using(NATIVE):
        assert torch.equal(loss(), plain)
