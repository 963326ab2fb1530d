"""Every kernel passes triton's compiler and ptxas for an H200, though none is here, and fits it."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mae_lib.kernels import dispatch
from mae_lib.study.paths import root

SCRIPT = Path(__file__).with_name("offline_compiler.py")
# What an H200 gives a program at the most.
SHARED_BYTES = 227 * 1024


def compiled(folder: Path, *arguments: str) -> list[dict]:
    environment = os.environ | {"TRITON_CACHE_DIR": str(folder), "PYTHONPATH": str(root())}
    command = [sys.executable, "-W", "ignore", str(SCRIPT), *arguments]
    found = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=300
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="triton has wheels for Linux only")
def test_every_kernel_compiles_for_an_h200_and_spills_nothing(tmp_path):
    # The shape that takes every kernel: several blocks of keys and of queries.
    kernels = compiled(tmp_path, "--dtype", "bfloat16", "--sizes", "B/16@224 decoder")
    for kernel in kernels:
        assert kernel["spill_bytes"] == 0, kernel
        assert kernel["shared_bytes"] <= SHARED_BYTES, kernel
    modules = {module for module, _ in dispatch.TRITON.values()}
    modules |= {f"mae_lib.kernels.{n}_triton" for n in ("attention_backward", "column_sums")}
    every = {
        f"{module.rpartition('.')[2]}.{name}"
        for module in modules
        for name in vars(importlib.import_module(module))
        if name.endswith("_kernel")
    }
    assert {kernel["kernel"] for kernel in kernels} == every
