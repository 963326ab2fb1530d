"""Names that a study may use and that other layers define, so that a typo stops before any job.

Tests compare them with `mae_lib.scaling.laws.LAWS`, `mae_lib.images.procedural.FAMILIES` and
`mae_lib.images.layouts.registry.LAYOUTS`.
"""

from collections.abc import Sequence

from mae_lib.errors import StudyError
from mae_lib.study.suggest import nearest

LAWS = (
    "printed", "log_product", "log_additive", "log_bilinear", "logit_additive", "logit_bilinear",
    "logit_ceiling", "power_product", "power_sum", "shifted_power", "kaplan", "overtrain",
    "data_constrained", "bnsl", "m4", "cell_means",
)  # fmt: skip
FAMILIES = ("objects", "faces", "tiny", "scenes")
LAYOUTS = (
    "imagenet", "imagenet-tar", "tiny-imagenet", "imagenette", "celeba", "cifar10", "ade20k-2016",
    "ade20k-2021", "webdataset", "folder",
)  # fmt: skip
# The layouts that a source's name alone stands for.
LAYOUTS_OF = {"imagenet": ("imagenet", "imagenet-tar"), "ade20k": ("ade20k-2016", "ade20k-2021")}


def require_known(field: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Refuse a name that is unknown or given twice.

    Raises: StudyError naming the field and the nearest known name.
    """
    for name in names:
        if name not in known:
            raise StudyError(f"{field}: unknown name, got {name!r}{nearest(name, known)}")
        if list(names).count(name) > 1:
            raise StudyError(f"{field}: {name}: given twice")
