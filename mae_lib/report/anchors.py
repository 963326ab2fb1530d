"""Speeds that others have published, to read one's own beside."""

from dataclasses import dataclass

from mae_lib.study.definition import Cell


@dataclass(frozen=True)
class Anchor:
    """Images a second on one device in pretraining, at 224 pixels, patch 16 and mask ratio 0.75."""

    model: str
    images_per_s: float
    device: str
    source: str


# mae_lib.devices is calibrated on the same three (tests/test_devices.py).
ANCHORS = (
    Anchor("vit_base", 1980, "A100", "DailyMAE, arXiv 2404.00509"),
    Anchor("vit_base", 313, "RTX A6000", "Alpha-VL/ConvMAE, issue 5"),
    Anchor("vit_large", 106, "V100", "facebookresearch/mae, PRETRAIN.md"),
)


def anchors_of(cell: Cell) -> tuple[Anchor, ...]:
    """Return what is published of a cell's model at its resolution and patch; mostly nothing."""
    if (cell.pixels, cell.patch_size) != (224, 16):
        return ()
    return tuple(anchor for anchor in ANCHORS if anchor.model == cell.model)
