"""Activation checkpointing: a block keeps its input only, and is run again in the backward pass.

The second run is the same arithmetic on the same numbers, so loss and gradients keep their bits;
what is paid is one more forward pass of the blocks.
Source: Chen et al. 2016 (arXiv 1604.06174), by `torch.utils.checkpoint`.
"""

import functools
from collections.abc import Callable

from torch import Tensor
from torch.utils.checkpoint import checkpoint

# block, rows [batch x tokens, D] and run_block's keywords -> rows
RunBlock = Callable[..., Tensor]


def recomputed(run: RunBlock) -> RunBlock:
    """Return `run`, keeping for the backward pass only what it is called with."""

    @functools.wraps(run)
    def kept_input(block, x: Tensor, **keywords) -> Tensor:
        # Blocks draw no random numbers, so there is no generator state to keep.
        return checkpoint(run, block, x, use_reentrant=False, preserve_rng_state=False, **keywords)

    return kept_input
