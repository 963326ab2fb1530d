"""Attention over short sequences from packed projections, biases added on the way in.

Tensors are bfloat16, everything between them fp32: scores are neither rounded nor written to memory.
Each thread has the keys and values of one head in its cache, and takes queries 64 at a time.
Channels a head are a multiple of 16.
"""

from typing import no_type_check  # a type checker's wrapper is not what numba compiles

import numpy as np
import torch
from torch import Tensor

from mae_lib.kernels.native import parts
from mae_lib.kernels.native_code import Loop, arguments, inlined, single
from mae_lib.kernels.native_lanes import (
    exponential,
    largest,
    load,
    load_half,
    rounded,
    spread,
    store,
    store_half,
    total,
)
from mae_lib.kernels.native_product import product
from mae_lib.kernels.native_turn import turn

_QUERIES = 64


def attention(q: Tensor, kv: Tensor | None, bias: Tensor, *, batch: int, heads: int) -> Tensor:
    """Return softmax(q k' / sqrt(d)) v `[batch x M, D]`.

    `q` is `[batch x N, 3 D]` with queries, keys and values side by side, or, with `kv`
    `[batch x N, 2 D]`, the queries `[batch x M, D]` alone; `bias` fp32 `[3 D]` is that of all three.
    """
    shape, places = _layout(q, kv, bias, batch, heads)
    dim, rows = bias.numel() // 3, q.shape[0]
    out = torch.empty(rows, dim, dtype=q.dtype)
    scratch = torch.zeros(parts(), _scratch(shape))
    _forward(*places, *shape, scratch, scratch.shape[1], out)
    return out


