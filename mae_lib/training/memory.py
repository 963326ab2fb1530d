"""A step that does not fit: recognised, and tried again on fewer images at once."""

import torch

from mae_lib.errors import MaeError

# How the CPU's allocator and CUDA's libraries say it; torch.OutOfMemoryError is a RuntimeError.
_SAID = ("out of memory", "can't allocate memory")
REMEDY = (
    "take a smaller model, fewer pixels or a larger patch, or in the study's execution "
    "checkpoint_activations, or more devices with sharding fsdp2"
)


class OutOfMemory(MaeError):
    """What does not fit, in memory of a kind: `gpu memory`, or the host's `memory`."""

    def __init__(self, kind: str, problem: str, remedy: str = REMEDY):
        super().__init__(f"{kind}: {problem}; {remedy}")
        self.status = f"failed: {kind}"


def memory_lacking(error: BaseException) -> str | None:
    """Return which memory an error says was not there; None when it says something else."""
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError) or ("CUDA" in text and _SAID[0] in text):
        return "gpu memory"
    if isinstance(error, MemoryError) or any(said in text for said in _SAID):
        return "memory"
    return None


def as_out_of_memory(error: BaseException) -> OutOfMemory | None:
    """Return an error that fewer images at once do not cure in one line; None for any other."""
    if isinstance(error, OutOfMemory):
        return error
    if (kind := memory_lacking(error)) is None:
        return None
    return OutOfMemory(kind, (str(error).splitlines() or ["exhausted"])[0])


def halved(images: int, *, step: int, kind: str) -> int:
    """Return half of the images at once, after what the failed try cached has been given back.

    Raises: OutOfMemory when it was one image.
    """
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if images == 1:
        raise OutOfMemory(kind, f"step {step} does not fit with one image at once")
    return -(-images // 2)
