"""One transformer block, driven by our own forward over timm's parameters."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from mae_lib.kernels.choose import attention_now, linear_now
from mae_lib.model.timm_modules import Block

Cast = Callable[[Tensor], Tensor]


def run_block(
    block: Block,
    x: Float[Tensor, "rows D"],
    *,
    batch: int,
    cast: Cast,
    queries: int | None = None,
) -> Float[Tensor, "out D"]:
    """Run a pre-norm block on `batch` sequences stored row by row.

    `cast` turns a master weight into the dtype of the product. With `queries`, only the last
    `queries` tokens of each sequence are computed (keys and values still come from all): exact for
    a last block of which only these tokens are read.
    """
    dim, heads = x.shape[-1], block.attn.num_heads
    tokens, head_dim = x.shape[0] // batch, dim // heads
    linear = linear_now()
    h = _norm(block.norm1, x, cast)
    weight, bias = cast(block.attn.qkv.weight), cast(block.attn.qkv.bias)
    if queries is None:
        qkv = linear(h, weight, bias).view(batch, tokens, 3, heads, head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    else:
        kv = linear(h, weight[dim:], bias[dim:]).view(batch, tokens, 2, heads, head_dim)
        k, v = kv.permute(2, 0, 3, 1, 4).unbind(0)
        last = h.view(batch, tokens, dim)[:, tokens - queries :].reshape(batch * queries, dim)
        q = linear(last, weight[:dim], bias[:dim])
        q = q.view(batch, queries, heads, head_dim).transpose(1, 2)
        x = x.view(batch, tokens, dim)[:, tokens - queries :].reshape(batch * queries, dim)
    mixed = attention_now(x.dtype)(q, k, v).transpose(1, 2).reshape(-1, dim)
    x = x + linear(mixed, cast(block.attn.proj.weight), cast(block.attn.proj.bias))
    h = _norm(block.norm2, x, cast)
    h = functional.gelu(linear(h, cast(block.mlp.fc1.weight), cast(block.mlp.fc1.bias)))
    return x + linear(h, cast(block.mlp.fc2.weight), cast(block.mlp.fc2.bias))


def _norm(norm: torch.nn.LayerNorm, x: Tensor, cast: Cast) -> Tensor:
    # torch keeps mean and variance in fp32 for bf16 input.
    return functional.layer_norm(
        x, norm.normalized_shape, cast(norm.weight), cast(norm.bias), norm.eps
    )
