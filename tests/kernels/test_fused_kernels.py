"""Norm, GELU, loss and crop kernels on what their example does not show: edges, programs, strides."""

import pytest
import torch
from kernel_errors import DEVICE, assert_at_most_twice_torchs_error, run

from mae_lib.kernels import crop_patches, gelu, gelu_triton, loss, norm, norm_triton
from mae_lib.kernels.crop_triton import crop_patches_triton
from mae_lib.kernels.loss_triton import masked_error_triton
from mae_lib.kernels.mask_order import mask_order_reference
from mae_lib.kernels.mask_order_triton import mask_order_triton


def test_rows_of_many_programs_are_added_up(monkeypatch):
    monkeypatch.setattr(norm_triton, "PROGRAMS", 3)
    monkeypatch.setattr(norm_triton, "_TILE", 128)
    arguments = norm.random_arguments(17, 24, device=DEVICE, dtype=torch.float32)
    assert_at_most_twice_torchs_error(
        norm_triton.add_norm_triton, norm.add_norm_reference, arguments
    )
    monkeypatch.setattr(gelu_triton, "PROGRAMS", 1)
    monkeypatch.setattr(gelu_triton, "_ROWS", 2)
    arguments = gelu.random_arguments(19, 300, device=DEVICE, dtype=torch.float32)
    assert_at_most_twice_torchs_error(
        gelu_triton.bias_gelu_triton, gelu.bias_gelu_reference, arguments
    )


def test_a_norm_without_a_branch_returns_the_stream_itself():
    x, _, weight, bias, eps = norm.random_arguments(5, 24, device=DEVICE, dtype=torch.float32)
    assert norm_triton.add_norm_triton(x, None, weight, bias, eps)[0] is x

    def with_stream(way):
        def call(x, weight, bias):
            stream, normed = way(x, None, weight, bias, eps)
            return 2 * stream, normed

        return call

    assert_at_most_twice_torchs_error(
        with_stream(norm_triton.add_norm_triton),
        with_stream(norm.add_norm_reference),
        (x, weight, bias),
    )


def test_a_wide_stream_takes_narrow_branches():
    x, y, weight, bias, eps = norm.random_arguments(5, 24, device=DEVICE, dtype=torch.float16)
    wide = x.detach().float().requires_grad_()
    ours, theirs = (
        run(way, (wide, y, weight, bias, eps))
        for way in (norm_triton.add_norm_triton, norm.add_norm_reference)
    )
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == other.dtype
        torch.testing.assert_close(mine, other, atol=4e-3, rtol=2e-3)


def test_a_stream_or_norm_that_nobody_reads_gets_no_gradient():
    x, y, weight, bias, eps = norm.random_arguments(5, 24, device=DEVICE, dtype=torch.float32)
    for kept in (0, 1):
        ours, theirs = (
            torch.autograd.grad(way(x, y, weight, bias, eps)[kept].square().sum(), (x, y))
            for way in (norm_triton.add_norm_triton, norm.add_norm_reference)
        )
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("normalise", [True, False])
def test_the_loss_reads_a_slice_where_it_lies_and_scales_its_gradient(normalise):
    predicted, target, _ = loss.random_arguments(3, 5, 27, device=DEVICE, dtype=torch.float32)
    assert not target.is_contiguous()

    def scaled(way):
        return lambda predicted, target: way(predicted, target, normalise) * 1000

    arguments = (predicted, target)
    assert_at_most_twice_torchs_error(
        scaled(masked_error_triton), scaled(loss.masked_error_reference), arguments
    )
    strewn = target.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(
        masked_error_triton(predicted, strewn, normalise),
        masked_error_triton(predicted, target, normalise),
    )


@pytest.mark.parametrize(
    ("stored", "out", "patch"), [(25, 8, 4), (10, 32, 16), (21, 21, 7), (16, 16, 8)]
)
def test_crops_have_the_references_bytes_at_any_scale(stored, out, patch):
    tensors = crop_patches.random_arguments(
        2, stored=stored, out=out, patch=patch, device=DEVICE, seed=stored
    )
    store, index, boxes, flips, order = tensors
    flips = torch.tensor([True, False], device=DEVICE)
    for dtype, count in ((torch.uint8, 3), (torch.float32, 1)):
        ours, theirs = (
            way(
                store, index, boxes.to(torch.int16), flips, order[:, :count],
                out=out, patch=patch, dtype=dtype,
            )
            for way in (crop_patches_triton, crop_patches.crop_patches_reference)
        )  # fmt: skip
        assert torch.equal(ours, theirs)


def test_columns_of_one_table_are_read_where_they_lie():
    store, index, boxes, flips, order = crop_patches.random_arguments(
        2, stored=12, out=8, patch=4, device=DEVICE
    )
    table = torch.cat([index[:, None], boxes, flips[:, None]], 1).long()
    columns = table[:, 0], table[:, 1:5], flips.repeat_interleave(2)[::2]
    place = {"out": 8, "patch": 4, "dtype": torch.uint8}
    ours = crop_patches_triton(store, *columns, order[:, :2], **place)
    theirs = crop_patches.crop_patches_reference(store, index, boxes, flips, order[:, :2], **place)
    assert torch.equal(ours, theirs)
    orders = mask_order_triton(5, table[:, 0], table[:, 3], 9)
    assert torch.equal(orders, mask_order_reference(5, table[:, 0], table[:, 3], 9))


def test_images_of_any_shape_are_cropped():
    store = torch.randint(0, 256, (1, 9, 30, 3), dtype=torch.uint8, device=DEVICE)
    whole = torch.tensor([[0, 0, 9, 30]], device=DEVICE)
    rest = (torch.zeros(1, dtype=torch.long, device=DEVICE), whole)
    flips = torch.tensor([False], device=DEVICE)
    order = torch.tensor([[3, 0]], device=DEVICE)
    ours, theirs = (
        way(store, *rest, flips, order, out=12, patch=6, dtype=torch.uint8)
        for way in (crop_patches_triton, crop_patches.crop_patches_reference)
    )
    assert torch.equal(ours, theirs)
