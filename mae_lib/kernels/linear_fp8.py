"""The matrix product of a layer in 8-bit floats, for widths at which it can pay.

Operands are scaled by their largest value, tensor by tensor and anew in every product: e4m3 for
activations and weights, e5m2 for gradients, whose range is wider. Sums are fp32, results bf16;
master weights, norms, attention and the loss are untouched.
Source: Micikevicius et al. 2022 (arXiv 2209.05433).
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from mae_lib.errors import KernelError

# Of both sides of a layer. A guess from counting bytes, to be measured: `mae bench gpu`, fields.
MIN_WIDTH = 1024
# The units of a product in 8 bits take blocks of 16 values.
_BLOCK = 16
_CAPABILITY = (8, 9)
# A private name of torch that torchao builds upon too.
_PRODUCT = getattr(torch, "_scaled_mm", None)


def require_fp8(device: torch.device) -> None:
    """Refuse a device without 8-bit matrix units.

    Raises: KernelError in one line.
    """
    if device.type != "cuda":
        raise KernelError(
            f"precision: fp8 needs a CUDA device with 8-bit matrix units, got {device.type}; "
            "set precision: bf16",
            exit_code=2,
        )
    capability = torch.cuda.get_device_capability(device)
    if capability < _CAPABILITY or _PRODUCT is None:
        raise KernelError(
            f"precision: fp8 needs compute capability {_CAPABILITY[0]}.{_CAPABILITY[1]} and a torch "
            f"that has its product, got {capability[0]}.{capability[1]} and torch "
            f"{torch.__version__}; set precision: bf16",
            exit_code=2,
        )


def linear_fp8(
    x: Float[Tensor, "rows d"], weight: Float[Tensor, "out d"], bias: Float[Tensor, " out"]
) -> Float[Tensor, "rows out"]:
    """Return x weight' + bias in 8 bits, forward and backward; narrow layers and other dtypes than
    bf16 as torch does them."""
    rows, (wide, narrow) = x.shape[0], weight.shape
    fits = not (rows % _BLOCK or wide % _BLOCK or narrow % _BLOCK)
    if x.dtype != torch.bfloat16 or min(wide, narrow) < MIN_WIDTH or not fits:
        return functional.linear(x, weight, bias)
    return _Fp8Linear.apply(x, weight, bias)


class _Fp8Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        small_x, scale_x = _shrunk(x, torch.float8_e4m3fn)
        small_w, scale_w = _shrunk(weight, torch.float8_e4m3fn)
        # 8 bits are kept for the backward pass, half of what bf16 would keep.
        ctx.save_for_backward(small_x, scale_x, small_w, scale_w)
        return _product(small_x, scale_x, small_w.t(), scale_w) + bias

    @staticmethod
    def backward(ctx, grad):
        small_x, scale_x, small_w, scale_w = ctx.saved_tensors
        small, scale = _shrunk(grad, torch.float8_e5m2)
        grad_x = _product(small, scale, _by_column(small_w), scale_w)
        grad_weight = _product(small.t().contiguous(), scale, _by_column(small_x), scale_x)
        return grad_x, grad_weight, grad.sum(0)


def _shrunk(tensor: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return a tensor in 8 bits and the fp32 factor that undoes its scaling."""
    top = torch.finfo(dtype).max
    largest = tensor.abs().amax().float().clamp(min=1e-12)
    small = (tensor.float() * (top / largest)).clamp(-top, top).to(dtype)
    return small, largest / top


def _product(left: Tensor, scale_left: Tensor, right: Tensor, scale_right: Tensor) -> Tensor:
    return _PRODUCT(left, right, scale_a=scale_left, scale_b=scale_right, out_dtype=torch.bfloat16)


def _by_column(matrix: Tensor) -> Tensor:
    """Return the same matrix stored column by column, as the right operand must be."""
    return matrix.t().contiguous().t()
