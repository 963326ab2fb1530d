"""The one door to timm: its modules, imported after torchvision has been made importable."""

from mae_lib.model.torchvision_on_cpu import declare_missing_operators

declare_missing_operators()

from timm.models import create_model  # noqa: E402
from timm.models.vision_transformer import Block, VisionTransformer  # noqa: E402

__all__ = ["Block", "VisionTransformer", "create_model"]
