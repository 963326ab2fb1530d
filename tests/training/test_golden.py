"""The bits of training do not change by accident: losses and weights a processor class."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_cell import DATA

from mae_lib.images.store import build_store
from mae_lib.records.provenance import processor, versions

sys.path.append(str(Path(__file__).parent / "golden"))
from record import HERE, golden_path, train_all

# Relative. Other kernels on one machine move losses and norms by 1.6e-7 in fp32 over these 24 steps;
# crops are computed in fp32 by every recipe, and a bf16 weight has 8 bits.
ELSEWHERE = {"fp32": 1e-5, "clipped": 1e-5, "bf16": 1e-2, "fp64": 1e-6}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAE_THREADS", "1")
        patch.setenv("MAE_DEVICE", "cpu")
        return train_all(build_store(DATA, folder / "store", data_root=None), folder)


def test_this_processor_with_these_libraries_trains_to_the_recorded_bits(found):
    path = golden_path()
    if not path.exists():
        pytest.skip(f"no golden losses of {processor()!r} yet: tests/training/golden/record.py")
    golden = json.loads(path.read_text(encoding="utf-8"))
    if golden["versions"] != versions():
        pytest.skip("the golden losses of this processor are of other libraries")
    assert found == golden["recipes"]


@pytest.mark.parametrize("path", sorted(HERE.glob("*.json")), ids=lambda path: path.stem)
def test_every_other_processor_trained_to_the_same_losses_within_rounding(found, path):
    golden = json.loads(path.read_text(encoding="utf-8"))["recipes"]
    assert golden.keys() == found.keys()
    for name, recipe in golden.items():
        np.testing.assert_allclose(found[name]["losses"], recipe["losses"], rtol=ELSEWHERE[name])
