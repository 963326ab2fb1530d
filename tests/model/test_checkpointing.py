"""Activation checkpointing changes no bit, and keeps a block's input in place of its inside."""

import numpy as np
import pytest
import torch

from mae_lib.model.block import run_block
from mae_lib.model.checkpointing import recomputed
from mae_lib.model.mae import MaskedAutoencoder
from mae_lib.model.masking import patch_order
from mae_lib.study.models import ModelShape


def model(dtype, depth=4):
    shape = ModelShape(96, depth, 3, 64, 2, 2)
    compute = torch.bfloat16 if dtype == torch.bfloat16 else None
    built = MaskedAutoencoder(shape, pixels=32, patch_size=4, keep=32, compute_dtype=compute)
    return built.initialise(0).to(torch.float64 if dtype == torch.float64 else torch.float32)


def step(built, dtype):
    """Return loss, gradients, and the bytes that the forward pass keeps beside the weights."""
    pixels = torch.rand(8, 32, 32, 3, generator=torch.Generator().manual_seed(1))
    order = patch_order(0, np.arange(8), 0, 64)
    weights = {p.untyped_storage().data_ptr() for p in built.parameters()}
    kept = {}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = built(pixels.to(built.mask_token.dtype), order)
    loss.backward()
    return loss.detach(), [p.grad for p in built.parameters()], sum(kept.values())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_loss_and_every_gradient_keep_their_bits_and_activations_go(dtype):
    plain, lean = model(dtype), model(dtype)
    lean.run_block = recomputed(run_block)
    loss, gradients, kept = step(plain, dtype)
    again, same, left = step(lean, dtype)
    assert torch.equal(loss, again)
    for ours, theirs in zip(same, gradients, strict=True):
        assert ours is theirs is None or torch.equal(ours, theirs)
    assert left < kept / 4


def test_a_block_more_costs_its_input_alone():
    bytes_kept = []
    for depth in (4, 5):
        lean = model(torch.float32, depth)
        lean.run_block = recomputed(run_block)
        bytes_kept.append(step(lean, torch.float32)[2])
    rows, width = 8 * (32 + 1), 96
    assert bytes_kept[1] - bytes_kept[0] == rows * width * 4
