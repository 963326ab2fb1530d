"""LayerNorm on the residual stream: a branch and its bias are added on the way, gradients summed.

The stream and what is normed are bfloat16; every sum is fp32. Widths are multiples of 16.
"""

from typing import no_type_check  # a type checker's wrapper is not what numba compiles

import numpy as np
import torch
from torch import Tensor

from mae_lib.kernels.native import parts
from mae_lib.kernels.native_code import Loop, arguments, single
from mae_lib.kernels.native_lanes import (
    load,
    load_half,
    rounded,
    spread,
    store,
    store_half,
    total,
)


def add_norm(
    x: Tensor, branch: Tensor | None, bias: Tensor | None, weight: Tensor, shift: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the stream x + (branch + bias), its norm, and mean and 1/SD of each row.

    `x`, `branch` are bfloat16 `[rows, D]`; `bias`, `weight`, `shift` fp32 `[D]`; the last result is
    fp32 `[rows, 2]`. Without a branch the stream is `x` itself.
    """
    rows, dim = x.shape
    normed, moments = torch.empty_like(x), torch.empty(rows, 2)
    stream = x if branch is None else torch.empty_like(x)
    more, added = (0, 0) if branch is None else (branch, bias)
    _norm_rows(normed, moments, x, weight, shift, rows, dim, eps, stream, more, added)
    return stream, normed, moments


def norm_backward(
    grad: Tensor, stream: Tensor, moments: Tensor, weight: Tensor, beside: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of the stream, of weight and shift, and the first one's sum over rows.

    `beside` is the gradient that reaches the stream past the norm. The sum is the gradient of the
    bias of a branch that was added.
    """
    rows, dim = stream.shape
    out, sums = torch.empty_like(stream), torch.zeros(parts(), 3, dim)
    past = 0 if beside is None else beside
    _norm_backward_rows(out, sums, grad, stream, moments, weight, rows, dim, past)
    of_weight, of_shift, of_bias = sums.sum(0)
    return out, of_weight, of_shift, of_bias


@Loop
@no_type_check
def _norm_rows(data):
    words, reals, part, parts = arguments(data)
    normed, moments, x, weight, shift = words[0], words[1], words[2], words[3], words[4]
    rows, dim, eps = words[5], words[6], np.float32(reals[7])
    stream, branch, bias = words[8], words[9], words[10]
    for row in range(rows * part // parts, rows * (part + 1) // parts):
        at = 2 * dim * row
        first = spread(np.float32(0))
        for c in range(0, dim, 16):
            s = load_half(x + at + 2 * c)
            if branch != 0:
                # The norm is that of the stream as it is kept, rounded.
                s = rounded(s + (load_half(branch + at + 2 * c) + load(bias + 4 * c)))
                store_half(stream + at + 2 * c, s)
            first = first + s
        mean = total(first) / np.float32(dim)
        middle, second = spread(mean), spread(np.float32(0))
        for c in range(0, dim, 16):
            s = load_half(stream + at + 2 * c) - middle
            second = second + s * s
        scale = np.float32(1) / np.sqrt(total(second) / np.float32(dim) + eps)
        by = spread(scale)
        for c in range(0, dim, 16):
            hat = (load_half(stream + at + 2 * c) - middle) * by
            store_half(normed + at + 2 * c, hat * load(weight + 4 * c) + load(shift + 4 * c))
        single(moments + 8 * row)[0] = mean
        single(moments + 8 * row + 4)[0] = scale


@Loop
@no_type_check
def _norm_backward_rows(data):
    words, _, part, parts = arguments(data)
    out, sums, grad, stream, moments = words[0], words[1], words[2], words[3], words[4]
    weight, rows, dim, beside = words[5], words[6], words[7], words[8]
    of_weight = sums + 12 * dim * part
    of_shift, of_bias = of_weight + 4 * dim, of_weight + 8 * dim
    for row in range(rows * part // parts, rows * (part + 1) // parts):
        at = 2 * dim * row
        mean = spread(single(moments + 8 * row)[0])
        scale = spread(single(moments + 8 * row + 4)[0])
        first, second = spread(np.float32(0)), spread(np.float32(0))
        for c in range(0, dim, 16):
            dy = load_half(grad + at + 2 * c)
            hat = (load_half(stream + at + 2 * c) - mean) * scale
            store(of_weight + 4 * c, load(of_weight + 4 * c) + dy * hat)
            store(of_shift + 4 * c, load(of_shift + 4 * c) + dy)
            g = dy * load(weight + 4 * c)
            first = first + g
            second = second + g * hat
        one = spread(total(first) / np.float32(dim))
        two = spread(total(second) / np.float32(dim))
        for c in range(0, dim, 16):
            hat = (load_half(stream + at + 2 * c) - mean) * scale
            g = load_half(grad + at + 2 * c) * load(weight + 4 * c)
            dx = scale * (g - one - hat * two)
            if beside != 0:
                dx = dx + load_half(beside + at + 2 * c)
            dx = rounded(dx)
            store_half(out + at + 2 * c, dx)
            store(of_bias + 4 * c, load(of_bias + 4 * c) + dx)
