"""Attention over short sequences: torch's fused kernel, or two plain batched products.

For tens of tokens in bf16 on a CPU the fused kernel is 2 to 8 times slower than the two products
(benchmarks/README.md); in fp32 it is the faster.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def attention_products(
    q: Float[Tensor, "B H M d"], k: Float[Tensor, "B H N d"], v: Float[Tensor, "B H N d"]
) -> Float[Tensor, "B H M d"]:
    """Return softmax(q k' / sqrt(d)) v as two batched products: the definition."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return torch.softmax(scores, dim=-1) @ v


def attention_fused(
    q: Float[Tensor, "B H M d"], k: Float[Tensor, "B H N d"], v: Float[Tensor, "B H N d"]
) -> Float[Tensor, "B H M d"]:
    """Return the same by torch's scaled_dot_product_attention."""
    return functional.scaled_dot_product_attention(q, k, v)
