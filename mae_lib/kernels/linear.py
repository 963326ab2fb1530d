"""The matrix product of a layer, through the library that is faster on this processor.

On AMD processors MKL takes a slow path and oneDNN is about twice as fast at the same accuracy; on
Intel the two are equal (benchmarks/README.md).
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

# A private name of torch, there from 2.11 to 2.15 at least; without it the plain product is used.
_POINTWISE = getattr(getattr(torch.ops, "mkldnn", None), "_linear_pointwise", None)


def linear(
    x: Float[Tensor, "rows d"], weight: Float[Tensor, "out d"], bias: Float[Tensor, " out"]
) -> Float[Tensor, "rows out"]:
    """Return x weight' + bias: the definition, by torch's own product."""
    return functional.linear(x, weight, bias)


def linear_onednn(
    x: Float[Tensor, "rows d"], weight: Float[Tensor, "out d"], bias: Float[Tensor, " out"]
) -> Float[Tensor, "rows out"]:
    """Return the same through oneDNN, forward and backward; fp32 on the CPU only, else `linear`."""
    if x.dtype != torch.float32 or x.device.type != "cpu" or _POINTWISE is None:
        return functional.linear(x, weight, bias)
    return _OneDnnLinear.apply(x, weight, bias)


class _OneDnnLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        return _POINTWISE(x, weight, bias, "none", [], "")

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = _POINTWISE(grad, weight.t(), None, "none", [], "")
        if ctx.needs_input_grad[1]:
            grad_weight = _POINTWISE(grad.t(), x.t(), None, "none", [], "")
        return grad_x, grad_weight, grad.sum(0)
