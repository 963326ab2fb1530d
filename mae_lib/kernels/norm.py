"""Add a branch to the residual stream and normalise the sum: two passes over memory saved a block."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from mae_lib.kernels.dispatch import chosen


def add_norm(
    x: Float[Tensor, "rows D"],
    y: Float[Tensor, "rows D"] | None,
    weight: Float[Tensor, " D"],
    bias: Float[Tensor, " D"],
    eps: float,
) -> tuple[Float[Tensor, "rows D"], Float[Tensor, "rows D"]]:
    """Return the stream x + y and its LayerNorm, by the kernel where there is one.

    The stream keeps the dtype of `x`, its norm takes that of `weight`; without `y` the stream is `x`.
    Error: at most twice torch's own against float64 (tests/kernels/test_norm.py).
    """
    return chosen("add_norm", add_norm_reference, x)(x, y, weight, bias, eps)


def add_norm_reference(
    x: Float[Tensor, "rows D"],
    y: Float[Tensor, "rows D"] | None,
    weight: Float[Tensor, " D"],
    bias: Float[Tensor, " D"],
    eps: float,
) -> tuple[Float[Tensor, "rows D"], Float[Tensor, "rows D"]]:
    """Return the same by torch: the definition. Mean and variance are fp32 for bf16 and fp16."""
    stream = x if y is None else x + y.to(x.dtype)
    wide_weight, wide_bias = weight.to(stream.dtype), bias.to(stream.dtype)
    normed = functional.layer_norm(stream, stream.shape[-1:], wide_weight, wide_bias, eps)
    return stream, normed.to(weight.dtype)


def random_arguments(
    rows: int, dim: int, *, device: torch.device, dtype: torch.dtype, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
    """Draw arguments that need gradients: stream and branch of SD 1, weight about 1, bias about 0."""
    generator = torch.Generator(device).manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device)

    tensors = draw(rows, dim), draw(rows, dim), 1 + 0.1 * draw(dim), 0.1 * draw(dim)
    x, y, weight, bias = (t.to(dtype).requires_grad_() for t in tensors)
    return x, y, weight, bias, 1e-6
