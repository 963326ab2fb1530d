"""Attention over short sequences in one launch, queries, keys and values where the product left them.

A program holds a block of queries of one head and walks over the keys: one block of them up to 128
tokens. Sequences under 9 tokens are too short for a tensor core's 16 rows: some images then share a
block, and a mask keeps them apart.
Source: Dao et al. 2022 (arXiv 2205.14135) for the running softmax and the recomputed scores.
"""

from typing import no_type_check  # a type checker's wrapper is not what Triton compiles

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from mae_lib.kernels.attention_backward_triton import LOG2_E, backward
from mae_lib.kernels.attention_blocks import Heads, blocks_of, heads_of_packed, heads_of_queries


def packed_attention_triton(qkv: Float[Tensor, "B N 3 H d"]) -> Float[Tensor, "B N H d"]:
    """Return packed_attention_reference: softmax in fp32, products in the dtype of `qkv`."""
    return torch.ops.mae_lib.packed_attention(qkv)[0]


def query_attention_triton(
    q: Float[Tensor, "B M H d"], kv: Float[Tensor, "B N 2 H d"]
) -> Float[Tensor, "B M H d"]:
    """Return query_attention_reference, likewise."""
    return torch.ops.mae_lib.query_attention(q, kv)[0]


@torch.library.custom_op("mae_lib::packed_attention", mutates_args=())
def _packed_attention(qkv: Tensor) -> tuple[Tensor, Tensor]:
    return _forward(heads_of_packed(qkv.contiguous()))


@torch.library.custom_op("mae_lib::packed_attention_backward", mutates_args=())
def _packed_attention_backward(grad_out: Tensor, out: Tensor, lse: Tensor, qkv: Tensor) -> Tensor:
    qkv = qkv.contiguous()
    grad = torch.empty_like(qkv)
    backward(heads_of_packed(qkv), heads_of_packed(grad), out, grad_out.contiguous(), lse)
    return grad


@torch.library.custom_op("mae_lib::query_attention", mutates_args=())
def _query_attention(q: Tensor, kv: Tensor) -> tuple[Tensor, Tensor]:
    return _forward(heads_of_queries(q.contiguous(), kv.contiguous()))


@torch.library.custom_op("mae_lib::query_attention_backward", mutates_args=())
def _query_attention_backward(
    grad_out: Tensor, out: Tensor, lse: Tensor, q: Tensor, kv: Tensor
) -> tuple[Tensor, Tensor]:
    q, kv = q.contiguous(), kv.contiguous()
    grad_q, grad_kv = torch.empty_like(q), torch.empty_like(kv)
    gradients = heads_of_queries(grad_q, grad_kv)
    backward(heads_of_queries(q, kv), gradients, out, grad_out.contiguous(), lse)
    return grad_q, grad_kv


@_packed_attention.register_fake
def _(qkv):
    batch, tokens, _, heads, head_dim = qkv.shape
    lse = qkv.new_empty(heads, batch * tokens, dtype=torch.float32)
    return qkv.new_empty(batch, tokens, heads, head_dim), lse


@_packed_attention_backward.register_fake
def _(grad_out, out, lse, qkv):
    return qkv.new_empty(qkv.shape)


@_query_attention.register_fake
def _(q, kv):
    lse = q.new_empty(q.shape[2], q.shape[0] * q.shape[1], dtype=torch.float32)
    return q.new_empty(q.shape), lse


@_query_attention_backward.register_fake
def _(grad_out, out, lse, q, kv):
    return q.new_empty(q.shape), kv.new_empty(kv.shape)


def _keep(ctx, inputs, output):
    out, lse = output
    ctx.mark_non_differentiable(lse)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(out, lse, *inputs)


def _packed_gradient(ctx, grad_out, *unused):
    if grad_out is None:
        return None
    return torch.ops.mae_lib.packed_attention_backward(grad_out, *ctx.saved_tensors)


def _query_gradient(ctx, grad_out, *unused):
    if grad_out is None:
        return None, None
    return torch.ops.mae_lib.query_attention_backward(grad_out, *ctx.saved_tensors)


