"""Cast the weights of all blocks at once: two launches a parameter and step become a few in all.

In bf16 every product casts its master weight, and its gradient is cast back: twelve tensors a block,
hundreds of launches a step that take longer to issue than to do. Here the tensors of all blocks are
cast together, forward and backward; the numbers are the same to the bit.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call

from mae_lib.model.mae import MaskedAutoencoder

# Weights outside of the blocks are few, and some of them are read in fp32.
_BLOCKS = ("encoder.blocks.", "decoder_blocks.")


def narrowed(model: torch.nn.Module) -> Callable[[Tensor, Tensor], Float[Tensor, ""]]:
    """Return the model's loss as a function that casts the blocks' weights together.

    Where nothing is cast, or the model or its blocks are wrapped (compiled, sharded, or run again
    in the backward pass), it is the model itself.
    """
    plain = isinstance(model, MaskedAutoencoder) and model.run_block is None
    if not plain or model.compute_dtype is None:
        return model
    masters = {n: p for n, p in model.named_parameters() if n.startswith(_BLOCKS)}

    def loss(images: Tensor, order: Tensor) -> Tensor:
        narrow = _CastTogether.apply(model.compute_dtype, *masters.values())
        return functional_call(model, dict(zip(masters, narrow, strict=True)), (images, order))

    return loss


class _CastTogether(torch.autograd.Function):
    @staticmethod
    def forward(ctx, dtype, *masters):
        ctx.set_materialize_grads(False)
        ctx.wide = [master.dtype for master in masters]
        return _copied(masters, [dtype] * len(masters))

    @staticmethod
    def backward(ctx, *gradients):
        there = [i for i, gradient in enumerate(gradients) if gradient is not None]
        wide = _copied([gradients[i] for i in there], [ctx.wide[i] for i in there])
        found = dict(zip(there, wide, strict=True))
        return None, *(found.get(i) for i in range(len(gradients)))


def _copied(tensors, dtypes) -> tuple[Tensor, ...]:
    copies = [torch.empty_like(t, dtype=d) for t, d in zip(tensors, dtypes, strict=True)]
    torch._foreach_copy_(copies, list(tensors))
    return tuple(copies)
