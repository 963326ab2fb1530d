"""Transformer blocks, driven by our own forward over timm's parameters.

Where an operation has a kernel (kernels/dispatch.py: a CUDA device), a stack of blocks is run by its
fused operations; in bfloat16 on a processor where it pays (kernels/choose.py), by compiled loops;
anywhere else, and to the bit as ever, block by block.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from mae_lib.kernels.choose import attention_now, blocks_now, linear_now
from mae_lib.kernels.dispatch import takes_any
from mae_lib.kernels.gelu import bias_gelu
from mae_lib.kernels.linear import linear as plain_linear
from mae_lib.kernels.norm import add_norm
from mae_lib.kernels.packed_attention import packed_attention, query_attention
from mae_lib.kernels.stack import Plan, fits_native
from mae_lib.model.timm_modules import Block

Cast = Callable[[Tensor], Tensor]


def run_stack(
    blocks: torch.nn.Sequential | torch.nn.ModuleList,
    norm: torch.nn.LayerNorm,
    x: Float[Tensor, "rows D"],
    *,
    batch: int,
    cast: Cast,
    queries: int | None = None,
    run: Callable[..., Tensor] | None = None,
) -> Float[Tensor, "out D"]:
    """Run pre-norm blocks and the norm behind them on `batch` sequences stored row by row.

    With `queries`, the last block computes the last `queries` tokens of each sequence only. `run`
    stands for `run_block` where a block is wrapped (sharded, or run again in the backward pass).
    """
    last = len(blocks) - 1
    if run is None and blocks_now() == "native":
        plan = Plan(batch, blocks[0].attn.num_heads, norm.eps, queries)
        parameters = _parameters(blocks, norm)
        if fits_native(plan, x, parameters):
            from mae_lib.kernels.stack_native import stack_native

            return stack_native(plan, x, parameters)
    if run is None and takes_any(x.device.type, x.dtype):
        branch = None
        for i, block in enumerate(blocks):
            asked = queries if i == last else None
            x, branch = _run_fused(block, x, branch, batch=batch, cast=cast, queries=asked)
        return add_norm(x, branch, cast(norm.weight), cast(norm.bias), norm.eps)[1]
    run = run or run_block
    for block in blocks[:last]:
        x = run(block, x, batch=batch, cast=cast)
    x = run(blocks[last], x, batch=batch, cast=cast, queries=queries)
    return _norm(norm, x, cast)


def _parameters(blocks: torch.nn.Module, norm: torch.nn.LayerNorm) -> list[Tensor]:
    """Return the master weights of blocks and of the norm behind them, as kernels/stack.py has them."""
    layers = []
    for block in blocks:
        attn, mlp = block.attn, block.mlp
        layers += [block.norm1, attn.qkv, attn.proj, block.norm2, mlp.fc1, mlp.fc2]
    return [tensor for layer in (*layers, norm) for tensor in (layer.weight, layer.bias)]


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
    mixed = attention_now(q.dtype)(q, k, v).transpose(1, 2).reshape(-1, dim)
    x = x + linear(mixed, cast(block.attn.proj.weight), cast(block.attn.proj.bias))
    h = _norm(block.norm2, x, cast)
    h = functional.gelu(linear(h, cast(block.mlp.fc1.weight), cast(block.mlp.fc1.bias)))
    return x + linear(h, cast(block.mlp.fc2.weight), cast(block.mlp.fc2.bias))


def _run_fused(
    block: Block,
    x: Tensor,
    branch: Tensor | None,
    *,
    batch: int,
    cast: Cast,
    queries: int | None,
) -> tuple[Tensor, Tensor]:
    """Run a block on the stream x + branch; the sum of what it returns is the stream behind it.

    The MLP's addition is left to the next norm, which reads both terms once.
    """
    dim, heads = x.shape[-1], block.attn.num_heads
    tokens, linear = x.shape[0] // batch, linear_now()
    x, h = add_norm(x, branch, cast(block.norm1.weight), cast(block.norm1.bias), block.norm1.eps)
    weight, bias = cast(block.attn.qkv.weight), cast(block.attn.qkv.bias)
    if queries is None:
        qkv = linear(h, weight, bias)
        mixed = packed_attention(qkv.view(batch, tokens, 3, heads, dim // heads))
    else:
        kv = linear(h, weight[dim:], bias[dim:])
        last = h.view(batch, tokens, dim)[:, tokens - queries :].reshape(batch * queries, dim)
        q = linear(last, weight[:dim], bias[:dim])
        mixed = query_attention(
            q.view(batch, queries, heads, dim // heads),
            kv.view(batch, tokens, 2, heads, dim // heads),
        )
        x = x.view(batch, tokens, dim)[:, tokens - queries :].reshape(batch * queries, dim)
    attn, norm2, fc1, fc2 = block.attn.proj, block.norm2, block.mlp.fc1, block.mlp.fc2
    branch = linear(mixed.reshape(-1, dim), cast(attn.weight), cast(attn.bias))
    x, h = add_norm(x, branch, cast(norm2.weight), cast(norm2.bias), norm2.eps)
    weight, bias = cast(fc1.weight), cast(fc1.bias)
    if linear is plain_linear:
        # The bias goes with the GELU: the sum over rows for its gradient then rides along too.
        h = bias_gelu(functional.linear(h, weight), bias)
    else:
        h = functional.gelu(linear(h, weight, bias))
    return x, linear(h, cast(fc2.weight), cast(fc2.bias))


def _norm(norm: torch.nn.LayerNorm, x: Tensor, cast: Cast) -> Tensor:
    # torch keeps mean and variance in fp32 for bf16 input. A stream wider than the products is
    # normed as it is, and cast once.
    weight, bias = cast(norm.weight), cast(norm.bias)
    wide_weight, wide_bias = weight.to(x.dtype), bias.to(x.dtype)
    normed = functional.layer_norm(x, norm.normalized_shape, wide_weight, wide_bias, norm.eps)
    return normed.to(weight.dtype)