def attention_backward(
    grad: Tensor, q: Tensor, kv: Tensor | None, bias: Tensor, *, batch: int, heads: int
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return the gradients of `q`, `kv` and, in fp32, `bias`; scores are computed again."""
    shape, places = _layout(q, kv, bias, batch, heads)
    scratch, sums = torch.zeros(parts(), _scratch(shape)), torch.zeros(parts(), bias.numel())
    of_q, of_kv = torch.empty_like(q), None if kv is None else torch.empty_like(kv)
    _, of_places = _layout(of_q, of_kv, bias, batch, heads)
    _backward(*places, *shape, scratch, scratch.shape[1], grad, *of_places[:3], sums)
    return of_q, of_kv, sums.sum(0)


def _layout(q, kv, bias, batch, heads) -> tuple[tuple, tuple]:
    """Return sizes, and where queries, keys and values begin, their row strides, and the bias."""
    dim = bias.numel() // 3
    keys, first = (q, 1) if kv is None else (kv, 0)
    k = keys.data_ptr() + 2 * dim * first
    places = (q.data_ptr(), k, k + 2 * dim, q.shape[1], keys.shape[1], bias)
    sizes = (batch, heads, q.shape[0] // batch, keys.shape[0] // batch, dim // heads)
    return sizes, places


def _scratch(shape: tuple) -> int:
    """Return the fp32 numbers a thread needs: see `_places`."""
    _, _, _, n, d = shape
    padded = -(-n // 16) * 16
    return 6 * padded * d + 3 * _QUERIES * d + 2 * _QUERIES * padded + padded


@inlined
@no_type_check
def _places(base, n, d):
    """Return where a thread keeps K, V, their transposes, dK, dV; Q, dO, O; P, dP; the padding."""
    padded = (n + 15) // 16 * 16
    keys, queries = 4 * padded * d, 4 * _QUERIES * d
    k = base
    q = base + 6 * keys
    p = q + 3 * queries
    pad = p + 8 * _QUERIES * padded
    return padded, k, k + keys, k + 2 * keys, k + 3 * keys, k + 4 * keys, k + 5 * keys, q, pad


@inlined
@no_type_check
def _take(target, source, stride, bias, rows, d, by):
    """Copy rows of one head to fp32, bias added, times a factor."""
    factor = spread(by)
    for i in range(rows):
        for c in range(0, d, 16):
            value = load_half(source + 2 * (i * stride + c)) + load(bias + 4 * c)
            store(target + 4 * (i * d + c), value * factor)


@inlined
@no_type_check
def _put(target, source, stride, sums, rows, d, by):
    """Copy rows of one head back, times a factor; add them to a sum."""
    factor = spread(by)
    for i in range(rows):
        for c in range(0, d, 16):
            value = rounded(load(source + 4 * (i * d + c)) * factor)
            store_half(target + 2 * (i * stride + c), value)
            store(sums + 4 * c, load(sums + 4 * c) + value)


@inlined
@no_type_check
def _transpose(target, source, padded, d):
    for j in range(0, padded, 16):
        for c in range(0, d, 16):
            turn(source + 4 * (j * d + c), d, target + 4 * (c * padded + j), padded)


@inlined
@no_type_check
def _softmax(p, pad, rows, padded):
    """Turn rows of scores into weights; padding is far below every score."""
    for i in range(rows):
        row = p + 4 * i * padded
        most = np.float32(-3e38)
        for j in range(0, padded, 16):
            most = max(most, largest(load(row + 4 * j) + load(pad + 4 * j)))
        top, weight = spread(most), spread(np.float32(0))
        for j in range(0, padded, 16):
            e = exponential(load(row + 4 * j) + load(pad + 4 * j) - top)
            store(row + 4 * j, e)
            weight = weight + e
        by = spread(np.float32(1) / total(weight))
        for j in range(0, padded, 16):
            store(row + 4 * j, load(row + 4 * j) * by)


@inlined
@no_type_check
def _mark_padding(pad, n, padded):
    for j in range(0, padded, 16):
        store(pad + 4 * j, spread(np.float32(0)))
    for j in range(n, padded):
        single(pad + 4 * j)[0] = np.float32(-1e30)


@Loop
@no_type_check
def _forward(data):
    words, _, part, parts = arguments(data)
    q, k, v, q_row, kv_row, bias = words[0], words[1], words[2], words[3], words[4], words[5]
    batch, heads, m, n, d = words[6], words[7], words[8], words[9], words[10]
    base, out = words[11] + 4 * words[12] * part, words[13]
    dim = heads * d
    scale = np.float32(1) / np.sqrt(np.float32(d))
    padded, keys, values, turned, _, _, _, queries, pad = _places(base, n, d)
    mixed, p = queries + 8 * _QUERIES * d, queries + 12 * _QUERIES * d
    _mark_padding(pad, n, padded)
    items = batch * heads
    for item in range(items * part // parts, items * (part + 1) // parts):
        b, h = item // heads, item % heads
        own = bias + 4 * h * d
        _take(keys, k + 2 * (b * n * kv_row + h * d), kv_row, own + 4 * dim, n, d, np.float32(1))
        _take(values, v + 2 * (b * n * kv_row + h * d), kv_row, own + 8 * dim, n, d, np.float32(1))
        _transpose(turned, keys, padded, d)
        for i in range(0, m, _QUERIES):
            rows = min(m - i, _QUERIES)
            _take(queries, q + 2 * ((b * m + i) * q_row + h * d), q_row, own, rows, d, scale)
            product(p, padded, queries, d, 1, turned, padded, rows, padded, d, False)
            _softmax(p, pad, rows, padded)
            product(mixed, d, p, padded, 1, values, d, rows, d, n, False)
            for r in range(rows):
                for c in range(0, d, 16):
                    to = out + 2 * ((b * m + i + r) * dim + h * d + c)
                    store_half(to, load(mixed + 4 * (r * d + c)))


@Loop
@no_type_check
def _backward(data):
    words, _, part, parts = arguments(data)
    q, k, v, q_row, kv_row, bias = words[0], words[1], words[2], words[3], words[4], words[5]
    batch, heads, m, n, d = words[6], words[7], words[8], words[9], words[10]
    base, grad = words[11] + 4 * words[12] * part, words[13]
    of_q, of_k, of_v = words[14], words[15], words[16]
    dim = heads * d
    sums = words[17] + 12 * dim * part
    scale, one = np.float32(1) / np.sqrt(np.float32(d)), np.float32(1)
    padded, keys, values, k_turned, v_turned, dk, dv, queries, pad = _places(base, n, d)
    do, dq = queries + 4 * _QUERIES * d, queries + 8 * _QUERIES * d
    p = queries + 12 * _QUERIES * d
    dp = p + 4 * _QUERIES * padded
    _mark_padding(pad, n, padded)
    items = batch * heads
    for item in range(items * part // parts, items * (part + 1) // parts):
        b, h = item // heads, item % heads
        own, total_of = bias + 4 * h * d, sums + 4 * h * d
        at = 2 * (b * n * kv_row + h * d)
        _take(keys, k + at, kv_row, own + 4 * dim, n, d, one)
        _take(values, v + at, kv_row, own + 8 * dim, n, d, one)
        _transpose(k_turned, keys, padded, d)
        _transpose(v_turned, values, padded, d)
        for i in range(0, m, _QUERIES):
            rows = min(m - i, _QUERIES)
            _take(queries, q + 2 * ((b * m + i) * q_row + h * d), q_row, own, rows, d, scale)
            for r in range(rows):
                for c in range(0, d, 16):
                    from_ = grad + 2 * ((b * m + i + r) * dim + h * d + c)
                    store(do + 4 * (r * d + c), load_half(from_))
            product(p, padded, queries, d, 1, k_turned, padded, rows, padded, d, False)
            _softmax(p, pad, rows, padded)
            product(dp, padded, do, d, 1, v_turned, padded, rows, padded, d, False)
            product(dv, d, p, 1, padded, do, d, n, d, rows, i > 0)
            for r in range(rows):
                row, drow = p + 4 * r * padded, dp + 4 * r * padded
                along = spread(np.float32(0))
                for j in range(0, padded, 16):
                    along = along + load(row + 4 * j) * load(drow + 4 * j)
                mean = spread(total(along))
                for j in range(0, padded, 16):
                    store(drow + 4 * j, load(row + 4 * j) * (load(drow + 4 * j) - mean))
            product(dq, d, dp, padded, 1, keys, d, rows, d, n, False)
            product(dk, d, dp, 1, padded, queries, d, n, d, rows, i > 0)
            _put(of_q + 2 * ((b * m + i) * q_row + h * d), dq, q_row, total_of, rows, d, scale)
        _put(of_k + at, dk, kv_row, total_of + 4 * dim, n, d, one)
        _put(of_v + at, dv, kv_row, total_of + 8 * dim, n, d, one)
