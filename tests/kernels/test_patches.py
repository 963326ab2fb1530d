"""Patches come out whole, in order, and go back to where they were."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mae_lib.kernels.patches import gather_patches, patchify, unpatchify

SIZES = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))


@settings(max_examples=30, deadline=None)
@given(SIZES)
def test_unpatchify_undoes_patchify_on_any_grid(sizes):
    batch, rows, columns, patch = sizes
    count = batch * rows * columns * patch**2 * 3
    images = torch.arange(float(count)).view(batch, rows * patch, columns * patch, 3)
    patches = patchify(images, patch)
    assert patches.shape == (batch, rows * columns, patch * patch * 3)
    assert torch.equal(unpatchify(patches, patch, columns), images)


def test_patches_run_row_by_row_and_keep_row_column_channel_order():
    images = torch.arange(2 * 4 * 6 * 3.0).view(2, 4, 6, 3)
    assert torch.equal(patchify(images, 2)[1, 4], images[1, 2:4, 2:4].flatten())


def test_gathering_in_an_order_equals_cutting_all_and_choosing():
    images = torch.randn(3, 8, 12, 3)
    order = torch.rand(3, 6).argsort(1)[:, :4]
    chosen = torch.take_along_dim(patchify(images, 4), order[..., None], dim=1)
    assert torch.equal(gather_patches(images, order, 4), chosen)
