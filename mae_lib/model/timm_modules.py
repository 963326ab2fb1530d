"""The one door to timm: its modules, imported after torchvision has been made importable."""

import warnings

from mae_lib.model.torchvision_on_cpu import declare_missing_operators

declare_missing_operators()

with warnings.catch_warnings():
    # timm brings a download client whose progress bar asks for Jupyter widgets; nothing is
    # downloaded here, and a notebook's first output should not be that.
    warnings.filterwarnings("ignore", message="IProgress not found")
    from timm.models import create_model
    from timm.models.vision_transformer import Block, VisionTransformer

__all__ = ["Block", "VisionTransformer", "create_model"]
