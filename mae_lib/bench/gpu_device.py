"""Which machine this is, and the two ceilings that no kernel on it can pass."""

import importlib.metadata
import platform
import subprocess
from collections.abc import Iterator

import torch

from mae_lib.bench.gpu_timing import device_for, time_calls
from mae_lib.records.provenance import available_cores, processor, versions

_QUERIED = (
    "driver_version",
    "clocks.sm",
    "clocks.max.sm",
    "clocks.mem",
    "power.limit",
    "temperature.gpu",
)
_MORE_LIBRARIES = ("triton", "torchvision", "transformers", "safetensors")
COPY_BYTES, DRY_COPY_BYTES = 2**31, 2**20
MATMUL_SIDE, DRY_MATMUL_SIDE = 8192, 64


def provenance(dry: bool) -> Iterator[dict]:
    """Say what the numbers were measured on."""
    found = {
        "processor": processor(),
        "cores": available_cores(),
        "system": platform.platform(),
        "versions": versions() | _more_versions(),
        "device": "cpu",
    }
    if not dry:
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "device": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "memory_bytes": properties.total_memory,
            "multiprocessors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "nvidia_smi": _nvidia_smi(),
        }
    yield {"provenance": found}


def ceilings(dry: bool) -> Iterator[dict]:
    """Measure bandwidth (a copy on the device: bytes read and written) and bf16 products."""
    device = device_for(dry)
    source = torch.empty(DRY_COPY_BYTES if dry else COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source.fill_(1))
    copy = time_calls(lambda: target.copy_(source), device)
    copied = 2 * source.nbytes
    del source, target
    yield {
        "ceilings": {
            "copy_bytes_per_s": copied / copy["seconds"],
            "copy_bytes_per_s_p20": copied / copy["seconds_p80"],
            "copy_bytes_per_s_p80": copied / copy["seconds_p20"],
        }
    }
    side = DRY_MATMUL_SIDE if dry else MATMUL_SIDE
    left = torch.randn(side, side, device=device).to(torch.bfloat16)
    product = time_calls(lambda: left @ left, device)
    flops = 2 * side**3
    yield {
        "ceilings": {
            "matmul_side": side,
            "bf16_flops_per_s": flops / product["seconds"],
            "bf16_flops_per_s_p20": flops / product["seconds_p80"],
            "bf16_flops_per_s_p80": flops / product["seconds_p20"],
        }
    }


def _more_versions() -> dict[str, str]:
    found = {}
    for name in _MORE_LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _nvidia_smi() -> dict[str, str]:
    """Ask the driver for clocks and limits; empty where it cannot be asked."""
    command = ["nvidia-smi", f"--query-gpu={','.join(_QUERIED)}", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return {}
    values = found.stdout.strip().splitlines()[0].split(", ")
    return dict(zip(_QUERIED, values, strict=False))
