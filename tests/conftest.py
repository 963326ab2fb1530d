"""Fixtures shared by all tests. Real photographs and public tables are found by MAE_DATA and
MAE_GRIDS; without them, the tests that need them say so and are skipped."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    # Read once, when triton is first imported: kernels then run in its interpreter.
    os.environ["TRITON_INTERPRET"] = "1"

# Whatever a test or a validated notebook runs goes to a fresh folder, so that notebooks really
# rebuild their cell and nobody's runs/ is touched.
_RUNS = tempfile.mkdtemp(prefix="mae-test-runs-")
os.environ["MAE_RUNS"] = _RUNS
atexit.register(shutil.rmtree, _RUNS, ignore_errors=True)
# The processor is calibrated once for all tests, and not in the user's own cache.
_CACHE = tempfile.mkdtemp(prefix="mae-test-cache-")
os.environ.setdefault("MAE_CACHE", _CACHE)
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)


@pytest.fixture(scope="session")
def photographs() -> Path:
    """Return the folder of real photographs."""
    if not (folder := os.environ.get("MAE_DATA")):
        pytest.skip("MAE_DATA is not set: no real photographs here")
    return Path(folder)


@pytest.fixture(scope="session")
def grids() -> Path:
    """Return the folder of public tables of runs."""
    if not (folder := os.environ.get("MAE_GRIDS")):
        pytest.skip("MAE_GRIDS is not set: no public tables of runs here")
    return Path(folder)


@pytest.fixture
def runs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let runs go to a temporary folder."""
    monkeypatch.setenv("MAE_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"
