"""Compile every kernel for a GPU that is not here, as its own launch asks for it.

Triton's compiler and ptxas need no device: the launch is stopped after the compiler, so that a kernel
that only the interpreter takes, or that spills its registers, is found without a GPU. A script, since
the interpreter is chosen when triton is imported: prints one JSON list of
{kernel, dtype, size, registers, spill_bytes, shared_bytes}.
"""

import argparse
import dataclasses
import json
import os
import re
import subprocess
import tempfile

# Before triton is imported, here and nowhere else. Products and sums may fuse, as triton 3.6 does.
os.environ.pop("TRITON_INTERPRET", None)
os.environ["TRITON_DEFAULT_FP_FUSION"] = "1"

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from mae_lib.kernels.gpu_ops import OPS, SIZES

H200 = GPUTarget("cuda", 90, 32)


class AbsentDriver:
    """What the compiler asks a driver for, answered without a device."""

    def get_current_target(self):
        return H200

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0

    def get_device_capability(self, device=0):
        return (9, 0)


def compile_all(dtype: torch.dtype, sizes, names) -> list[dict]:
    """Run every operation forward and backward; its kernels are compiled and never launched."""
    compiled: dict[str, dict] = {}
    launch = JITFunction.run

    def stop_after_the_compiler(self, *args, grid, warmup, **kwargs):
        kernel = launch(self, *args, grid=grid, warmup=True, **kwargs)
        if kernel.hash not in compiled:
            name = f"{self.fn.__module__.rpartition('.')[2]}.{self.fn.__name__}"
            compiled[kernel.hash] = {"kernel": name, "dtype": str(dtype), "size": size.name}
            compiled[kernel.hash] |= resources(kernel)
        return kernel

    JITFunction.run = stop_after_the_compiler
    for size in sizes:
        for op in OPS:
            if names and op.name not in names:
                continue
            arguments = op.example(torch.device("cpu"), dtype, size)
            result = op.fast(*arguments)
            if op.differentiable:
                results = result if isinstance(result, tuple) else (result,)
                sum(r.float().sum() for r in results).backward()
    return list(compiled.values())


def resources(kernel) -> dict:
    """Read registers and spilled bytes a thread from the compiled code, shared bytes a program."""
    dump = triton.knobs.nvidia.cuobjdump.path
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(kernel.asm["cubin"])
        cubin.flush()
        command = [dump, "--dump-resource-usage", cubin.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers = int(re.search(r"REG:(\d+)", text)[1])
    local = int(re.search(r"STACK:(\d+)", text)[1]) + int(re.search(r"LOCAL:(\d+)", text)[1])
    shared = kernel.metadata.shared
    return {"registers": registers, "spill_bytes": local, "shared_bytes": shared}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--sizes", nargs="*", default=[], help="names of gpu_ops.SIZES; none: all")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--operations", nargs="*", default=[], help="names; none: all")
    arguments = parser.parse_args()
    triton.runtime.driver.set_active(AbsentDriver())
    # The batch decides no constant of a kernel.
    chosen = [
        dataclasses.replace(size, batch=arguments.batch)
        for size in SIZES
        if not arguments.sizes or size.name in arguments.sizes
    ]
    found = compile_all(getattr(torch, arguments.dtype), chosen, arguments.operations)
    print(json.dumps(found, indent=1))
