"""Compare a kernel with torch's own operation, both against float64."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# With a GPU the kernels run there; without, in triton's interpreter (tests/conftest.py).
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def run(function: Callable, arguments: Sequence) -> list[Tensor]:
    """Return the results, then the gradients of the arguments that need one."""
    results = function(*arguments)
    results = list(results) if isinstance(results, tuple) else [results]
    leaves = [a for a in arguments if isinstance(a, Tensor) and a.requires_grad]
    if not leaves:
        return results
    generator = torch.Generator().manual_seed(1)
    incoming = [torch.randn(r.shape, generator=generator).to(r) for r in results]
    gradients = torch.autograd.grad(results, leaves, incoming)
    return [*(r.detach() for r in results), *gradients]


def in_float64(arguments: Sequence) -> list:
    """Return the same values in float64, whole numbers as they are."""
    return [
        a.detach().double().requires_grad_(a.requires_grad)
        if isinstance(a, Tensor) and a.is_floating_point()
        else a
        for a in arguments
    ]


def assert_at_most_twice_torchs_error(
    fast: Callable, reference: Callable, arguments: Sequence
) -> None:
    """Every result and gradient has torch's shape and dtype, and at most twice torch's error.

    Half a unit in the last place of the largest value is what the last rounding alone may cost; a
    whole one where the result is a single number, which torch may have right by luck.
    """
    exact = run(reference, in_float64(arguments))
    for i, (ours, theirs, true) in enumerate(
        zip(run(fast, arguments), run(reference, arguments), exact, strict=True)
    ):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        error = (ours.double() - true).abs().max()
        allowed = 2 * (theirs.double() - true).abs().max()
        rounding = (
            (1.0 if true.numel() == 1 else 0.5) * torch.finfo(ours.dtype).eps * true.abs().max()
        )
        assert error <= allowed + rounding, (i, float(error), float(allowed), float(rounding))
