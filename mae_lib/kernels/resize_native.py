"""A square of RGB made smaller or larger with the bits of torch's antialiased uint8 bicubic.

torch computes in integers: float64 weights (Keys's cubic, a = -1/2, as Pillow's) scaled to int16,
int32 sums, first along rows, then along columns, uint8 between. So does this, on 16 sums at a time,
out of an image of any row stride, which torch would first have to copy.

Along a row, step after step takes a window of 64 bytes and gives each sum two of its taps. Two rows
that follow one another are kept as the halves of one word, which is what columns are summed by.
Imported only where numba is installed; `fits` says what it can do on this processor.
"""

import functools
from dataclasses import dataclass
from typing import no_type_check  # a type checker's wrapper is not what numba compiles

import llvmlite.binding
import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, models, register_model

from mae_lib.kernels import native_code  # noqa: F401  it says where compiled code is kept

SUMS, WINDOW, ROWS = 16, 64, 4
# Three bytes of so many pixels fill a window, and four vectors of sums.
LEAST = 22
LEAST_PRECISION, MOST_PRECISION = 0, 22
_I8, _I16, _I32, _I64 = map(ir.IntType, (8, 16, 32, 64))
_BYTES, _HALVES, _WORDS = (ir.VectorType(t, n) for t, n in ((_I8, 64), (_I16, 32), (_I32, SUMS)))


@functools.cache
def supported() -> bool:
    """Say whether this processor can pick 64 bytes in any order at once (AVX-512 VBMI)."""
    return bool(llvmlite.binding.get_host_cpu_features().get("avx512vbmi"))


