"""Sixteen fp32 numbers as one value of compiled loops, loaded from fp32 or bfloat16.

A compiler that has to prove that two arrays do not overlap, or that a table is not written to, gives
up on just the loops that matter; written in lanes they need no proof. Addresses are in bytes.
Imported only where numba is installed.
"""

import operator
from typing import no_type_check  # a type checker's wrapper is not what numba compiles

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, overload, register_model

LANES = 16
_I1, _I16, _I32, _I64, _F32 = (*map(ir.IntType, (1, 16, 32, 64)), ir.FloatType())
_VECTOR, _HALVES, _WORDS = (ir.VectorType(t, LANES) for t in (_F32, _I16, _I32))
_ADDRESSES = ir.VectorType(_I64, LANES)
_CONTRACT = ("contract",)


class _Lanes(types.Type):
    def __init__(self):
        super().__init__(name="lanes")


lanes = _Lanes()


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, _VECTOR)


def _all(kind: ir.Type, value) -> ir.Constant:
    return ir.Constant(ir.VectorType(kind, LANES), [value] * LANES)


def _at(builder, address, kind):
    return builder.inttoptr(address, kind.as_pointer())


def _wide(builder, halves):
    words = builder.shl(builder.zext(halves, _WORDS), _all(_I32, 16))
    return builder.bitcast(words, _VECTOR)


def _narrow(builder, value):
    """Round to the nearest bfloat16, ties to even, as the upper half of each word; NaN stays NaN."""
    bits = builder.bitcast(value, _WORDS)
    odd = builder.and_(builder.lshr(bits, _all(_I32, 16)), _all(_I32, 1))
    rounded = builder.add(builder.add(bits, _all(_I32, 0x7FFF)), odd)
    is_nan = builder.fcmp_unordered("uno", value, value)
    return builder.select(is_nan, _all(_I32, 0x7FC00000), rounded)


def _call(builder, name, result, *values):
    kind = ir.FunctionType(result, [value.type for value in values])
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(function, values)


def _spread(builder, number, kind=_VECTOR):
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), number, ir.Constant(_I32, 0))
    return builder.shuffle_vector(one, one, _all(_I32, 0))


def _operation(result, *parameters):
    """Turn `build(builder, *values)` into a function of compiled loops."""

    def made(build):
        def generate(context, builder, signature, values):
            out = build(builder, *values)
            return context.get_dummy_value() if out is None else out

        source = ", ".join(f"a{i}" for i in range(len(parameters)))
        scope = {"kind": result(*parameters), "generate": generate}
        exec(f"def {build.__name__}(context, {source}): return kind, generate", scope)
        typed = scope[build.__name__]
        typed.__doc__ = build.__doc__
        return intrinsic(typed)

    return made


@_operation(lanes, types.int64)
@no_type_check
def load(builder, address):
    """Return 16 fp32 numbers at an address."""
    return builder.load(_at(builder, address, _VECTOR), align=4)


@_operation(types.void, types.int64, lanes)
@no_type_check
def store(builder, address, value):
    """Write 16 fp32 numbers."""
    builder.store(value, _at(builder, address, _VECTOR), align=4)


@_operation(lanes, types.int64)
@no_type_check
def load_half(builder, address):
    """Return 16 bfloat16 numbers at an address."""
    return _wide(builder, builder.load(_at(builder, address, _HALVES), align=2))


@_operation(types.void, types.int64, lanes)
@no_type_check
def store_half(builder, address, value):
    """Write 16 numbers rounded to bfloat16."""
    words = builder.lshr(_narrow(builder, value), _all(_I32, 16))
    halves = builder.trunc(words, _HALVES)
    builder.store(halves, _at(builder, address, _HALVES), align=2)


@_operation(lanes, lanes)
@no_type_check
def rounded(builder, value):
    """Return the numbers rounded to bfloat16."""
    bits = builder.and_(_narrow(builder, value), _all(_I32, 0xFFFF0000))
    return builder.bitcast(bits, _VECTOR)


@_operation(lanes, types.float32)
@no_type_check
def spread(builder, number):
    """Return one number in every lane."""
    return _spread(builder, number)


