"""Blocks that a step frees stay with the process, so that the next step faults no pages in."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
from mae_lib.kernels.allocator import keep_freed_memory

assert not int(sys.argv[1]) or keep_freed_memory()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(12_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
# A block beyond 32 MiB: glibc's own rule hands such a block back every time.
print(faults())
"""


def page_faults(keep: bool) -> int:
    command = [sys.executable, "-c", FAULTS, str(int(keep))]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_a_freed_block_is_taken_again_without_page_faults():
    # 48 MB are 11,719 pages of 4 KiB, twenty times over; large pages fault less often.
    assert page_faults(True) * 4 < page_faults(False)