def fits(image: np.ndarray, size: int) -> bool:
    """Say whether `resize` takes uint8 `[n, n, 3]` to this size here, with torch's bits."""
    length = image.shape[0]
    return (
        supported()
        and image.shape == (length, length, 3)
        and image.strides[1:] == (3, 1)
        and min(length, size) >= LEAST
        and length != size
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

    `arrays` are, for rows: of each step which bytes and weights (128 bytes), its window, and the
    first step of each 16 sums; for columns: the first pair of rows of each output row, and its
    weights in pairs. `kept` is how many pairs of rows are held at once.
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
def plan_of(length: int, size: int) -> Plan:
    """Return the plan for a length and a size."""
    first, count, weights, precision = weights_of(length, size)
    chunks = -(-3 * size // SUMS)
    bounds = np.zeros(chunks + 1, np.int64)
    nothing = np.empty(0, np.uint8)
    _steps(first, count, weights, 3 * length, bounds, np.empty(0, np.int64), nothing)
    steps = int(bounds[-1])
    windows, table = np.zeros(steps, np.int64), _aligned(steps * 2 * WINDOW)
    table[:] = 0
    _steps(first, count, weights, 3 * length, bounds, windows, table)
    pairs = int(((first + count - 1) // 2 - first // 2).max()) + 1
    columns = np.zeros((size, 2 * pairs), np.int16)
    at = np.arange(weights.shape[1]) + (first % 2)[:, None]
    rows, taps = np.nonzero(np.arange(weights.shape[1]) < count[:, None])
    columns[rows, at[rows, taps]] = weights[rows, taps]
    arrays = (table, windows, bounds, first // 2, columns)
    # A group of rows more than the columns look at may have been made.
    kept = pairs + ROWS
    return Plan(precision, pairs, kept, arrays, tuple(array.ctypes.data for array in arrays))


@functools.lru_cache(maxsize=4096)
def _proved(length: int, size: int) -> bool:
    """Try a length once against torch itself, whose code for this processor may be another."""
    image = np.random.default_rng(length).integers(0, 256, (length, length, 3), np.uint8)
    image[: length // 2] = np.where(image[: length // 2] < 128, 0, 255)  # sums out of range
    ours, theirs = (np.empty((size, size, 3), np.uint8) for _ in range(2))
    resize(image, size, ours)
    planes, into = (torch.from_numpy(a)[None].permute(0, 3, 1, 2) for a in (image, theirs))
    torch.ops.aten._upsample_bicubic2d_aa.out(planes, [size, size], False, None, None, out=into)
    return np.array_equal(ours, theirs)


def _aligned(size: int) -> np.ndarray:
    """Return bytes that begin where a line of the processor's cache does."""
    memory = np.empty(size + WINDOW, np.uint8)
    start = -memory.ctypes.data % WINDOW
    return memory[start : start + size]


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


def _add_products(builder, total, pixels, weights):
    """Add the two products of each word's halves to its sum."""
    pixels, weights = (builder.bitcast(v, _HALVES) for v in (pixels, weights))
    products = _call(builder, "llvm.x86.avx512.pmaddw.d.512", _WORDS, pixels, weights)
    return builder.add(total, products)


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
def _add_taps(_, total, window, order, weights):
    """Add two taps to each sum: the bytes that `order` picks out of a window, times weights."""

    def generate(context, builder, signature, values):
        total, window, order, weights = values
        pixels = builder.load(_at(builder, window, _BYTES), align=1)
        order = builder.bitcast(order, _BYTES)
        name = "llvm.x86.avx512.permvar.qi.512"
        picked = _call(builder, name, _BYTES, pixels, order)
        even = ir.Constant(ir.VectorType(ir.IntType(1), 64), [1, 0] * 32)
        picked = builder.select(even, picked, _same(_BYTES, 0))
        return _add_products(builder, total, picked, weights)

    return _words(_words, types.int64, _words, _words), generate


@intrinsic
@no_type_check
def _add_pair(_, total, address, weights):
    """Add to each sum the pair of pixels at an address, times weights."""

    def generate(context, builder, signature, values):
        total, address, weights = values
        pixels = builder.load(_at(builder, address, _WORDS), align=4)
        return _add_products(builder, total, pixels, weights)

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
            _call(builder, "llvm.x86.avx512.packssdw.512", _HALVES, *two) for two in ((a, b), (c, d))
        )
        packed = _call(builder, "llvm.x86.avx512.packuswb.512", _BYTES, ab, cd)
        # Both packed within lanes of 128 bits: word 4 i + j is now where j of 4 were in vector i.
        order = ir.Constant(_WORDS, [4 * (i % 4) + i // 4 for i in range(SUMS)])
        packed = builder.bitcast(packed, _WORDS)
        packed = builder.shuffle_vector(packed, packed, order)
        builder.store(packed, _at(builder, address, _WORDS), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, *(_words,) * 5), generate


@njit("void(int64[::1], int64[::1], int16[:, ::1], int64, int64[::1], int64[::1], uint8[::1])",
      nogil=True, cache=True)  # fmt: skip
@no_type_check
def _steps(first, count, weights, row_bytes, bounds, windows, table):
    """Lay out the steps along a row; with empty `windows` and `table` only count them."""
    done = np.empty(16, np.int64)
    size, halves = len(first), table.view(np.int16)
    step = 0
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
                for half in range(2):
                    place = 3 * (first[x] + done[lane]) + colour - window
                    if done[lane] < count[x] and place < 64:
                        if len(windows) > 0:
                            table[128 * step + 4 * lane + 2 * half] = place
                            halves[64 * step + 32 + 2 * lane + half] = weights[x, done[lane]]
                        done[lane] += 1
            if len(windows) > 0:
                windows[step] = window
            step += 1
        bounds[chunk + 1] = step


@njit(types.void(*(types.int64,) * 14), nogil=True, cache=True)
@no_type_check
def _resize(image, stride, out, length, size, precision,
            table, windows, bounds, first_pairs, columns, pairs, kept, room):  # fmt: skip
    """Make rows in pairs as they are wanted, kept in a ring of `room` pairs, and sum columns."""
    width = 3 * size
    shift, half = _spread_word(precision), _spread_word(1 << (precision - 1))
    made = 0
    for y in range(size):
        pair = _read(first_pairs + 8 * y)
        # Pairs past the last row have no weight, but are read.
        while made < pair + pairs:
            row = 2 * made
            r0 = image + stride * min(row, length - 1)
            r1 = image + stride * min(row + 1, length - 1)
            r2 = image + stride * min(row + 2, length - 1)
            r3 = image + stride * min(row + 3, length - 1)
            into = kept + 4 * width * (made % room)
            into_next = kept + 4 * width * ((made + 1) % room)
            step = 0
            for chunk in range(-(-width // 16)):
                a, b, c, d = half, half, half, half
                end = _read(bounds + 8 * (chunk + 1))
                while step < end:
                    order, weights = _load(table + 128 * step), _load(table + 128 * step + 64)
                    window = _read(windows + 8 * step)
                    a = _add_taps(a, r0 + window, order, weights)
                    b = _add_taps(b, r1 + window, order, weights)
                    c = _add_taps(c, r2 + window, order, weights)
                    d = _add_taps(d, r3 + window, order, weights)
                    step += 1
                column = 4 * min(16 * chunk, width - 16)
                _store_pair(into + column, a, b, shift)
                _store_pair(into_next + column, c, d, shift)
            made += 2
        for chunk in range(-(-width // 64)):
            column = min(64 * chunk, width - 64)
            a, b, c, d = half, half, half, half
            for i in range(pairs):
                weights = _spread_at(columns + 4 * (pairs * y + i))
                at = kept + 4 * (width * ((pair + i) % room) + column)
                a = _add_pair(a, at, weights)
                b = _add_pair(b, at + 64, weights)
                c = _add_pair(c, at + 128, weights)
                d = _add_pair(d, at + 192, weights)
            _store_bytes(out + width * y + column, a, b, c, d, shift)
