"""Every operation with a kernel: its reference, its kernel against float64, and torch's own checks.

The kernels run in triton's interpreter where there is no GPU. Nothing here is skipped without one:
where triton is missing beside a CPU build of torch, these tests fail.
"""

import dataclasses

import pytest
import torch
from kernel_errors import DEVICE, assert_at_most_twice_torchs_error, run

from mae_lib.kernels import dispatch
from mae_lib.kernels.gpu_ops import OPS, SIZES, TINY

BY_NAME = {op.name: op for op in OPS}
SMOOTH = [op.name for op in OPS if op.differentiable]
SMALL = dataclasses.replace(TINY, batch=1, tokens=3, queries=2, dim=8, heads=1, patch=2)


def test_the_list_is_the_dispatchers_and_counts_work_for_every_size():
    assert set(BY_NAME) == set(dispatch.TRITON)
    for op in OPS:
        for size in SIZES:
            assert op.bytes_moved(torch.bfloat16, size) > 0
            assert (op.flops(torch.bfloat16, size) > 0) == ("attention" in op.name)


def test_sizes_are_the_shapes_of_the_grid():
    for size in SIZES:
        half = size.name.split()[1]
        kept = size.patches // 5
        assert size.tokens == (kept if half == "encoder" else size.patches) + 1
        assert size.dim % size.heads == 0
        assert size.pixels <= size.stored


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_of_the_reference_are_right_in_float64(name):
    arguments = BY_NAME[name].example(torch.device("cpu"), torch.float64, SMALL)
    assert torch.autograd.gradcheck(BY_NAME[name].reference, arguments, fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("name", SMOOTH)
def test_a_kernel_is_at_most_twice_as_wrong_as_torch(name, dtype):
    op = BY_NAME[name]
    arguments = op.example(DEVICE, dtype, TINY)
    assert_at_most_twice_torchs_error(op.fast, op.reference, arguments)


@pytest.mark.parametrize("name", ["mask_order", "crop_patches"])
def test_whole_numbers_and_pixels_are_equal_bit_for_bit(name):
    op = BY_NAME[name]
    arguments = op.example(DEVICE, torch.float32, TINY)
    assert torch.equal(op.fast(*arguments), op.reference(*arguments))


@pytest.mark.parametrize("name", SMOOTH)
def test_a_kernel_gives_the_same_bits_again(name):
    op = BY_NAME[name]
    arguments = op.example(DEVICE, torch.float16, TINY)
    for first, second in zip(run(op.fast, arguments), run(op.fast, arguments), strict=True):
        assert torch.equal(first, second)


def registered(name: str):
    """Return the registered operation and arguments for it."""
    arguments = BY_NAME[name].example(DEVICE, torch.float32, TINY)
    BY_NAME[name].fast(*arguments)
    return getattr(torch.ops.mae_lib, name).default, arguments


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_an_operation_is_registered_as_torch_asks(name):
    operation, arguments = registered(name)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(operation, arguments, test_utils=checks)


@pytest.mark.parametrize("name", ["add_norm", "masked_error", "packed_attention"])
def test_an_operation_is_traced_forward_and_backward(name):
    operation, arguments = registered(name)
    torch.library.opcheck(operation, arguments, test_utils="test_aot_dispatch_dynamic")


needs_a_device = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
FEW = {size.name: dataclasses.replace(size, batch=max(16, size.batch // 32)) for size in SIZES}


@pytest.mark.gpu
@needs_a_device
@pytest.mark.parametrize("size", FEW)
@pytest.mark.parametrize("name", SMOOTH)
def test_real_sizes_in_bf16_on_a_device(name, size):
    op, size = BY_NAME[name], FEW[size]
    arguments = op.example(DEVICE, torch.bfloat16, size)
    assert_at_most_twice_torchs_error(op.fast, op.reference, arguments)
    for first, second in zip(run(op.fast, arguments), run(op.fast, arguments), strict=True):
        assert torch.equal(first, second)


@pytest.mark.gpu
@needs_a_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("name", SMOOTH)
def test_the_other_dtypes_on_a_device(name, dtype):
    op = BY_NAME[name]
    arguments = op.example(DEVICE, dtype, FEW["Ti/4@32 decoder"])
    assert_at_most_twice_torchs_error(op.fast, op.reference, arguments)


@pytest.mark.gpu
@needs_a_device
@pytest.mark.parametrize("size", [name for name in FEW if "decoder" in name])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8], ids=str)
def test_crops_have_equal_bits_on_a_device(dtype, size):
    op, size = BY_NAME["crop_patches"], FEW[size]
    arguments = op.example(torch.device("cpu"), dtype, size)
    there = [a.to(DEVICE) if isinstance(a, torch.Tensor) else a for a in arguments]
    on_host = op.reference(*arguments)
    assert torch.equal(op.reference(*there).cpu(), on_host)
    assert torch.equal(op.fast(*there).cpu(), on_host)


@pytest.mark.gpu
@needs_a_device
@pytest.mark.parametrize("tokens", [1, 16, 64, 196, 256, 1024, 4096])
def test_mask_orders_have_equal_bits_on_a_device(tokens):
    op = BY_NAME["mask_order"]
    items = torch.arange(300) * 7_654_321_987
    steps = torch.arange(300) % 11
    on_host = op.reference(12345, items, steps, tokens)
    there = op.fast(12345, items.to(DEVICE), steps.to(DEVICE), tokens)
    assert torch.equal(there.cpu(), on_host)
