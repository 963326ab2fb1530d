"""What made a result: code version, libraries, processor. Settings decide results, these explain
differences; only `environment` takes part in the promise of equal bits."""

import functools
import importlib.metadata
import os
import platform
import subprocess

from mae_lib.study.paths import root

LIBRARIES = ("numpy", "pandas", "scipy", "pillow", "torch", "timm")


@functools.cache
def processor() -> str:
    """Name the processor and its widest vector and matrix units, as `Intel ... [amx_bf16]`."""
    name, flags = platform.machine(), set()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                key, _, value = line.partition(":")
                if key.strip() == "model name":
                    name = " ".join(value.split())
                elif key.strip() == "flags":
                    flags = set(value.split())
                    break
    except OSError:
        name = platform.processor() or name
    units = [f for f in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if f in flags]
    return f"{name} [{units[0]}]" if units else name


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of the libraries that take part in a result; the build tag is kept."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Return the short commit of the checkout, with `+` when files differ from it."""
    if wish := os.environ.get("MAE_COMMIT"):
        return wish
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if changed else "")


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(root()), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    ).stdout.strip()


def available_cores() -> int:
    """Return the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