_packed_attention.register_autograd(_packed_gradient, setup_context=_keep)
_query_attention.register_autograd(_query_gradient, setup_context=_keep)


def _forward(heads: Heads) -> tuple[Tensor, Tensor]:
    blocks = blocks_of(heads)
    rows = heads.batch * heads.queries
    out = torch.empty(
        heads.batch,
        heads.queries,
        heads.heads,
        heads.head_dim,
        dtype=heads.q.dtype,
        device=heads.q.device,
    )
    lse = torch.empty(heads.heads, rows, dtype=torch.float32, device=heads.q.device)
    steps = triton.cdiv(blocks.pack * heads.queries, blocks.queries)
    groups = triton.cdiv(heads.batch, blocks.pack)
    _forward_kernel[(groups * steps, heads.heads)](
        out,
        lse,
        heads.q,
        heads.k,
        heads.v,
        heads.batch,
        heads.heads,
        heads.scale * LOG2_E,
        Q_STRIDE=heads.q_stride,
        K_STRIDE=heads.k_stride,
        M=heads.queries,
        N=heads.keys,
        HEAD=heads.head_dim,
        STEPS=steps,
        PACK=blocks.pack,
        BLOCK_M=blocks.queries,
        BLOCK_N=blocks.keys,
        BLOCK_D=blocks.head,
        num_warps=blocks.warps,
        num_stages=blocks.stages,
    )
    return out, lse


@triton.jit
@no_type_check
def _forward_kernel(
    out,  # [batch, M, heads, HEAD]
    lse_out,  # fp32 [heads, batch * M]: log2 of the sum of 2^score
    q,  # rows [batch * M], Q_STRIDE apart
    k,  # rows [batch * N], K_STRIDE apart
    v,  # as k
    batch,
    heads,
    scale,
    Q_STRIDE: tl.constexpr,
    K_STRIDE: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    HEAD: tl.constexpr,
    STEPS: tl.constexpr,
    PACK: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    group = tl.program_id(0) // STEPS
    head = tl.program_id(1)
    i = (tl.program_id(0) % STEPS) * BLOCK_M + tl.arange(0, BLOCK_M)
    row = (group * PACK * M + i).to(tl.int64)
    asked = (i < PACK * M) & (row < batch * M)
    d = tl.arange(0, BLOCK_D)
    inside = d < HEAD
    query = tl.load(
        q + row[:, None] * Q_STRIDE + (head * HEAD + d)[None, :],
        mask=asked[:, None] & inside[None, :],
        other=0.0,
    )
    most = tl.full([BLOCK_M], -1e30, tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    mixed = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for start in range(0, PACK * N, BLOCK_N):
        j = start + tl.arange(0, BLOCK_N)
        column = (group * PACK * N + j).to(tl.int64)
        known = (j < PACK * N) & (column < batch * N)
        place = column[:, None] * K_STRIDE + (head * HEAD + d)[None, :]
        there = known[:, None] & inside[None, :]
        key = tl.load(k + place, mask=there, other=0.0)
        value = tl.load(v + place, mask=there, other=0.0)
        score = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
        seen = known[None, :]
        if PACK > 1:
            seen = seen & ((i // M)[:, None] == (j // N)[None, :])
        score = tl.where(seen, score, -1e30)
        larger = tl.maximum(most, tl.max(score, axis=1))
        share = tl.exp2(score - larger[:, None])
        fade = tl.exp2(most - larger)
        total = total * fade + tl.sum(share, axis=1)
        mixed = mixed * fade[:, None]
        mixed += tl.dot(share.to(value.dtype), value, input_precision="ieee")
        most = larger
    mixed = mixed / total[:, None]
    place = row[:, None] * heads * HEAD + (head * HEAD + d)[None, :]
    there = asked[:, None] & inside[None, :]
    tl.store(out + place, mixed.to(out.dtype.element_ty), mask=there)
    tl.store(lse_out + head * batch * M + row, most + tl.log2(total), mask=asked)
