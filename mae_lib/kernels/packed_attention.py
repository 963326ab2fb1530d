"""Attention over short sequences from packed projections, the result in the layout of the next
product: nothing is transposed in memory.

Tokens come as they leave the qkv product, `[B, N, 3, H, d]`. The decoder's last block asks for its
last M tokens only: their queries come apart from all tokens' keys and values.
"""

import contextlib

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from mae_lib.kernels.attention_table import attention_way
from mae_lib.kernels.dispatch import triton_way

BACKENDS: dict[str, SDPBackend] = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}


def packed_attention(qkv: Float[Tensor, "B N 3 H d"]) -> Float[Tensor, "B N H d"]:
    """Return softmax(q k' / sqrt(d)) v of every token, by the way measured fastest.

    Error: at most twice torch's own against float64 (tests/kernels/test_packed_attention.py).
    """
    _, tokens, _, _, head_dim = qkv.shape
    way = attention_way("packed_attention", tokens, tokens, head_dim, qkv.dtype, qkv.device.type)
    if way == "triton":
        return triton_way("packed_attention")(qkv)
    with backend(way):
        return packed_attention_reference(qkv)


def query_attention(
    q: Float[Tensor, "B M H d"], kv: Float[Tensor, "B N 2 H d"]
) -> Float[Tensor, "B M H d"]:
    """Return the same for M queries on N other keys and values."""
    _, tokens, _, _, head_dim = kv.shape
    way = attention_way("query_attention", tokens, q.shape[1], head_dim, q.dtype, q.device.type)
    if way == "triton":
        return triton_way("query_attention")(q, kv)
    with backend(way):
        return query_attention_reference(q, kv)


def packed_attention_reference(qkv: Float[Tensor, "B N 3 H d"]) -> Float[Tensor, "B N H d"]:
    """Return the same by torch's scaled_dot_product_attention: the definition."""
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def query_attention_reference(
    q: Float[Tensor, "B M H d"], kv: Float[Tensor, "B N 2 H d"]
) -> Float[Tensor, "B M H d"]:
    """Return the same by torch's scaled_dot_product_attention: the definition."""
    k, v = kv.permute(2, 0, 3, 1, 4).unbind(0)
    return functional.scaled_dot_product_attention(q.transpose(1, 2), k, v).transpose(1, 2)


def backend(way: str) -> contextlib.AbstractContextManager:
    """Return the context in which torch's attention takes one backend; `torch`: its own choice."""
    return sdpa_kernel(BACKENDS[way]) if way in BACKENDS else contextlib.nullcontext()


def random_arguments(
    batch: int,
    tokens: int,
    heads: int,
    head_dim: int,
    *,
    device: torch.device,
    dtype: torch.dtype,
    queries: int | None = None,
    seed: int = 0,
) -> tuple[Tensor, ...]:
    """Draw (qkv,), or with `queries` (q, kv), of SD 1 that need gradients."""
    generator = torch.Generator(device).manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        drawn = torch.randn(shape, generator=generator, device=device)
        return drawn.to(dtype).requires_grad_()

    if queries is None:
        return (draw(batch, tokens, 3, heads, head_dim),)
    return draw(batch, queries, heads, head_dim), draw(batch, tokens, 2, heads, head_dim)
