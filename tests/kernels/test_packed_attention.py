"""Attention kernels over every kind of block: packed images, one block, several, odd head dims."""

import pytest
import torch
from kernel_errors import DEVICE, assert_at_most_twice_torchs_error, run

from mae_lib.kernels.attention import attention_products
from mae_lib.kernels.attention_blocks import blocks_of, heads_of_packed
from mae_lib.kernels.attention_triton import packed_attention_triton, query_attention_triton
from mae_lib.kernels.packed_attention import (
    packed_attention,
    packed_attention_reference,
    query_attention,
    query_attention_reference,
    random_arguments,
)

# batch, tokens, heads, head dim
SHAPES = [
    (5, 1, 1, 16),  # sixteen images a block, the last block not full
    (7, 4, 2, 16),  # four images a block
    (2, 13, 1, 64),
    (1, 17, 2, 24),  # a head dim that is padded
    (1, 40, 1, 128),
    (1, 70, 1, 32),  # one block of 128 keys in fp16, three in fp32
    (1, 150, 1, 16),  # three blocks of 64
]
QUERY_SHAPES = [(3, 1, 5, 1, 16), (3, 3, 4, 2, 16), (1, 60, 75, 1, 32), (1, 7, 140, 1, 16)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_packed_attention_is_at_most_twice_as_wrong_as_torchs(shape, dtype):
    arguments = random_arguments(*shape, device=DEVICE, dtype=dtype)
    assert_at_most_twice_torchs_error(
        packed_attention_triton, packed_attention_reference, arguments
    )


@pytest.mark.parametrize("shape", QUERY_SHAPES, ids=str)
def test_the_last_queries_are_at_most_twice_as_wrong_as_torchs(shape):
    batch, queries, tokens, heads, head_dim = shape
    arguments = random_arguments(
        batch, tokens, heads, head_dim, device=DEVICE, dtype=torch.float32, queries=queries
    )
    assert_at_most_twice_torchs_error(query_attention_triton, query_attention_reference, arguments)


def test_images_that_share_a_block_do_not_see_each_other():
    (qkv,) = random_arguments(8, 3, 1, 16, device=DEVICE, dtype=torch.float32)
    together = packed_attention_triton(qkv)
    assert blocks_of(heads_of_packed(qkv.detach())).pack > 1
    other = qkv.detach().clone()
    other[1:] = torch.randn_like(other[1:])
    assert torch.equal(packed_attention_triton(other)[0], together[0])


def test_the_references_are_the_definition_in_float64():
    (qkv,) = random_arguments(2, 9, 2, 16, device=DEVICE, dtype=torch.float64)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    exact = attention_products(q, k, v).transpose(1, 2)
    torch.testing.assert_close(packed_attention_reference(qkv), exact, atol=1e-14, rtol=1e-12)
    some = query_attention_reference(qkv[:, 4:, 0], qkv[:, :, 1:])
    torch.testing.assert_close(some, exact[:, 4:], atol=1e-14, rtol=1e-12)


def test_strided_tensors_are_taken():
    (qkv,) = random_arguments(2, 5, 2, 16, device=DEVICE, dtype=torch.float32)
    turned = qkv.detach().transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(packed_attention_triton(turned), packed_attention_triton(qkv))


def test_unmeasured_shapes_take_torchs_attention_unless_forced(monkeypatch):
    arguments = random_arguments(1, 5, 1, 16, device=DEVICE, dtype=torch.float32, queries=2)
    (qkv,) = random_arguments(1, 5, 1, 16, device=DEVICE, dtype=torch.float32)
    monkeypatch.delenv("MAE_KERNELS", raising=False)
    assert torch.equal(packed_attention(qkv), packed_attention_reference(qkv))
    assert torch.equal(query_attention(*arguments), query_attention_reference(*arguments))
    monkeypatch.setenv("MAE_KERNELS", "triton")
    for ours, kernel in zip(
        run(packed_attention, [qkv]), run(packed_attention_triton, [qkv]), strict=True
    ):
        assert torch.equal(ours, kernel)
    assert torch.equal(query_attention(*arguments), query_attention_triton(*arguments))


# On a device every shape is compiled: each kind of block and head dim once, no full grid.
LENGTHS = [
    (1, 64), (2, 32), (8, 16), (9, 128), (17, 32), (64, 64), (65, 128), (128, 64), (129, 80),
    (257, 32), (320, 64), (320, 128),
]  # fmt: skip


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("tokens", "head_dim"), LENGTHS)
def test_every_kind_of_length_and_head_dim_on_a_device(tokens, head_dim):
    arguments = random_arguments(5, tokens, 3, head_dim, device=DEVICE, dtype=torch.bfloat16)
    assert_at_most_twice_torchs_error(
        packed_attention_triton, packed_attention_reference, arguments
    )
