"""A stack of pre-norm transformer blocks on sequences stored row by row: its definition, and what is
asked of the way that compiled loops run it (stack_native.py).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from mae_lib.kernels.attention import attention_products

# norm1, qkv, proj, norm2, fc1, fc2: weight and bias of each.
PER_BLOCK = 12
# Beyond, scores leave a core's cache and torch's fused attention is the better.
MOST_TOKENS = 320
_LANES = 16


@dataclass(frozen=True)
class Plan:
    """What a stack is besides its weights: `queries` tokens of each sequence leave its last block."""

    batch: int
    heads: int
    eps: float
    queries: int | None = None


def by_block(parameters: Sequence[Tensor]) -> Iterator[Sequence[Tensor]]:
    """Yield the weights of each block; those of the norm behind them are left out."""
    for start in range(0, len(parameters) - 2, PER_BLOCK):
        yield parameters[start : start + PER_BLOCK]


def fits_native(plan: Plan, x: Tensor, parameters: Sequence[Tensor]) -> bool:
    """Say whether compiled loops can run the stack: bfloat16 tokens and fp32 weights on a processor,
    widths in sixteens, short sequences."""
    dim = x.shape[1]
    widths = [tensor.shape[0] for tensor in parameters] + [dim, dim // plan.heads]
    return (
        x.dtype == torch.bfloat16
        and x.device.type == "cpu"
        and x.shape[0] <= MOST_TOKENS * plan.batch
        and all(tensor.dtype == torch.float32 for tensor in parameters)
        and all(tensor.is_contiguous() for tensor in parameters)
        and all(width % _LANES == 0 for width in widths)
    )


def stack_reference(
    plan: Plan, x: Float[Tensor, "rows D"], parameters: Sequence[Tensor]
) -> Float[Tensor, "out D"]:
    """Return the normed stream behind all blocks, by torch in the dtype of `x`: the definition."""
    blocks = list(by_block(parameters))
    for i, weights in enumerate(blocks):
        queries = plan.queries if i == len(blocks) - 1 else None
        x = _block(plan, queries, x, [w.to(x.dtype) for w in weights])
    return _norm(x, *(w.to(x.dtype) for w in parameters[-2:]), plan.eps)


def _block(plan: Plan, queries: int | None, x: Tensor, weights: list[Tensor]) -> Tensor:
    norm1_w, norm1_b, qkv_w, qkv_b, proj_w, proj_b, norm2_w, norm2_b, *mlp = weights
    dim, batch, heads = x.shape[1], plan.batch, plan.heads
    tokens = x.shape[0] // batch
    asked = queries or tokens
    qkv = functional.linear(_norm(x, norm1_w, norm1_b, plan.eps), qkv_w, qkv_b)
    q, k, v = qkv.view(batch, tokens, 3, heads, dim // heads).permute(2, 0, 3, 1, 4)
    mixed = attention_products(q[:, :, tokens - asked :], k, v)
    mixed = mixed.transpose(1, 2).reshape(batch * asked, dim)
    x = x.view(batch, tokens, dim)[:, tokens - asked :].reshape(batch * asked, dim)
    x = x + functional.linear(mixed, proj_w, proj_b)
    fc1_w, fc1_b, fc2_w, fc2_b = mlp
    hidden = functional.linear(_norm(x, norm2_w, norm2_b, plan.eps), fc1_w, fc1_b)
    return x + functional.linear(functional.gelu(hidden), fc2_w, fc2_b)


def _norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return functional.layer_norm(x, x.shape[1:], weight, bias, eps)


def random_arguments(
    plan: Plan, *, tokens: int, dim: int, depth: int, seed: int = 0
) -> tuple[Tensor, list[Tensor]]:
    """Draw bfloat16 tokens and fp32 weights that need gradients, scaled so that branches matter."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, about: float = 0.0, sd: float = 0.1) -> Tensor:
        return (about + sd * torch.randn(shape, generator=generator)).requires_grad_()

    def layer(out: int, inner: int) -> list[Tensor]:
        return [draw(out, inner, sd=inner**-0.5), draw(out)]

    def norm() -> list[Tensor]:
        return [draw(dim, about=1.0), draw(dim)]

    parameters = []
    for _ in range(depth):
        parameters += [*norm(), *layer(3 * dim, dim), *layer(dim, dim)]
        parameters += [*norm(), *layer(4 * dim, dim), *layer(dim, 4 * dim)]
    x = torch.randn(plan.batch * tokens, dim, generator=generator).bfloat16().requires_grad_()
    return x, [*parameters, *norm()]
