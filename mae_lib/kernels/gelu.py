"""Bias and exact GELU in one pass, and their gradients in one: the bias sum rides along."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from mae_lib.kernels.dispatch import chosen


def bias_gelu(x: Float[Tensor, "rows D"], bias: Float[Tensor, " D"]) -> Float[Tensor, "rows D"]:
    """Return gelu(x + bias), u (1 + erf(u / sqrt 2)) / 2, by the kernel where there is one.

    Error: at most twice torch's own against float64 (tests/kernels/test_gelu.py).
    """
    return chosen("bias_gelu", bias_gelu_reference, x)(x, bias)


def bias_gelu_reference(
    x: Float[Tensor, "rows D"], bias: Float[Tensor, " D"]
) -> Float[Tensor, "rows D"]:
    """Return the same by torch: the definition."""
    return functional.gelu(x + bias)


def random_arguments(
    rows: int, dim: int, *, device: torch.device, dtype: torch.dtype, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Draw a product of SD 1 and a bias that need gradients."""
    generator = torch.Generator(device).manual_seed(seed)
    x = torch.randn(rows, dim, generator=generator, device=device)
    bias = torch.randn(dim, generator=generator, device=device)
    return x.to(dtype).requires_grad_(), bias.to(dtype).requires_grad_()
