"""A square of RGB made smaller or larger with the bits of torch's antialiased uint8 bicubic.

torch computes in integers: float64 weights (Keys's cubic, a = -1/2, as Pillow's) scaled to int16,
int32 sums, first along rows, then along columns, uint8 between. So does this, on 16 sums at a time,
out of an image of any row stride, which torch would first have to copy.

Along a row, step after step takes a window of 64 bytes and gives each of 16 sums four of its taps,
bytes times the lower and upper bytes of weights. Two rows that follow one another are kept as the
halves of one word, which is what columns are summed by.
`fits` says what it can do on this processor. Importing it where loops cannot be compiled is an
ImportError, which a fork server takes as a module less to load.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import no_type_check  # a type checker's wrapper is not what numba compiles

import numpy as np
import torch

from mae_lib.kernels import native

if not native.available():
    raise ImportError("loops cannot be compiled here")

import llvmlite.binding
from numba import njit, types

from mae_lib.kernels.native_bytes import (
    SUMS,
    add_pair,
    add_taps,
    load,
    pick,
    read,
    spread_at,
    spread_word,
    store_bytes,
    store_pair,
    whole,
)

WINDOW = 64
# Three bytes of so many pixels fill a window, and four vectors of sums.
LEAST = 22
MOST_PRECISION = 22
# The most that two signed bytes say: 256 times the upper one, and the lower one.
MOST_WEIGHT = 256 * 127 + 127


@functools.cache
def supported() -> bool:
    """Say whether this processor picks 64 bytes in any order, and adds products of bytes, at once.

    Those of servers do since 2019 (Intel's Ice Lake) and 2022 (AMD's Zen 4).
    """
    features = llvmlite.binding.get_host_cpu_features()
    return all(features.get(name) for name in ("avx512bw", "avx512vbmi", "avx512vnni"))


def fits(image: np.ndarray, size: int) -> bool:
    """Say whether `resize` takes uint8 `[n, n, 3]` to this size here, with torch's bits."""
    length = image.shape[0]
    return (
        supported()
        and image.shape == (length, length, 3)
        and image.strides[1:] == (3, 1)
        and min(length, size) >= LEAST
        and length != size
        and plan_of(length, size) is not None
        and _proved(length, size)
    )


def resize(image: np.ndarray, size: int, out: np.ndarray) -> None:
    """Write uint8 `[n, n, 3]`, rows any number of bytes apart, as `[size, size, 3]` into `out`.

    `out` is contiguous; the image fits, see above.
    """
    length = image.shape[0]
    plan = plan_of(length, size)
    kept = _aligned(plan.kept * 12 * size)
    _resize(
        image.ctypes.data, image.strides[0], out.ctypes.data, length, size, plan.precision,
        plan.addresses[0], plan.addresses[1], plan.addresses[2], plan.addresses[3],
        plan.addresses[4], plan.pairs, kept.ctypes.data, plan.kept,
    )  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What resizing `length` to `size` needs besides the image: weights and where they apply.

    `arrays` are, for rows: of each step which bytes, and weights' lower and upper bytes (64 each),
    its window, and the first step of each 16 sums; for columns: the first pair of rows of each
    output row and how many, and its weights in pairs. `kept`, a power of two, is how many pairs are
    held at once.
    """

    precision: int
    pairs: int
    kept: int
    arrays: tuple[np.ndarray, ...]
    addresses: tuple[int, ...]


def weights_of(length: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return of each output its first tap, how many, and its int16 weights; then their precision.

    As torch has them (ATen/native/cpu/UpSampleKernel.cpp, after Pillow's Resample.c): the sums of
    weights are taken in the order of taps, since the last bit of a float64 decides some roundings.
    """
    scale = length / size
    stretch = max(scale, 1.0)
    support = 2.0 * stretch
    most = int(np.ceil(support)) * 2 + 1
    centre = scale * (np.arange(size) + 0.5)
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    end = np.minimum((centre + support + 0.5).astype(np.int64), length)
    count = np.clip(end - first, 0, most)
    inverse = 1.0 / scale if scale >= 1.0 else 1.0
    taps = np.arange(most)
    x = np.abs(((taps + first[:, None]) - centre[:, None] + 0.5) * inverse)
    near = ((-0.5 + 2.0) * x - (-0.5 + 3.0)) * x * x + 1.0
    far = ((-0.5 * x - 5.0 * -0.5) * x + 8.0 * -0.5) * x - 4.0 * -0.5
    real = np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
    real[taps >= count[:, None]] = 0.0
    total = np.zeros(size)
    for tap in taps:
        total += real[:, tap]
    real /= np.where(total == 0.0, 1.0, total)[:, None]
    precision, greatest = 0, max(0.0, float(real.max()))
    while precision < MOST_PRECISION and int(0.5 + greatest * 2 ** (precision + 1)) < 2**15:
        precision += 1
    scaled = np.trunc(np.where(real < 0, -0.5, 0.5) + real * 2**precision)
    return first, count, scaled.astype(np.int16), precision


