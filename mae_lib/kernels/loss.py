"""The squared error on masked patches, targets normalised on the way: pixels are read once a pass."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from mae_lib.kernels.dispatch import chosen

TARGET_EPS = 1e-6


def masked_error(
    predicted: Float[Tensor, "B M ppC"], target: Float[Tensor, "B M ppC"], normalise: bool
) -> Float[Tensor, ""]:
    """Return the mean squared error against pixels, or pixels scaled patch by patch, in fp32.

    `target` may be a slice of all patches, it is not copied; no gradient flows to it.
    Error: at most twice torch's own against float64 (tests/kernels/test_loss.py).
    """
    way = chosen("masked_error", masked_error_reference, predicted)
    return way(predicted, target, normalise)


def masked_error_reference(
    predicted: Float[Tensor, "B M ppC"], target: Float[Tensor, "B M ppC"], normalise: bool
) -> Float[Tensor, ""]:
    """Return the same by torch: the definition."""
    wide = torch.promote_types(target.dtype, torch.float32)
    target = target.detach().to(wide)
    if normalise:
        target = normalise_patches(target)
    return functional.mse_loss(predicted.to(wide), target)


def normalise_patches(patches: Float[Tensor, "B M ppC"]) -> Float[Tensor, "B M ppC"]:
    """Scale each patch by its mean and unbiased variance: (x - mean) / sqrt(variance + 1e-6).

    Source: He et al. 2022, section 4.1 (per-patch normalisation).
    """
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) * torch.rsqrt(variance + TARGET_EPS)


def random_arguments(
    batch: int,
    masked: int,
    values: int,
    *,
    device: torch.device,
    dtype: torch.dtype,
    seed: int = 0,
) -> tuple[Tensor, Tensor, bool]:
    """Draw predictions that need a gradient and the last `masked` of `masked` + 1 patches."""
    generator = torch.Generator(device).manual_seed(seed)
    predicted = torch.randn(batch, masked, values, generator=generator, device=device)
    patches = torch.randn(batch, masked + 1, values, generator=generator, device=device)
    wide = torch.promote_types(dtype, torch.float32)
    return predicted.to(dtype).requires_grad_(), (0.5 + 2 * patches).to(wide)[:, 1:], True
