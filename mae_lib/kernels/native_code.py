"""Loops over memory as numba compiles them. Imported only where numba is installed."""

import functools
from collections.abc import Callable
from typing import no_type_check  # a type checker's wrapper is not what numba compiles

import llvmlite.binding
import numpy as np
import torch
from llvmlite import ir
from numba import carray, cfunc, njit, types
from numba.extending import intrinsic

from mae_lib.errors import KernelError
from mae_lib.kernels.native import openmp, parts, symbols

for _name, _address in symbols().items():
    llvmlite.binding.add_symbol(_name, _address)
_thread = types.ExternalFunction("omp_get_thread_num", types.int32())
_threads = types.ExternalFunction("omp_get_num_threads", types.int32())

# Sums may be reordered and products fused into them; NaN and infinities keep their meaning.
_FAST = frozenset({"reassoc", "contract", "nsz"})
_WORDS = 32

inlined = njit(nogil=True, fastmath=set(_FAST), error_model="numpy")


@intrinsic
@no_type_check
def _pointer(_, address):
    def generate(context, builder, signature, values):
        return builder.inttoptr(values[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), generate


class Loop:
    """A loop over memory, compiled when a process first calls it: about a second.

    numba could keep it on the disk, but as a pickle, and nothing is unpickled here.

    The body is `body(data)`, which begins with `words, reals, part, parts = arguments(data)`. Parts
    run at the same time and never write to the same place.
    """

    def __init__(self, body: Callable):
        self.body = body
        functools.update_wrapper(self, body)

    def __call__(self, *values: torch.Tensor | int | float) -> None:
        """Run all parts and wait for them; tensors must live until then.

        Raises: KernelError for a tensor that is not contiguous or not on the CPU.
        """
        words = np.zeros(_WORDS, np.int64)
        reals = words.view(np.float64)
        for i, value in enumerate(values):
            if isinstance(value, torch.Tensor):
                if not value.is_contiguous() or value.device.type != "cpu":
                    raise KernelError(f"{self.body.__name__}: argument {i} is no contiguous tensor")
                words[i] = value.data_ptr()
            elif isinstance(value, float):
                reals[i] = value
            else:
                words[i] = value
        openmp().GOMP_parallel(self.address, words.ctypes.data, parts(), 0)

    @functools.cached_property
    def address(self) -> int:
        """Where the compiled loop begins."""
        signature = types.void(types.voidptr)
        self._compiled = cfunc(signature, fastmath=set(_FAST), error_model="numpy")(self.body)
        return self._compiled.address


@inlined
@no_type_check
def arguments(data):
    """Return the values of the call as words (tensors are addresses) and, over the same memory, as
    floats; then which part this thread does, and of how many."""
    words = carray(data, (_WORDS,), np.int64)
    return words, carray(data, (_WORDS,), np.float64), np.int64(_thread()), np.int64(_threads())


@inlined
@no_type_check
def single(address):
    """Return the fp32 number at an address as an array of one."""
    return carray(_pointer(address), (1,), np.float32)
