"""The model through the fused operations is the model: loss, gradients, and under torch.compile."""

import copy

import pytest
import torch
from kernel_errors import DEVICE

from mae_lib.kernels import dispatch
from mae_lib.model.block import run_block, run_stack
from mae_lib.model.mae import MaskedAutoencoder
from mae_lib.study.models import ModelShape


@pytest.fixture
def model() -> MaskedAutoencoder:
    model = MaskedAutoencoder(
        ModelShape(32, 2, 2, 16, 2, 1), pixels=12, patch_size=4, keep=3
    ).initialise(0)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        # Gains and biases that are not 1 and 0: else a forgotten one is not seen.
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.to(DEVICE)


def batch(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, 12, 12, 3, generator=generator, dtype=torch.float64).to(dtype)
    return images.to(DEVICE), torch.rand(2, 9, generator=generator).argsort(1).to(DEVICE)


def loss_and_gradients(model, *arguments) -> list[torch.Tensor]:
    loss = model(*arguments)
    wanted = [p for p in model.parameters() if p.requires_grad]
    return [loss.detach(), *torch.autograd.grad(loss, wanted)]


def test_the_fused_stack_gives_the_loss_and_every_gradient(model, monkeypatch):
    exact = loss_and_gradients(copy.deepcopy(model).double(), *batch(torch.float64))
    monkeypatch.setenv("MAE_KERNELS", "reference")
    plain = loss_and_gradients(model, *batch(torch.float32))
    monkeypatch.setenv("MAE_KERNELS", "triton")
    ways = {"all": dispatch.TRITON, "norm": ["add_norm"], "gelu": ["bias_gelu"]}
    for names in ways.values():
        with dispatch.only(names):
            fused = loss_and_gradients(model, *batch(torch.float32))
        for mine, other, true in zip(fused, plain, exact, strict=True):
            error, torchs = (mine - true).abs().max(), (other - true).abs().max()
            assert error <= 2 * torchs + 1e-6 * true.abs().max()


def test_torch_compile_sees_through_without_a_break(model, monkeypatch):
    monkeypatch.setenv("MAE_KERNELS", "triton")
    eager = loss_and_gradients(model, *batch(torch.float32))
    # The wrappers that check annotations in tests are no part of the model.
    monkeypatch.setattr("jaxtyping.config.jaxtyping_disable", True)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for mine, other in zip(loss_and_gradients(compiled, *batch(torch.float32)), eager, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-6, rtol=1e-5)


def test_a_wrapped_block_is_run_block_by_block(model, monkeypatch):
    monkeypatch.setenv("MAE_KERNELS", "triton")
    seen = []

    def wrapped(block, x, **keywords):
        seen.append(keywords.get("queries"))
        return run_block(block, x, **keywords)

    x = torch.randn(2 * 5, 32, device=DEVICE)
    blocks, norm = model.encoder.blocks, model.encoder.norm
    keywords = {"batch": 2, "cast": lambda t: t, "queries": 3}
    plain = run_stack(blocks, norm, x, run=wrapped, **keywords)
    assert seen == [None, 3]
    torch.testing.assert_close(plain, run_stack(blocks, norm, x, **keywords), atol=1e-5, rtol=1e-4)