@functools.lru_cache(maxsize=128)
def plan_of(length: int, size: int) -> Plan | None:
    """Return the plan for a length and a size, None for the few whose weights are too great."""
    first, count, weights, precision = weights_of(length, size)
    if weights.max() > MOST_WEIGHT:
        return None
    chunks = -(-3 * size // SUMS)
    bounds = np.zeros(chunks + 1, np.int64)
    nothing = np.empty(0, np.uint8)
    _steps(first, count, weights, 3 * length, bounds, np.empty(0, np.int64), nothing)
    steps = int(bounds[-1])
    windows, table = np.zeros(steps, np.int64), _aligned(steps * 3 * WINDOW)
    table[:] = 0
    _steps(first, count, weights, 3 * length, bounds, windows, table)
    looked_at = (first + count - 1) // 2 - first // 2 + 1
    pairs = int(looked_at.max())
    columns = np.zeros((size, 2 * pairs), np.int16)
    at = np.arange(weights.shape[1]) + (first % 2)[:, None]
    rows, taps = np.nonzero(np.arange(weights.shape[1]) < count[:, None])
    columns[rows, at[rows, taps]] = weights[rows, taps]
    arrays = (table, windows, bounds, np.stack([first // 2, looked_at], axis=1), columns)
    # A group of rows more than the columns look at may have been made.
    kept = 2 ** int(np.ceil(np.log2(pairs + 2)))
    return Plan(precision, pairs, kept, arrays, tuple(array.ctypes.data for array in arrays))


@functools.lru_cache(maxsize=4096)
def _proved(length: int, size: int) -> bool:
    """Try a length once against torch itself, whose code for this processor may be another.

    That and the plan take as long as two or three images win.
    """
    image = np.resize(_noise(), (length, length, 3))
    ours, theirs = (np.empty((size, size, 3), np.uint8) for _ in range(2))
    resize(image, size, ours)
    planes, into = (torch.from_numpy(a)[None].permute(0, 3, 1, 2) for a in (image, theirs))
    torch.ops.aten._upsample_bicubic2d_aa.out(planes, [size, size], False, None, None, out=into)
    return np.array_equal(ours, theirs)


@functools.cache
def _noise() -> np.ndarray:
    """Return bytes of noise, then such of 0 and 255 alone, whose sums leave the range of a byte."""
    noise = np.random.default_rng(0).integers(0, 256, 19_997, np.uint8)
    noise[10_000:] = np.where(noise[10_000:] < 128, 0, 255)
    return noise


def _aligned(size: int) -> np.ndarray:
    """Return bytes that begin where a line of the processor's cache does."""
    memory = np.empty(size + WINDOW, np.uint8)
    start = -memory.ctypes.data % WINDOW
    return memory[start : start + size]


def _compiled(signature) -> Callable:
    """Compile a function now, where this processor has its instructions."""

    def compiled(body: Callable) -> Callable:
        if not supported():
            return body
        return njit(signature, nogil=True)(body)

    return compiled


@_compiled("void(int64[::1], int64[::1], int16[:, ::1], int64, int64[::1], int64[::1], uint8[::1])")
@no_type_check
def _steps(first, count, weights, row_bytes, bounds, windows, table):
    """Lay out the steps along a row; with empty `windows` and `table` only count them."""
    done = np.empty(16, np.int64)
    size, step = len(first), 0
    for chunk in range(len(bounds) - 1):
        column = min(16 * chunk, 3 * size - 16)
        done[:] = 0
        while True:
            # The window begins at the first byte that is wanted, and lies within the row.
            window = row_bytes
            for lane in range(16):
                x, colour = (column + lane) // 3, (column + lane) % 3
                if done[lane] < count[x]:
                    window = min(window, 3 * (first[x] + done[lane]) + colour)
            if window == row_bytes:
                break
            window = min(window, row_bytes - 64)
            for lane in range(16):
                x, colour = (column + lane) // 3, (column + lane) % 3
                for at in range(192 * step + 4 * lane, 192 * step + 4 * lane + 4):
                    place = 3 * (first[x] + done[lane]) + colour - window
                    if done[lane] < count[x] and place < 64:
                        if len(windows) > 0:
                            weight = np.int64(weights[x, done[lane]])
                            table[at] = place
                            table[at + 64] = weight & 255
                            table[at + 128] = ((weight + 128) >> 8) & 255
                        done[lane] += 1
            if len(windows) > 0:
                windows[step] = window
            step += 1
        bounds[chunk + 1] = step


@_compiled(types.void(*(types.int64,) * 14))
@no_type_check
def _resize(image, stride, out, length, size, precision,
            table, windows, bounds, looked_at, columns, pairs, kept, room):  # fmt: skip
    """Make rows in pairs as they are wanted, kept in a ring of `room` pairs, and sum columns."""
    width = 3 * size
    shift, half = spread_word(precision), spread_word(1 << (precision - 1))
    zero, made = spread_word(0), 0
    for y in range(size):
        pair, count = read(looked_at + 16 * y), read(looked_at + 16 * y + 8)
        # Rows past the last one have no weight; it stands in for them.
        while made < pair + count:
            row = 2 * made
            r0 = image + stride * min(row, length - 1)
            r1 = image + stride * min(row + 1, length - 1)
            r2 = image + stride * min(row + 2, length - 1)
            r3 = image + stride * min(row + 3, length - 1)
            into = kept + 4 * width * (made & (room - 1))
            into_next = kept + 4 * width * ((made + 1) & (room - 1))
            step = 0
            for chunk in range(-(-width // 16)):
                a, b, c, d = half, half, half, half
                a2, b2, c2, d2 = zero, zero, zero, zero
                end = read(bounds + 8 * (chunk + 1))
                while step < end:
                    at, window = table + 192 * step, read(windows + 8 * step)
                    order, lower, upper = load(at), load(at + 64), load(at + 128)
                    pixels = pick(r0 + window, order)
                    a, a2 = add_taps(a, pixels, lower), add_taps(a2, pixels, upper)
                    pixels = pick(r1 + window, order)
                    b, b2 = add_taps(b, pixels, lower), add_taps(b2, pixels, upper)
                    pixels = pick(r2 + window, order)
                    c, c2 = add_taps(c, pixels, lower), add_taps(c2, pixels, upper)
                    pixels = pick(r3 + window, order)
                    d, d2 = add_taps(d, pixels, lower), add_taps(d2, pixels, upper)
                    step += 1
                column = 4 * min(16 * chunk, width - 16)
                store_pair(into + column, whole(a, a2), whole(b, b2), shift)
                store_pair(into_next + column, whole(c, c2), whole(d, d2), shift)
            made += 2
        for chunk in range(-(-width // 64)):
            column = min(64 * chunk, width - 64)
            a, b, c, d = half, half, half, half
            for i in range(count):
                weights = spread_at(columns + 4 * (pairs * y + i))
                at = kept + 4 * (width * ((pair + i) & (room - 1)) + column)
                a = add_pair(a, at, weights)
                b = add_pair(b, at + 64, weights)
                c = add_pair(c, at + 128, weights)
                d = add_pair(d, at + 192, weights)
            store_bytes(out + width * y + column, a, b, c, d, shift)
