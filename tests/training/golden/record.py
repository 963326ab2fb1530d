"""Write the golden losses of this processor class: `python tests/training/golden/record.py`.

Run it only on code whose bits are known to be right; a change of an existing file is a change of
results and belongs into CHANGELOG.md.
"""

import hashlib
import json
import os
import re
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from unittest import mock

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[2])]

from tiny_cell import CELL, DATA, losses, weights  # noqa: E402

from mae_lib.images.store import Store, build_store  # noqa: E402
from mae_lib.kernels import choose  # noqa: E402
from mae_lib.records.provenance import processor, versions  # noqa: E402
from mae_lib.training.loop import pretrain  # noqa: E402

RECIPES = {
    "fp32": {},
    "bf16": {"precision": "bf16"},
    "fp64": {"precision": "fp64"},
    "clipped": {"clip_grad": 0.5},
}
# Fixed: what calibration takes differs from machine to machine, and is tested elsewhere.
KERNELS = {"linear": "torch", "attention_fp32": "fused", "attention_bf16": "products"}


def golden_path() -> Path:
    """Return the file of this processor class."""
    return HERE / (re.sub(r"[^a-z0-9]+", "-", processor().lower()).strip("-") + ".json")


def train_all(store: Store, folder: Path) -> dict:
    """Train the tiny cell by every recipe: losses, and the hash of its weights."""
    found = {}
    for name, changed in RECIPES.items():
        cell = replace(CELL, recipe=replace(CELL.recipe, **changed))
        with mock.patch.object(choose, "best", return_value=KERNELS):
            pretrain(cell, store, folder / name, log_every=5)
        sha256 = hashlib.sha256(weights(folder / name)).hexdigest()
        curve = [list(row) for row in losses(folder / name)]
        found[name] = {"weights_sha256": sha256, "losses": curve}
    return found


def main() -> None:
    os.environ |= {"MAE_THREADS": "1", "MAE_DEVICE": "cpu"}
    with tempfile.TemporaryDirectory() as folder:
        store = build_store(DATA, Path(folder) / "store", data_root=None)
        found = train_all(store, Path(folder))
    golden = {"processor": processor(), "versions": versions(), "recipes": found}
    golden_path().write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
