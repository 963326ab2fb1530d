"""Which of two equal ways an operation takes on a GPU: its plain reference, or its Triton kernel.

On a CUDA device with triton the kernel is taken, attention by its measured table; anywhere else, and
in float64, the reference. `MAE_KERNELS=reference|triton` forces either; forced without CUDA, triton
runs in its interpreter if TRITON_INTERPRET=1, else the wish is refused.
"""

import contextlib
import functools
import importlib
import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator

import torch

from mae_lib.errors import KernelError

# Where each kernel lives: looked up when it is first taken, since triton may be absent.
TRITON: dict[str, tuple[str, str]] = {
    "mask_order": ("mae_lib.kernels.mask_order_triton", "mask_order_triton"),
    "crop_patches": ("mae_lib.kernels.crop_triton", "crop_patches_triton"),
    "add_norm": ("mae_lib.kernels.norm_triton", "add_norm_triton"),
    "bias_gelu": ("mae_lib.kernels.gelu_triton", "bias_gelu_triton"),
    "masked_error": ("mae_lib.kernels.loss_triton", "masked_error_triton"),
    "packed_attention": ("mae_lib.kernels.attention_triton", "packed_attention_triton"),
    "query_attention": ("mae_lib.kernels.attention_triton", "query_attention_triton"),
}

_loaded: dict[str, Callable] = {}
_IN_BLOCKS = ("add_norm", "bias_gelu", "packed_attention", "query_attention")

_allowed: frozenset[str] = frozenset(TRITON)


@functools.cache
def has_triton() -> bool:
    """Say whether triton is installed."""
    return importlib.util.find_spec("triton") is not None


def wish() -> str:
    """Return MAE_KERNELS: "", "reference" or "triton".

    Raises: KernelError for another word.
    """
    word = os.environ.get("MAE_KERNELS", "")
    if word not in ("", "reference", "triton"):
        raise KernelError(f"MAE_KERNELS: reference or triton, got {word!r}", exit_code=2)
    return word


@contextlib.contextmanager
def only(names: Iterable[str]) -> Iterator[None]:
    """Let no other operations than `names` take their kernel inside the block.

    For measuring one kernel at a time. What torch.compile or a CUDA graph has recorded before stays
    as it was recorded. Raises: KernelError for a name that is no operation.
    """
    global _allowed
    if unknown := sorted(set(names) - set(TRITON)):
        raise KernelError(f"kernels: {', '.join(TRITON)} can be chosen, got {', '.join(unknown)}")
    before, _allowed = _allowed, frozenset(names)
    try:
        yield
    finally:
        _allowed = before


@torch.compiler.assume_constant_result
def takes_triton(name: str, device: str, dtype: torch.dtype) -> bool:
    """Say whether the operation takes its Triton kernel on tensors of this device type and dtype.

    Raises: KernelError when triton is forced where it cannot run.
    """
    word = wish()
    if word == "reference" or name not in _allowed or dtype == torch.float64:
        return False
    if word == "triton":
        _require_triton(device)
    elif device != "cuda" or not has_triton():
        return False
    # torch.compile cannot look through an import: it happens here, at the first question.
    triton_way(name)
    return True


@torch.compiler.assume_constant_result
def takes_any(device: str, dtype: torch.dtype) -> bool:
    """Say whether any operation of a stack of blocks takes its Triton kernel."""
    return any(takes_triton(name, device, dtype) for name in _IN_BLOCKS)


def triton_way(name: str) -> Callable:
    """Return an operation's Triton function.

    Raises: KernelError when triton is not installed.
    """
    if name not in _loaded:
        if not has_triton():
            raise KernelError(f"{name}: triton is not installed here", exit_code=2)
        module, function = TRITON[name]
        _loaded[name] = getattr(importlib.import_module(module), function)
    return _loaded[name]


def chosen(name: str, reference: Callable, tensor: torch.Tensor) -> Callable:
    """Return the operation's way for this tensor: `reference` or the Triton function."""
    if takes_triton(name, tensor.device.type, tensor.dtype):
        return triton_way(name)
    return reference


def _require_triton(device: str) -> None:
    if not has_triton():
        raise KernelError(
            "MAE_KERNELS: triton is forced and not installed here; unset it", exit_code=2
        )
    if device != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise KernelError(
            f"MAE_KERNELS: triton needs a CUDA device, got {device}; unset it, or set "
            "TRITON_INTERPRET=1 to run slowly in triton's interpreter",
            exit_code=2,
        )
