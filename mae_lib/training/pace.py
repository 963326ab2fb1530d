"""How fast a training is, against what the device could do, and what holds it up."""

import functools
import time
from collections.abc import Iterator
from typing import TypeVar

import torch

from mae_lib.kernels.choose import linear_now

Item = TypeVar("Item")
# Sides of the square products by which the ceiling is measured: as large as pays in a tenth of a
# second, and far beyond what a layer of the grid multiplies.
_SIDES = {"cpu": 1024, "cuda": 8192}
_MEASURE_S = 0.1


class Pace:
    """Says where the time between two log lines went, without asking the device in between.

    Waiting for batches is `data`. On a CPU the rest is `compute`. On a GPU a step returns when its
    kernels are issued, unless the queue is full, which it is not just after a log line has waited
    for the device: the first step's time is what issuing costs (`launch`), the rest is the device.
    """

    def __init__(self, device: torch.device, *, flops_per_image: float, ceiling: float):
        self.asynchronous = device.type != "cpu"
        self.flops_per_image, self.ceiling = flops_per_image, ceiling
        self._reset()

    def waiting(self, batches: Iterator[Item]) -> Iterator[Item]:
        """Yield the batches, and count the time that each is waited for."""
        while True:
            begun = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self._data_s += time.perf_counter() - begun
            yield batch

    def worked(self, seconds: float, *, waited: bool = False) -> None:
        """Count one step's time, or (`waited`) what a log line waited for the device."""
        self._busy_s += seconds
        if not waited:
            self._steps += 1
            self._first_s = seconds if self._first_s is None else self._first_s

    def row(self, images: int) -> dict:
        """Return what a log line says of the `images` since the last one, and begin anew.

        `mfu` is the share of the measured ceiling of matrix products that the counted FLOPs make;
        `bound` names the largest of the shares of time `data`, `launch` and `compute`.
        """
        total = self._data_s + self._busy_s
        launch_s = 0.0
        if self.asynchronous and self._first_s is not None:
            launch_s = min(self._busy_s, self._steps * self._first_s)
        times = {
            "data": self._data_s,
            "launch": launch_s,
            "compute": self._busy_s - launch_s,
        }
        self._reset()
        shares = {f"{name}_share": round(s / total, 4) for name, s in times.items() if total > 0}
        return shares | {
            "bound": max(times, key=times.__getitem__),
            "mfu": round(self.flops_per_image * images / total / self.ceiling, 4) if total else 0.0,
        }

    def _reset(self) -> None:
        self._data_s = self._busy_s = 0.0
        self._steps, self._first_s = 0, None


def gemm_ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the rate of large matrix products, once a process, device, dtype and threads.

    Units: FLOP/s, a multiply-add as two. Takes a tenth of a second, on a slow core longer.
    """
    return _ceiling(device, dtype, torch.get_num_threads(), linear_now())


@functools.cache
def _ceiling(device: torch.device, dtype: torch.dtype, threads: int, linear) -> float:
    side = _SIDES.get(device.type, 4096)
    x = torch.full((side, side), 0.5, device=device, dtype=dtype)
    bias = torch.zeros(side, device=device, dtype=dtype)
    fastest, spent = float("inf"), 0.0
    with torch.no_grad():
        _timed(linear, x, bias)
        while spent < _MEASURE_S:
            seconds = _timed(linear, x, bias)
            fastest, spent = min(fastest, seconds), spent + seconds
    return 2.0 * side**3 / fastest


def _timed(linear, x, bias) -> float:
    begun, used = time.perf_counter(), time.process_time()
    linear(x, x, bias)
    if x.is_cuda:
        torch.cuda.synchronize()
        return time.perf_counter() - begun
    # The threads' own time where that is less: a machine that is shared is no slower machine.
    threads = torch.get_num_threads()
    return min(time.perf_counter() - begun, (time.process_time() - used) / threads)
