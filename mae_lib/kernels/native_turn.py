"""Transposition for compiled loops, 16 x 16 numbers at a time.

Imported only where numba is installed.
"""

from typing import no_type_check  # a type checker's wrapper is not what numba compiles

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from mae_lib.kernels.native_lanes import LANES

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(ir.FloatType(), LANES)


@intrinsic
@no_type_check
def turn(_, source, source_stride, target, target_stride):
    """Write a square of fp32 numbers transposed; addresses in bytes, strides in numbers."""

    def generate(context, builder, signature, values):
        source, source_stride, target, target_stride = values

        def at(base, stride, row):
            offset = builder.mul(stride, ir.Constant(_I64, 4 * row))
            return builder.inttoptr(builder.add(base, offset), _VECTOR.as_pointer())

        rows = [builder.load(at(source, source_stride, i), align=4) for i in range(LANES)]
        # Four perfect shuffles of the rows are a transposition.
        words, half = ir.VectorType(_I32, LANES), LANES // 2
        pairs = [i for j in range(LANES) for i in (j, LANES + j)]
        orders = [ir.Constant(words, pairs[k : k + LANES]) for k in (0, LANES)]
        for _ in range(4):
            couples = list(zip(rows[:half], rows[half:], strict=True))
            rows = [builder.shuffle_vector(*two, order) for two in couples for order in orders]
        for i, row in enumerate(rows):
            builder.store(row, at(target, target_stride, i), align=4)
        return context.get_dummy_value()

    return types.void(*(types.int64,) * 4), generate
