"""A product of small fp32 matrices for compiled loops, the sums of a tile held in registers.

Imported only where numba is installed.
"""

from typing import no_type_check  # a type checker's wrapper is not what numba compiles

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from mae_lib.kernels.native_code import inlined
from mae_lib.kernels.native_lanes import LANES

# Rows of a tile: with two vectors a row, 16 of 32 registers are sums.
ROWS = 8
_I32, _I64, _F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
_VECTOR = ir.VectorType(_F32, LANES)


def _tile(vectors: int, *, add: bool):
    """Make the innermost product: C[8, 16 v] (+)= A[8, k] B[k, 16 v] with the sums in registers.

    Arguments: C and its stride, A and its strides along rows and along k, B and its stride, k;
    addresses in bytes, strides in numbers.
    """

    @intrinsic
    @no_type_check
    def tile(_, c, c_stride, a, a_row, a_k, b, b_stride, k):
        def generate(context, builder, signature, values):
            c, c_stride, a, a_row, a_k, b, b_stride, count = values

            def at(base, *offsets, vector=True):
                for offset in offsets:
                    base = builder.add(base, offset)
                return builder.inttoptr(base, (_VECTOR if vector else _F32).as_pointer())

            def size(number):
                return ir.Constant(_I64, 4 * number)

            def times(stride, number):
                return builder.mul(stride, size(number))

            before = builder.block
            loop, end = builder.append_basic_block("k"), builder.append_basic_block("end")
            builder.branch(loop)
            builder.position_at_end(loop)
            index = builder.phi(_I64)
            index.add_incoming(ir.Constant(_I64, 0), before)
            zero = ir.Constant(_VECTOR, [0.0] * LANES)
            sums = [builder.phi(_VECTOR) for _ in range(ROWS * vectors)]
            for each in sums:
                each.add_incoming(zero, before)
            row = builder.mul(builder.mul(index, b_stride), size(1))
            right = [builder.load(at(b, row, size(LANES * v)), align=4) for v in range(vectors)]
            column = builder.mul(builder.mul(index, a_k), size(1))
            following = []
            for r in range(ROWS):
                number = builder.load(at(a, column, times(a_row, r), vector=False), align=4)
                left = ir.Constant(_VECTOR, ir.Undefined)
                left = builder.insert_element(left, number, ir.Constant(_I32, 0))
                lanes = ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES)
                left = builder.shuffle_vector(left, left, lanes)
                for v in range(vectors):
                    product = builder.fmul(left, right[v], flags=("contract",))
                    each = sums[r * vectors + v]
                    following.append(builder.fadd(each, product, flags=("contract",)))
            onward = builder.add(index, ir.Constant(_I64, 1))
            index.add_incoming(onward, loop)
            for each, value in zip(sums, following, strict=True):
                each.add_incoming(value, loop)
            builder.cbranch(builder.icmp_signed("<", onward, count), loop, end)
            builder.position_at_end(end)
            for r in range(ROWS):
                for v in range(vectors):
                    place = at(c, times(c_stride, r), size(LANES * v))
                    value = following[r * vectors + v]
                    if add:
                        value = builder.fadd(builder.load(place, align=4), value)
                    builder.store(value, place, align=4)
            return context.get_dummy_value()

        return types.void(*(types.int64,) * 8), generate

    return tile


_one, _two = _tile(1, add=False), _tile(2, add=False)
_one_more, _two_more = _tile(1, add=True), _tile(2, add=True)


@inlined
@no_type_check
def product(c, c_stride, a, a_row, a_k, b, b_stride, rows, columns, k, add):
    """Set (or add to) C[rows, columns] the product A[rows, k] B[k, columns], all fp32.

    Whole tiles are computed: C and A need rows up to a multiple of 8, C and B columns up to one of
    16, of which those beyond hold anything finite. `a_row` and `a_k` are A's strides, so that A may
    be read transposed.
    """
    for i in range(0, rows, ROWS):
        j = 0
        while columns - j > LANES:
            place, left, right = c + 4 * (i * c_stride + j), a + 4 * i * a_row, b + 4 * j
            if add:
                _two_more(place, c_stride, left, a_row, a_k, right, b_stride, k)
            else:
                _two(place, c_stride, left, a_row, a_k, right, b_stride, k)
            j += 2 * LANES
        if j < columns:
            place, left, right = c + 4 * (i * c_stride + j), a + 4 * i * a_row, b + 4 * j
            if add:
                _one_more(place, c_stride, left, a_row, a_k, right, b_stride, k)
            else:
                _one(place, c_stride, left, a_row, a_k, right, b_stride, k)
