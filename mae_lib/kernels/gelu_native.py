"""Bias and exact GELU of bfloat16: with 65,536 possible values it is a table, right to the last bit.

Tables are made once in float64. What is looked up falls on few lines of the cache, since most values
of an activation share a handful of exponents.
"""

import functools
from typing import no_type_check  # a type checker's wrapper is not what numba compiles

import numpy as np
import torch
from scipy.special import ndtr
from torch import Tensor

from mae_lib.kernels.native import parts
from mae_lib.kernels.native_code import Loop, arguments
from mae_lib.kernels.native_lanes import (
    load,
    load_half,
    lookup,
    rounded,
    store,
    store_half,
)

_VALUES = 1 << 16


def bias_gelu(x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return u = x + bias, which takes the place of `x`, and gelu(u).

    `x` is bfloat16 `[rows, D]`, `bias` fp32 `[D]`; D is a multiple of 16.
    """
    rows, dim = x.shape
    out = torch.empty_like(x)
    _forward(out, x, bias, tables()[0], rows, dim)
    return x, out


def bias_gelu_backward(grad: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient of u, which takes the place of `grad`, and its sum over rows in fp32."""
    rows, dim = u.shape
    sums = torch.zeros(parts(), dim)
    _backward(grad, u, sums, tables()[1], rows, dim)
    return grad, sums.sum(0)


@functools.cache
def tables() -> tuple[Tensor, Tensor]:
    """Return gelu of every bfloat16, rounded to bfloat16, and its derivative: fp32 `[65536]`."""
    words = torch.from_numpy(np.arange(_VALUES, dtype=np.uint16)).view(torch.bfloat16)
    u = words.double().numpy()
    with np.errstate(invalid="ignore", over="ignore"):
        value = np.where(u == -np.inf, -0.0, u * ndtr(u))
        density = np.exp(-0.5 * u * u) / np.sqrt(2 * np.pi)
        slope = ndtr(u) + np.where(np.isinf(u), 0.0, u) * density
    return torch.from_numpy(value).bfloat16().float(), torch.from_numpy(slope).float()


@Loop
@no_type_check
def _forward(data):
    words, _, part, parts = arguments(data)
    out, x, bias, table, rows, dim = words[0], words[1], words[2], words[3], words[4], words[5]
    for row in range(rows * part // parts, rows * (part + 1) // parts):
        for c in range(0, dim, 16):
            at = 2 * (dim * row + c)
            u = rounded(load_half(x + at) + load(bias + 4 * c))
            store_half(x + at, u)
            store_half(out + at, lookup(table, u))


@Loop
@no_type_check
def _backward(data):
    words, _, part, parts = arguments(data)
    grad, x, sums, table, rows, dim = words[0], words[1], words[2], words[3], words[4], words[5]
    own = sums + 4 * dim * part
    for row in range(rows * part // parts, rows * (part + 1) // parts):
        for c in range(0, dim, 16):
            at = 2 * (dim * row + c)
            g = rounded(load_half(grad + at) * lookup(table, load_half(x + at)))
            store_half(grad + at, g)
            store(own + 4 * c, load(own + 4 * c) + g)