@_operation(types.float32, lanes)
@no_type_check
def total(builder, value):
    """Return the sum over lanes, added in pairs."""
    for half in (8, 4, 2, 1):
        order = [(i + half) % LANES for i in range(LANES)]
        turned = ir.Constant(_WORDS, [ir.Constant(_I32, i) for i in order])
        value = builder.fadd(value, builder.shuffle_vector(value, value, turned))
    return builder.extract_element(value, ir.Constant(_I32, 0))


@_operation(types.float32, lanes)
@no_type_check
def largest(builder, value):
    """Return the greatest number of all lanes."""
    for half in (8, 4, 2, 1):
        order = [(i + half) % LANES for i in range(LANES)]
        turned = ir.Constant(_WORDS, [ir.Constant(_I32, i) for i in order])
        other = builder.shuffle_vector(value, value, turned)
        value = builder.select(builder.fcmp_ordered(">", value, other), value, other)
    return builder.extract_element(value, ir.Constant(_I32, 0))


@_operation(lanes, types.int64, lanes)
@no_type_check
def lookup(builder, table, value):
    """Return the fp32 numbers that a table of 65,536 holds for numbers rounded to bfloat16."""
    index = builder.lshr(builder.bitcast(value, _WORDS), _all(_I32, 16))
    pointers = builder.gep(_at(builder, table, _F32), [index], source_etype=_F32)
    # One address and many indices make many addresses, which llvmlite does not know.
    pointers.type = ir.VectorType(_F32.as_pointer(), LANES)
    return _call(
        builder,
        "llvm.masked.gather.v16f32.v16p0",
        _VECTOR,
        pointers,
        ir.Constant(_I32, 4),
        _all(_I1, 1),
        _all(_F32, 0.0),
    )


@_operation(lanes, lanes)
@no_type_check
def exponential(builder, x):
    """Return e^x for x <= 0 within 2 units of the last place; below -87 it is 0, since numbers that
    small are slow to compute with.

    Cody and Waite's reduction by ln 2 in two parts, then the series to degree 6 on |r| < ln 2 / 2.
    """

    def fused(a, b, c):
        product = builder.fmul(a, b, flags=_CONTRACT)
        return builder.fadd(product, c, flags=_CONTRACT)

    floor = _all(_F32, -87.0)
    below = builder.fcmp_ordered("<", x, floor)
    x = builder.select(below, floor, x)
    n = fused(x, _all(_F32, float(np.float32(1.4426950408889634))), _all(_F32, 0.5))
    n = _call(builder, "llvm.floor.v16f32", _VECTOR, n)
    r = fused(n, _all(_F32, -0.693359375), x)
    r = fused(n, _all(_F32, float(np.float32(2.12194440e-4))), r)
    p = _all(_F32, float(np.float32(1 / 720)))
    for factor in (1 / 120, 1 / 24, 1 / 6, 0.5, 1.0, 1.0):
        p = fused(p, r, _all(_F32, float(np.float32(factor))))
    biased = builder.add(builder.fptosi(n, _WORDS), _all(_I32, 127))
    value = builder.fmul(p, builder.bitcast(builder.shl(biased, _all(_I32, 23)), _VECTOR))
    return builder.select(below, _all(_F32, 0.0), value)


@_operation(lanes, lanes, lanes)
@no_type_check
def _sum(builder, a, b):
    return builder.fadd(a, b, flags=_CONTRACT)


@_operation(lanes, lanes, lanes)
@no_type_check
def _difference(builder, a, b):
    return builder.fsub(a, b, flags=_CONTRACT)


@_operation(lanes, lanes, lanes)
@no_type_check
def _product(builder, a, b):
    return builder.fmul(a, b, flags=_CONTRACT)


def _operator(symbol, function):
    @overload(symbol)
    @no_type_check
    def of_lanes(a, b):
        if isinstance(a, _Lanes) and isinstance(b, _Lanes):
            return lambda a, b: function(a, b)
        return None


_operator(operator.add, _sum)
_operator(operator.sub, _difference)
_operator(operator.mul, _product)
