"""Let torchvision's CUDA-built wheel import on a CPU-only torch.

The wheel's C++ extension needs CUDA libraries. Without them, importing torchvision stops at two
operators that nobody declared (pytorch/vision#9085); declaring them is enough for all that timm
uses. Where the extension loads, nothing is done.
"""

import ctypes
import importlib.util
from pathlib import Path

import torch

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_library = None  # must live as long as the process, or torch drops the declarations


def declare_missing_operators() -> bool:
    """Declare torchvision's operators when its extension cannot load; say whether it was needed."""
    global _library
    spec = importlib.util.find_spec("torchvision")
    if _library is not None or spec is None or spec.origin is None:
        return False
    for extension in Path(spec.origin).parent.glob("_C*.*"):
        try:
            ctypes.CDLL(str(extension))
        except OSError:
            continue
        return False
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        _library.define(operator + _SIGNATURE)
    return True
