"""Sixteen int32 sums of products of bytes as one value of compiled loops, by AVX-512's instructions.

Addresses are in bytes. Imported only where numba is installed; loops of these are compiled only for
processors that have VBMI and VNNI.
"""

from typing import no_type_check  # a type checker's wrapper is not what numba compiles

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

SUMS = 16
_I8, _I16, _I32, _I64 = map(ir.IntType, (8, 16, 32, 64))
_BYTES, _HALVES, _WORDS = (ir.VectorType(t, n) for t, n in ((_I8, 64), (_I16, 32), (_I32, SUMS)))


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
def spread_word(_, word):
    """Return an integer in every word."""

    def generate(context, builder, signature, values):
        return _spread(builder, builder.trunc(values[0], _I32))

    return _words(types.int64), generate


@intrinsic
@no_type_check
def load(_, address):
    """Return 16 words at an address."""

    def generate(context, builder, signature, values):
        return builder.load(_at(builder, values[0], _WORDS), align=4)

    return _words(types.int64), generate


@intrinsic
@no_type_check
def spread_at(_, address):
    """Return the word at an address in every word."""

    def generate(context, builder, signature, values):
        return _spread(builder, builder.load(_at(builder, values[0], _I32), align=4))

    return _words(types.int64), generate


@intrinsic
@no_type_check
def read(_, address):
    """Return the int64 at an address."""

    def generate(context, builder, signature, values):
        return builder.load(_at(builder, values[0], _I64), align=8)

    return types.int64(types.int64), generate


@intrinsic
@no_type_check
def pick(_, window, order):
    """Return the bytes that `order` names of the 64 at an address."""

    def generate(context, builder, signature, values):
        pixels = builder.load(_at(builder, values[0], _BYTES), align=1)
        order = builder.bitcast(values[1], _BYTES)
        picked = _call(builder, "llvm.x86.avx512.permvar.qi.512", _BYTES, pixels, order)
        return builder.bitcast(picked, _WORDS)

    return _words(types.int64, _words), generate


@intrinsic
@no_type_check
def add_taps(_, total, pixels, weights):
    """Add to each sum four products of an unsigned and a signed byte."""

    def generate(context, builder, signature, values):
        return _call(builder, "llvm.x86.avx512.vpdpbusd.512", _WORDS, *values)

    return _words(_words, _words, _words), generate


@intrinsic
@no_type_check
def whole(_, lower, upper):
    """Return lower + 256 upper."""

    def generate(context, builder, signature, values):
        return builder.add(values[0], builder.shl(values[1], _same(_WORDS, 8)))

    return _words(_words, _words), generate


@intrinsic
@no_type_check
def add_pair(_, total, address, weights):
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
def store_pair(_, address, one, two, precision):
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
def store_bytes(_, address, a, b, c, d, precision):
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
