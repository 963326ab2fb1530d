"""A step that does not fit: recognised, and tried again on fewer images at once."""

import torch

from mae_lib.errors import MaeError

# How the CPU's allocator and CUDA's libraries say it; torch.OutOfMemoryError is a RuntimeError.
_SAID = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
REMEDY = (
    "take a smaller model, fewer pixels or a larger patch, or in the study's execution "
    "checkpoint_activations, or more devices with sharding fsdp2"
)


class OutOfMemory(MaeError):
    """A step that does not fit even one image at a time."""

    status = "failed: gpu memory"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was not there."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or any(said in str(error) for said in _SAID)


def as_out_of_memory(error: BaseException) -> OutOfMemory | None:
    """Return an error that fewer images at once do not cure in one line; None for any other."""
    if isinstance(error, OutOfMemory):
        return error
    if not is_out_of_memory(error):
        return None
    return OutOfMemory(f"gpu memory: {str(error).splitlines()[0] or 'exhausted'}; {REMEDY}")


def halved(images: int, *, step: int) -> int:
    """Return half of the images at once, after what the failed try cached has been given back.

    Raises: OutOfMemory when it was one image.
    """
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if images == 1:
        raise OutOfMemory(f"gpu memory: step {step} does not fit with one image at once; {REMEDY}")
    return -(-images // 2)
