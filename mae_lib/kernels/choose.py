"""Which of two equal ways to take on this processor: measured once, by a wide margin, then kept.

`calibrate` times them and caches the outcome by processor. A cell records the choice and takes it
back on resume. `MAE_KERNELS=reference` forces the definitions.
"""

import contextlib
import os
from collections.abc import Callable, Iterator

import torch

from mae_lib.errors import KernelError
from mae_lib.kernels import calibrate, native
from mae_lib.kernels.allocator import keep_freed_memory
from mae_lib.kernels.attention import attention_fused, attention_products
from mae_lib.kernels.linear import linear, linear_onednn
from mae_lib.kernels.linear_fp8 import linear_fp8

LINEAR: dict[str, Callable] = {"torch": linear, "onednn": linear_onednn, "fp8": linear_fp8}
ATTENTION: dict[str, Callable] = {"products": attention_products, "fused": attention_fused}
# Blocks one operation after the other, or a whole stack by compiled loops.
BLOCKS = ("torch", "native")
TABLES = {
    "linear": LINEAR,
    "attention_fp32": ATTENTION,
    "attention_bf16": ATTENTION,
    "blocks_bf16": BLOCKS,
}
REFERENCE = {
    "linear": "torch",
    "attention_fp32": "products",
    "attention_bf16": "products",
    "blocks_bf16": "torch",
}

_current: dict[str, str] = dict(REFERENCE)


def best() -> dict[str, str]:
    """Return the choice for this machine; on a processor not met before it takes some seconds.

    Raises: KernelError when MAE_KERNELS holds an unknown word.
    """
    wish = os.environ.get("MAE_KERNELS", "")
    if wish == "reference":
        return dict(REFERENCE)
    if wish not in ("", "triton"):
        raise KernelError(f"MAE_KERNELS: reference or triton, got {wish!r}", exit_code=2)
    if torch.cuda.is_available() and os.environ.get("MAE_DEVICE") != "cpu":
        return REFERENCE | {"attention_fp32": "fused", "attention_bf16": "fused"}
    return calibrate.choices()


@contextlib.contextmanager
def using(choice: dict[str, str]) -> Iterator[None]:
    """Take `choice` inside the block; where it pays, freed memory stays with the process from then
    on.

    Raises: KernelError for an unknown way, or one that cannot be had here.
    """
    # Cells begun before there was a choice of blocks took torch's.
    choice = {"blocks_bf16": "torch"} | choice
    for name, ways in TABLES.items():
        if choice.get(name) not in ways:
            raise KernelError(f"kernels: {name}: one of {sorted(ways)}, got {choice.get(name)!r}")
    if choice["blocks_bf16"] == "native" and not native.available():
        raise KernelError(
            'kernels: blocks_bf16: native needs numba, which is not here; pip install "mae-lib[fast]"'
        )
    if choice.get("memory", "kept") == "kept":
        keep_freed_memory()
    before = dict(_current)
    _current.update({name: choice[name] for name in TABLES})
    try:
        yield
    finally:
        _current.update(before)


def linear_now() -> Callable:
    """Return the matrix product in force."""
    return LINEAR[_current["linear"]]


def blocks_now() -> str:
    """Return how a stack of bfloat16 blocks is run: one of `BLOCKS`."""
    return _current["blocks_bf16"]


def attention_now(dtype: torch.dtype) -> Callable:
    """Return the attention in force for a dtype; float64 always takes the definition."""
    if dtype == torch.float64:
        return attention_products
    return ATTENTION[_current["attention_bf16" if dtype == torch.bfloat16 else "attention_fp32"]]
