"""Gradients of attention over short sequences: the scores are computed again from what was saved.

A program holds a block of keys and walks over the queries, so that nothing is added up in memory. Where
one block holds every key of its images, the gradient of the queries comes from the same program; longer
sequences take a second launch that holds queries and walks over keys.
"""

from typing import no_type_check  # a type checker's wrapper is not what Triton compiles

import triton
import triton.language as tl
from torch import Tensor

from mae_lib.kernels.attention_blocks import Heads, blocks_of

LOG2_E = 1.4426950408889634


def backward(heads: Heads, gradients: Heads, out: Tensor, grad_out: Tensor, lse: Tensor) -> None:
    """Fill `gradients`, laid out as `heads`, from contiguous `out` and its gradient."""
    blocks = blocks_of(heads, backward=True)
    groups = triton.cdiv(heads.batch, blocks.pack)
    steps = triton.cdiv(blocks.pack * heads.keys, blocks.keys)
    shape = {
        "Q_STRIDE": heads.q_stride,
        "K_STRIDE": heads.k_stride,
        "M": heads.queries,
        "N": heads.keys,
        "HEAD": heads.head_dim,
        "PACK": blocks.pack,
        "BLOCK_M": blocks.queries,
        "BLOCK_N": blocks.keys,
        "BLOCK_D": blocks.head,
        "num_warps": blocks.warps,
        "num_stages": blocks.stages,
    }
    saved = heads.q, heads.k, heads.v, out, grad_out, lse
    numbers = heads.batch, heads.heads, heads.scale
    _keys_kernel[(groups * steps, heads.heads)](
        gradients.q,
        gradients.k,
        gradients.v,
        *saved,
        *numbers,
        STEPS=steps,
        QUERIES_TOO=steps == 1,
        **shape,
    )
    if steps > 1:
        steps = triton.cdiv(blocks.pack * heads.queries, blocks.queries)
        _queries_kernel[(groups * steps, heads.heads)](
            gradients.q, *saved, *numbers, STEPS=steps, **shape
        )


@triton.jit
@no_type_check
def _rows(pointer, row, stride, column, there):
    """Load rows of one head."""
    return tl.load(pointer + row[:, None] * stride + column[None, :], mask=there, other=0.0)


@triton.jit
@no_type_check
def _shares(query, key, lse, seen, scale):
    """Return softmax(query key' scale) from the saved logarithm of its sums, base 2."""
    score = tl.dot(query, tl.trans(key), input_precision="ieee") * (scale * 1.4426950408889634)
    return tl.where(seen, tl.exp2(score - lse[:, None]), 0.0)


@triton.jit
@no_type_check
def _level(result, grad):
    """Return each query's sum over keys of share times incoming gradient: it is output . gradient."""
    return tl.sum(result.to(tl.float32) * grad.to(tl.float32), axis=1)


