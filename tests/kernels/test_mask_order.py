"""Random words and patch orders are the same bits in numpy, torch and Triton."""

import numpy as np
import pytest
import torch
from kernel_errors import DEVICE

from mae_lib.kernels.mask_order import mask_order, mask_order_reference, random_words_reference
from mae_lib.kernels.mask_order_triton import mask_order_triton
from mae_lib.kernels.philox import Purpose, random_words
from mae_lib.kernels.philox_triton import random_words_triton
from mae_lib.model.masking import patch_order

# Items and seeds that need the high words, steps that pass 31 bits.
ITEMS = torch.tensor([0, 5, 2**33 + 7, 123, 2**31], device=DEVICE)
STEPS = torch.tensor([0, 1, 2, 2**31 + 5, 7], device=DEVICE)


@pytest.mark.parametrize("seed", [0, 2**31 + 3])
def test_words_are_equal_in_numpy_torch_and_triton(seed):
    exact = random_words(seed, Purpose.CROP, ITEMS.cpu().numpy(), STEPS.cpu().numpy(), draws=10)
    for way in (random_words_reference, random_words_triton):
        words = way(seed, Purpose.CROP, ITEMS, STEPS, draws=10)
        assert np.array_equal(words.cpu().numpy(), exact.astype(np.int64))


@pytest.mark.parametrize("tokens", [1, 4, 25, 64])
def test_orders_are_the_hosts_in_torch_and_triton(tokens):
    exact = patch_order(3, ITEMS.cpu().numpy(), STEPS.cpu().numpy(), tokens).to(DEVICE)
    assert torch.equal(mask_order(3, ITEMS, STEPS, tokens), exact)
    assert torch.equal(mask_order_reference(3, ITEMS, STEPS, tokens), exact)
    assert torch.equal(mask_order_triton(3, ITEMS, STEPS, tokens), exact)


def test_more_patches_than_a_program_sorts_go_to_torch():
    exact = patch_order(3, ITEMS[:1].cpu().numpy(), 0, 4225).to(DEVICE)
    assert torch.equal(mask_order_triton(3, ITEMS[:1], STEPS[:1], 4225), exact)
