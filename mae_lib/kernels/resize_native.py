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
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, models, register_model

from mae_lib.kernels import native_code  # noqa: F401  it says where compiled code is kept

SUMS, WINDOW = 16, 64
# Three bytes of so many pixels fill a window, and four vectors of sums.
LEAST = 22
MOST_PRECISION = 22
# The most that two signed bytes say: 256 times the upper one, and the lower one.
MOST_WEIGHT = 256 * 127 + 127
_I8, _I16, _I32, _I64 = map(ir.IntType, (8, 16, 32, 64))
_BYTES, _HALVES, _WORDS = (ir.VectorType(t, n) for t, n in ((_I8, 64), (_I16, 32), (_I32, SUMS)))


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
    output row, and its weights in pairs. `kept`, a power of two, is how many pairs are held at once.
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
    pairs = int(((first + count - 1) // 2 - first // 2).max()) + 1
    columns = np.zeros((size, 2 * pairs), np.int16)
    at = np.arange(weights.shape[1]) + (first % 2)[:, None]
    rows, taps = np.nonzero(np.arange(weights.shape[1]) < count[:, None])
    columns[rows, at[rows, taps]] = weights[rows, taps]
    arrays = (table, windows, bounds, first // 2, columns)
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
        try:
            return njit(signature, nogil=True, cache=True)(body)
        except RuntimeError:  # there is no folder to keep it in
            return njit(signature, nogil=True)(body)

    return compiled


class _Words(types.Type):
    def __init__(self):
        super().__init__(name="words")


_words = _Words()


@register_model(_Words)
class _WordsModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, _WORDS)


def _at(builder, address, kind):
    return builder.inttoptr(address, kind.as_pointer())


def _call(builder, name, result, *values):
    kind = ir.FunctionType(result, [value.type for value in values])
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(function, values)


def _spread(builder, word):
    one = builder.insert_element(ir.Constant(_WORDS, ir.Undefined), word, ir.Constant(_I32, 0))
    return builder.shuffle_vector(one, one, ir.Constant(_WORDS, [0] * SUMS))


def _same(kind, value):
    return ir.Constant(kind, [value] * kind.count)


@intrinsic
@no_type_check
def _spread_word(_, word):
    """Return an integer in every word."""

    def generate(context, builder, signature, values):
        return _spread(builder, builder.trunc(values[0], _I32))

    return _words(types.int64), generate


@intrinsic
@no_type_check
def _load(_, address):
    """Return 16 words at an address."""

    def generate(context, builder, signature, values):
        return builder.load(_at(builder, values[0], _WORDS), align=4)

    return _words(types.int64), generate


@intrinsic
@no_type_check
def _spread_at(_, address):
    """Return the word at an address in every word."""

    def generate(context, builder, signature, values):
        return _spread(builder, builder.load(_at(builder, values[0], _I32), align=4))

    return _words(types.int64), generate


@intrinsic
@no_type_check
def _read(_, address):
    """Return the int64 at an address."""

    def generate(context, builder, signature, values):
        return builder.load(_at(builder, values[0], _I64), align=8)

    return types.int64(types.int64), generate


@intrinsic
@no_type_check
def _pick(_, window, order):
    """Return the bytes that `order` names of the 64 at an address."""

    def generate(context, builder, signature, values):
        pixels = builder.load(_at(builder, values[0], _BYTES), align=1)
        order = builder.bitcast(values[1], _BYTES)
        picked = _call(builder, "llvm.x86.avx512.permvar.qi.512", _BYTES, pixels, order)
        return builder.bitcast(picked, _WORDS)

    return _words(types.int64, _words), generate


@intrinsic
@no_type_check
def _add_taps(_, total, pixels, weights):
    """Add to each sum four products of an unsigned and a signed byte."""

    def generate(context, builder, signature, values):
        return _call(builder, "llvm.x86.avx512.vpdpbusd.512", _WORDS, *values)

    return _words(_words, _words, _words), generate


@intrinsic
@no_type_check
def _whole(_, lower, upper):
    """Return lower + 256 upper."""

    def generate(context, builder, signature, values):
        return builder.add(values[0], builder.shl(values[1], _same(_WORDS, 8)))

    return _words(_words, _words), generate


@intrinsic
@no_type_check
def _add_pair(_, total, address, weights):
    """Add to each sum the pair of pixels at an address, times weights."""

    def generate(context, builder, signature, values):
        total, address, weights = values
        pixels = builder.load(_at(builder, address, _HALVES), align=4)
        weights = builder.bitcast(weights, _HALVES)
        name = "llvm.x86.avx512.pmaddw.d.512"
        return builder.add(total, _call(builder, name, _WORDS, pixels, weights))

    return _words(_words, types.int64, _words), generate


@intrinsic
@no_type_check
def _store_pair(_, address, one, two, precision):
    """Write the pixels of two rows as the halves of words."""

    def generate(context, builder, signature, values):
        address, one, two, precision = values
        one, two = builder.ashr(one, precision), builder.ashr(two, precision)
        lower = builder.and_(one, _same(_WORDS, 0xFFFF))
        upper = builder.shl(two, _same(_WORDS, 16))
        halves = builder.bitcast(builder.or_(lower, upper), _HALVES)
        for sign, bound in (("<", 0), (">", 255)):
            bound = _same(_HALVES, bound)
            halves = builder.select(builder.icmp_signed(sign, halves, bound), bound, halves)
        builder.store(builder.bitcast(halves, _WORDS), _at(builder, address, _WORDS), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, _words, _words, _words), generate


@intrinsic
@no_type_check
def _store_bytes(_, address, a, b, c, d, precision):
    """Write the pixels of 64 sums that follow one another."""

    def generate(context, builder, signature, values):
        address, *sums, precision = values
        a, b, c, d = (builder.ashr(total, precision) for total in sums)
        ab, cd = (
            _call(builder, "llvm.x86.avx512.packssdw.512", _HALVES, *two)
            for two in ((a, b), (c, d))
        )
        packed = _call(builder, "llvm.x86.avx512.packuswb.512", _BYTES, ab, cd)
        # Both packed within lanes of 128 bits: word 4 i + j is now where j of 4 were in vector i.
        order = ir.Constant(_WORDS, [4 * (i % 4) + i // 4 for i in range(SUMS)])
        packed = builder.bitcast(packed, _WORDS)
        packed = builder.shuffle_vector(packed, packed, order)
        builder.store(packed, _at(builder, address, _WORDS), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, *(_words,) * 5), generate


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
            table, windows, bounds, first_pairs, columns, pairs, kept, room):  # fmt: skip
    """Make rows in pairs as they are wanted, kept in a ring of `room` pairs, and sum columns."""
    width = 3 * size
    shift, half = _spread_word(precision), _spread_word(1 << (precision - 1))
    zero, made = _spread_word(0), 0
    for y in range(size):
        pair = _read(first_pairs + 8 * y)
        # Pairs past the last row have no weight, but are read.
        while made < pair + pairs:
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
                end = _read(bounds + 8 * (chunk + 1))
                while step < end:
                    at, window = table + 192 * step, _read(windows + 8 * step)
                    order, lower, upper = _load(at), _load(at + 64), _load(at + 128)
                    pixels = _pick(r0 + window, order)
                    a, a2 = _add_taps(a, pixels, lower), _add_taps(a2, pixels, upper)
                    pixels = _pick(r1 + window, order)
                    b, b2 = _add_taps(b, pixels, lower), _add_taps(b2, pixels, upper)
                    pixels = _pick(r2 + window, order)
                    c, c2 = _add_taps(c, pixels, lower), _add_taps(c2, pixels, upper)
                    pixels = _pick(r3 + window, order)
                    d, d2 = _add_taps(d, pixels, lower), _add_taps(d2, pixels, upper)
                    step += 1
                column = 4 * min(16 * chunk, width - 16)
                _store_pair(into + column, _whole(a, a2), _whole(b, b2), shift)
                _store_pair(into_next + column, _whole(c, c2), _whole(d, d2), shift)
            made += 2
        for chunk in range(-(-width // 64)):
            column = min(64 * chunk, width - 64)
            a, b, c, d = half, half, half, half
            for i in range(pairs):
                weights = _spread_at(columns + 4 * (pairs * y + i))
                at = kept + 4 * (width * ((pair + i) & (room - 1)) + column)
                a = _add_pair(a, at, weights)
                b = _add_pair(b, at + 64, weights)
                c = _add_pair(c, at + 128, weights)
                d = _add_pair(d, at + 192, weights)
            _store_bytes(out + width * y + column, a, b, c, d, shift)