@triton.jit
@no_type_check
def _keys_kernel(
    grad_q,  # rows [batch * M], Q_STRIDE apart: written where QUERIES_TOO
    grad_k,  # rows [batch * N], K_STRIDE apart
    grad_v,  # as grad_k
    q,  # as grad_q
    k,  # as grad_k
    v,  # as grad_k
    out,  # [batch * M, heads * HEAD]: read unless QUERIES_TOO
    grad_out,  # as out
    lse_in,  # fp32 [heads, batch * M]
    batch,
    heads,
    scale,
    STEPS: tl.constexpr,
    QUERIES_TOO: tl.constexpr,
    Q_STRIDE: tl.constexpr,
    K_STRIDE: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    HEAD: tl.constexpr,
    PACK: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    group = tl.program_id(0) // STEPS
    head = tl.program_id(1)
    j = (tl.program_id(0) % STEPS) * BLOCK_N + tl.arange(0, BLOCK_N)
    column = (group * PACK * N + j).to(tl.int64)
    known = (j < PACK * N) & (column < batch * N)
    d = tl.arange(0, BLOCK_D)
    inside = (d < HEAD)[None, :]
    place = head * HEAD + d
    key = _rows(k, column, K_STRIDE, place, known[:, None] & inside)
    value = _rows(v, column, K_STRIDE, place, known[:, None] & inside)
    for_key = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    for_value = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    for start in range(0, PACK * M, BLOCK_M):
        i = start + tl.arange(0, BLOCK_M)
        row = (group * PACK * M + i).to(tl.int64)
        asked = (i < PACK * M) & (row < batch * M)
        there = asked[:, None] & inside
        query = _rows(q, row, Q_STRIDE, place, there)
        grad = _rows(grad_out, row, heads * HEAD, place, there)
        lse = tl.load(lse_in + head * batch * M + row, mask=asked, other=0.0)
        seen = asked[:, None] & known[None, :]
        if PACK > 1:
            seen = seen & ((i // M)[:, None] == (j // N)[None, :])
        share = _shares(query, key, lse, seen, scale)
        for_value += tl.dot(tl.trans(share.to(grad.dtype)), grad, input_precision="ieee")
        incoming = tl.dot(grad, tl.trans(value), input_precision="ieee")
        if QUERIES_TOO:
            # Every key is here: the sum itself cancels better than output . gradient, rounded twice.
            level = tl.sum(share * incoming, axis=1)
        else:
            level = _level(_rows(out, row, heads * HEAD, place, there), grad)
        change = (share * (incoming - level[:, None]) * scale).to(query.dtype)
        for_key += tl.dot(tl.trans(change), query, input_precision="ieee")
        if QUERIES_TOO:
            for_query = tl.dot(change, key, input_precision="ieee")
            target = grad_q + row[:, None] * Q_STRIDE + place[None, :]
            tl.store(target, for_query.to(grad_q.dtype.element_ty), mask=there)
    target = column[:, None] * K_STRIDE + place[None, :]
    there = known[:, None] & inside
    tl.store(grad_k + target, for_key.to(grad_k.dtype.element_ty), mask=there)
    tl.store(grad_v + target, for_value.to(grad_v.dtype.element_ty), mask=there)


@triton.jit
@no_type_check
def _queries_kernel(
    grad_q,  # rows [batch * M], Q_STRIDE apart
    q,  # as grad_q
    k,  # rows [batch * N], K_STRIDE apart
    v,  # as k
    out,  # [batch * M, heads * HEAD]
    grad_out,  # as out
    lse_in,  # fp32 [heads, batch * M]
    batch,
    heads,
    scale,
    STEPS: tl.constexpr,
    Q_STRIDE: tl.constexpr,
    K_STRIDE: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    HEAD: tl.constexpr,
    PACK: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    # Sequences of several blocks are never packed: PACK is 1.
    image = tl.program_id(0) // STEPS
    head = tl.program_id(1)
    i = (tl.program_id(0) % STEPS) * BLOCK_M + tl.arange(0, BLOCK_M)
    row = (image * M + i).to(tl.int64)
    asked = i < M
    d = tl.arange(0, BLOCK_D)
    inside = (d < HEAD)[None, :]
    place = head * HEAD + d
    there = asked[:, None] & inside
    query = _rows(q, row, Q_STRIDE, place, there)
    grad = _rows(grad_out, row, heads * HEAD, place, there)
    level = _level(_rows(out, row, heads * HEAD, place, there), grad)
    lse = tl.load(lse_in + head * batch * M + row, mask=asked, other=0.0)
    for_query = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for start in range(0, N, BLOCK_N):
        j = start + tl.arange(0, BLOCK_N)
        column = (image * N + j).to(tl.int64)
        known = (j < N)[:, None] & inside
        key = _rows(k, column, K_STRIDE, place, known)
        value = _rows(v, column, K_STRIDE, place, known)
        share = _shares(query, key, lse, asked[:, None] & (j < N)[None, :], scale)
        incoming = tl.dot(grad, tl.trans(value), input_precision="ieee")
        change = (share * (incoming - level[:, None]) * scale).to(key.dtype)
        for_query += tl.dot(change, key, input_precision="ieee")
    target = grad_q + row[:, None] * Q_STRIDE + place[None, :]
    tl.store(target, for_query.to(grad_q.dtype.element_ty), mask=there)
