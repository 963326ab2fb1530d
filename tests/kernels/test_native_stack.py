"""Blocks by compiled loops err no more than twice torch's own in bfloat16, whatever their shape."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from mae_lib.errors import KernelError
from mae_lib.kernels import choose, native
from mae_lib.kernels.stack import Plan, fits_native, random_arguments, stack_reference

if not native.available():
    pytest.fail("the test extra brings numba, and torch for Linux an OpenMP library: mend it")

from mae_lib.kernels.gelu_native import bias_gelu, bias_gelu_backward
from mae_lib.kernels.native_code import Loop
from mae_lib.kernels.norm_native import add_norm
from mae_lib.kernels.stack_native import stack_native, times


def run(way, plan, x, parameters, dtype):
    """Return the result and every gradient in float64, computed in a dtype."""
    x = x.detach().to(dtype).requires_grad_()
    weights = [w.detach().to(torch.float64 if dtype == torch.float64 else torch.float32)
               .requires_grad_() for w in parameters]  # fmt: skip
    out = way(plan, x, weights)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad(out, (x, *weights), grad.bfloat16().to(out.dtype))
    return [tensor.double() for tensor in (out, *found)]


SHAPES = [
    (3, 7, 32, 2, None),  # rows and tokens that fill no vector
    (4, 13, 64, 1, None),
    (2, 65, 96, 3, 52),  # a last block of which some tokens are asked
    (2, 130, 64, 4, 100),  # queries in several portions
    (1, 1, 16, 1, None),
    (2, 16, 256, 4, 1),  # the sum over 4 x 256 is cut in two
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_stack_and_every_gradient_err_at_most_twice_torchs(shape, threads):
    batch, tokens, dim, heads, queries = shape
    plan = Plan(batch, heads, 1e-6, queries)
    x, parameters = random_arguments(plan, tokens=tokens, dim=dim, depth=2)
    assert fits_native(plan, x, parameters)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        ours = run(stack_native, plan, x, parameters, torch.bfloat16)
    finally:
        torch.set_num_threads(before)
    plain = run(stack_reference, plan, x, parameters, torch.bfloat16)
    exact = run(stack_reference, plan, x, parameters, torch.float64)
    for mine, theirs, truth in zip(ours, plain, exact, strict=True):
        # Where torch happens to be exact, half a unit of bfloat16 is what rounding alone costs.
        floor = 2**-9 * truth.norm()
        assert (mine - truth).norm() <= 2 * (theirs - truth).norm() + floor


def test_the_same_call_gives_the_same_bits_with_and_without_gradients():
    plan = Plan(4, 2, 1e-6)
    x, parameters = random_arguments(plan, tokens=9, dim=32, depth=3)
    first = run(stack_native, plan, x, parameters, torch.bfloat16)
    again = run(stack_native, plan, x, parameters, torch.bfloat16)
    assert all(map(torch.equal, first, again))
    with torch.no_grad():
        assert torch.equal(stack_native(plan, x, parameters).double(), first[0])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(bad):
    plan = Plan(2, 2, 1e-6)
    x, parameters = random_arguments(plan, tokens=5, dim=32, depth=1)
    with torch.no_grad():
        x[3, 4] = bad
        out = stack_native(plan, x, parameters)
        assert not out[:5].isfinite().any()
        assert out[5:].isfinite().all()


def test_scores_of_hundreds_neither_overflow_nor_vanish():
    plan = Plan(1, 1, 1e-6)
    x, parameters = random_arguments(plan, tokens=20, dim=32, depth=1)
    with torch.no_grad():
        parameters[2].mul_(30)
    exact = run(stack_reference, plan, x, parameters, torch.float64)[0]
    plain = run(stack_reference, plan, x, parameters, torch.bfloat16)[0]
    ours = run(stack_native, plan, x, parameters, torch.bfloat16)[0]
    assert (ours - exact).norm() <= 2 * (plain - exact).norm()


def test_gelu_and_its_gradient_are_right_for_every_bfloat16():
    words = torch.from_numpy(np.arange(2**16, dtype=np.uint16)).view(torch.bfloat16)
    every = words[words.isfinite()].view(-1, 16)
    u, out = bias_gelu(every.clone(), torch.zeros(16))
    assert torch.equal(u, every)
    exact = every.double().requires_grad_()
    value = functional.gelu(exact)
    # torch's float64 loses what lies far out in the left tail; there the value is 0 to bfloat16.
    near = every.double().abs() < 5
    assert torch.equal(out[near], value.bfloat16()[near])
    assert (out.double() - value)[~near].abs().max() <= 2**-9 * every[~near].double().abs().max()
    (slope,) = torch.autograd.grad(value.sum(), exact)
    grad, total = bias_gelu_backward(torch.ones_like(every), every)
    assert torch.equal(grad[near], slope.bfloat16()[near])
    torch.testing.assert_close(total, grad.double().sum(0).float())


def test_the_stream_is_kept_rounded_and_its_norm_is_that_of_what_is_kept():
    generator = torch.Generator().manual_seed(0)
    x, branch = (torch.randn(5, 48, generator=generator).bfloat16() for _ in range(2))
    weight, shift, bias = (torch.randn(48, generator=generator) for _ in range(3))
    stream, normed, moments = add_norm(x, branch, bias, weight, shift, 1e-6)
    assert torch.equal(stream, (x.float() + (branch.float() + bias)).bfloat16())
    wide = stream.double()
    exact = functional.layer_norm(wide, (48,), weight.double(), shift.double(), 1e-6)
    assert (normed.double() - exact).abs().max() <= 2**-8 * exact.abs().max()
    torch.testing.assert_close(moments[:, 0].double(), wide.mean(1))


def test_a_long_product_over_few_rows_is_cut_and_stays_as_exact():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(s, generator=generator).bfloat16() for s in ((40, 1280), (1280, 32)))
    exact = a.double() @ b.double()
    assert (times(a, b).double() - exact).norm() <= 2 * ((a @ b).double() - exact).norm()


def test_what_does_not_fit_is_left_to_torch():
    plan = Plan(2, 2, 1e-6)
    x, parameters = random_arguments(plan, tokens=5, dim=32, depth=1)
    assert fits_native(plan, x, parameters)
    assert not fits_native(plan, x.float(), parameters)
    assert not fits_native(plan, x, [p.bfloat16() for p in parameters])
    assert not fits_native(Plan(2, 4, 1e-6), x, parameters)  # 8 channels a head
    long, _ = random_arguments(plan, tokens=321, dim=32, depth=1)
    assert not fits_native(plan, long, parameters)


def test_a_tensor_that_is_not_contiguous_is_refused():
    with pytest.raises(KernelError, match="argument 1 is no contiguous tensor"):
        Loop(lambda data: None)(torch.zeros(2), torch.zeros(4, 2).t())


def test_a_cell_begun_by_compiled_loops_says_what_it_lacks(monkeypatch):
    monkeypatch.setattr(native, "available", lambda: False)
    with (
        pytest.raises(KernelError, match="blocks_bf16: native needs numba"),
        choose.using(choose.REFERENCE | {"blocks_bf16": "native"}),
    ):
        pass


def test_a_cell_begun_before_there_was_a_choice_takes_torchs_blocks():
    old = {name: way for name, way in choose.REFERENCE.items() if name != "blocks_bf16"}
    with choose.using(choose.REFERENCE | {"blocks_bf16": "native"}):
        assert choose.blocks_now() == "native"
        with choose.using(old):
            assert choose.blocks_now() == "torch"
