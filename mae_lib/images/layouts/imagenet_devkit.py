"""The labels of ImageNet's validation images, from the publisher's development kit.

`ILSVRC2012_devkit_t12.tar.gz` beside the images, or unpacked: `data/meta.mat` names the wnid of each
ILSVRC number, `data/ILSVRC2012_validation_ground_truth.txt` has the number of each image in order.
"""

import io
import re
from pathlib import Path

import scipy.io
from scipy.io.matlab import MatReadError

from mae_lib.errors import StoreError
from mae_lib.images.layouts.reading import read_bytes, read_text
from mae_lib.images.layouts.tree import members_of

KIT = "ILSVRC2012_devkit_t12"
_META = "data/meta.mat"
_TRUTH = "data/ILSVRC2012_validation_ground_truth.txt"
_VAL = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")


def validation_wnids(folder: Path) -> tuple[str, ...]:
    """Return the wnid of each validation image in order; () where no kit lies in `folder`.

    Raises: StoreError when the kit is damaged.
    """
    for place in (folder / KIT, folder / f"{KIT}.tar.gz"):
        if place.exists():
            return _read(place)
    return ()


def wnid_of(name: str, wnids: tuple[str, ...]) -> str | None:
    """Return the wnid of a validation image by its file name, None where it is not known."""
    match = _VAL.fullmatch(name)
    number = int(match[1]) if match else 0
    return wnids[number - 1] if 1 <= number <= len(wnids) else None


def _read(place: Path) -> tuple[str, ...]:
    found = {m.path.removeprefix(f"{KIT}/"): m for m in members_of(place)}
    if missing := [name for name in (_META, _TRUTH) if name not in found]:
        raise StoreError(f"{place}: no {missing[0]} in it; fetch it again")
    content = read_bytes(Path(found[_META].file), found[_META], _META)
    try:
        # MATLAB's format holds numbers and text only; nothing in it is run.
        synsets = scipy.io.loadmat(io.BytesIO(content), squeeze_me=True)["synsets"]
        names = {int(s["ILSVRC2012_ID"]): str(s["WNID"]) for s in synsets}
        return tuple(names[int(line)] for line in read_text(found[_TRUTH]).split())
    except (MatReadError, ValueError, TypeError, KeyError, IndexError, OSError) as error:
        raise StoreError(f"{place}: {_META} or {_TRUTH}: cannot be read, got {error!r}") from None
