"""The choice of kernels is a rule, can be forced, and every way gives the definition's result."""

import pytest
import torch

from mae_lib.errors import KernelError
from mae_lib.kernels import choose
from mae_lib.kernels.attention import attention_fused, attention_products
from mae_lib.kernels.linear import linear, linear_onednn


def test_the_same_machine_always_chooses_the_same_and_the_choice_can_be_taken(monkeypatch):
    monkeypatch.delenv("MAE_KERNELS", raising=False)
    assert choose.best() == choose.best()
    before = (choose.linear_now(), choose.attention_now(torch.bfloat16))
    with choose.using(choose.best()):
        assert choose.linear_now() is choose.LINEAR[choose.best()["linear"]]
    assert (choose.linear_now(), choose.attention_now(torch.bfloat16)) == before


def test_mae_kernels_forces_the_definitions_and_refuses_other_words(monkeypatch):
    monkeypatch.setenv("MAE_KERNELS", "reference")
    assert choose.best() == choose.REFERENCE
    monkeypatch.setenv("MAE_KERNELS", "fastest")
    with pytest.raises(KernelError, match="MAE_KERNELS: reference or triton, got 'fastest'"):
        choose.best()


def test_an_unknown_choice_is_refused_before_it_is_taken():
    with (
        pytest.raises(KernelError, match="attention_fp32: one of"),
        choose.using(choose.REFERENCE | {"attention_fp32": "magic"}),
    ):
        pass
    assert choose.attention_now(torch.float32) is attention_products


def test_a_choice_is_put_back_after_an_error():
    with pytest.raises(ZeroDivisionError), choose.using(choose.REFERENCE | {"linear": "onednn"}):
        raise ZeroDivisionError
    assert choose.linear_now() is linear


def test_float64_takes_the_definition_whatever_is_chosen():
    with choose.using(choose.REFERENCE | {"attention_fp32": "fused"}):
        assert choose.attention_now(torch.float64) is attention_products
        assert choose.attention_now(torch.float32) is attention_fused


def _pair(run, reference, inputs):
    """Run both in fp32 and the definition in float64: results and gradients of each."""
    out = []
    for function, dtype in ((run, torch.float32), (reference, torch.float32),
                            (reference, torch.float64)):  # fmt: skip
        leaves = [x.to(dtype).requires_grad_() for x in inputs]
        result = function(*leaves)
        weights = torch.linspace(-1, 1, result.numel(), dtype=dtype).view(result.shape)
        out.append([result, *torch.autograd.grad((result * weights).sum(), leaves)])
    return zip(*out, strict=True)


@pytest.mark.parametrize("rows", [1, 13, 40])
def test_the_onednn_product_and_its_gradients_err_no_more_than_twice_torchs(rows):
    generator = torch.Generator().manual_seed(rows)
    inputs = [torch.randn(s, generator=generator) for s in ((rows, 24), (36, 24), (36,))]
    for ours, plain, exact in _pair(linear_onednn, linear, inputs):
        floor = 1e-6 * exact.abs().max()
        assert (ours - exact).abs().max() <= 2 * (plain - exact).abs().max() + floor


@pytest.mark.parametrize(("queries", "tokens", "dim"), [(5, 5, 8), (3, 13, 64), (17, 33, 32)])
def test_the_fused_attention_and_its_gradients_err_no_more_than_twice_the_products(
    queries, tokens, dim
):
    generator = torch.Generator().manual_seed(tokens)
    shapes = ((2, 3, queries, dim), (2, 3, tokens, dim), (2, 3, tokens, dim))
    inputs = [torch.randn(s, generator=generator) for s in shapes]
    for ours, plain, exact in _pair(attention_fused, attention_products, inputs):
        floor = 1e-6 * exact.abs().max()
        assert (ours - exact).abs().max() <= 2 * (plain - exact).abs().max() + floor
