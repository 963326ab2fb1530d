"""Products in 8 bits are near the exact ones, and are refused where no unit does them."""

import pytest
import torch
from torch.nn import functional

from mae_lib.errors import KernelError
from mae_lib.kernels.linear_fp8 import linear_fp8, require_fp8
from mae_lib.study.definition import Recipe
from mae_lib.training.environment import kernels_for


def gradients(function, x, weight, bias, given):
    leaves = [t.detach().requires_grad_() for t in (x, weight, bias)]
    out = function(*leaves)
    return out, *torch.autograd.grad(out, leaves, given)


def draw(rows, narrow, wide):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, narrow, generator=generator)
    weight = 0.03 * torch.randn(wide, narrow, generator=generator)
    bias, given = (
        torch.randn(wide, generator=generator),
        torch.randn(rows, wide, generator=generator),
    )
    return [t.to(torch.bfloat16) for t in (x, weight, bias, given)]


def test_products_lose_what_three_and_two_bits_of_mantissa_lose():
    x, weight, bias, given = draw(16, 1024, 1040)
    found = gradients(linear_fp8, x, weight, bias, given)
    exact = gradients(functional.linear, x.double(), weight.double(), bias.double(), given.double())
    # Rounding to b bits loses at most 2^-(b+1) of a value; errors of a sum are independent. Both
    # operands forward are e4m3 (b = 3); backward one is e5m2 (b = 2).
    limits = [2**-4 * 2**0.5, 2**-3 + 2**-4, 2**-3 + 2**-4, 2**-8]
    for value, truth, limit in zip(found, exact, limits, strict=True):
        assert value.dtype == torch.bfloat16
        assert (value.double() - truth).norm() <= limit * truth.norm()


@pytest.mark.parametrize("sizes", [(32, 512, 1024), (30, 1024, 1024)])
def test_narrow_layers_and_odd_batches_are_torchs(sizes):
    x, weight, bias, _ = draw(*sizes)
    assert torch.equal(linear_fp8(x, weight, bias), functional.linear(x, weight, bias))


def test_a_processor_is_refused_in_one_line():
    cpu = torch.device("cpu")
    with pytest.raises(KernelError) as caught:
        kernels_for(Recipe(precision="fp8"), {"linear": "torch"}, cpu)
    assert str(caught.value) == (
        "precision: fp8 needs a CUDA device with 8-bit matrix units, got cpu; set precision: bf16"
    )
    assert caught.value.exit_code == 2
    assert kernels_for(Recipe(precision="bf16"), {"linear": "torch"}, cpu) == {"linear": "torch"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_device_gives_what_the_processor_gives():
    try:
        require_fp8(torch.device("cuda"))
    except KernelError as error:
        pytest.skip(str(error))
    drawn = draw(32, 1024, 1024)
    here = gradients(linear_fp8, *drawn)
    there = gradients(linear_fp8, *[t.cuda() for t in drawn])
    for a, b in zip(here, there, strict=True):
        # The order of sums in fp32, and bf16 at the end.
        torch.testing.assert_close(b.cpu(), a, rtol=2**-6, atol=2**-6 * a.abs().max().item())
