"""Small cells at once on one device: images a second in all, by how many share it."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mae_lib.bench.gpu_plan import DRY, Setting
from mae_lib.errors import KernelError, MaeError
from mae_lib.training.processes import in_processes

# As the studies train them: batches far too small to fill a device.
SMALL = (
    Setting("vit_tiny_d6", 8, 64, 128, 64),
    Setting("vit_small", 8, 64, 128, 64),
)
SECONDS, DRY_SECONDS = 3.0, 0.1
# Processes start at different speeds: each waits for all, and no longer than this.
READY_SECONDS = 40.0


@dataclass(frozen=True)
class Share:
    """One process's part: a setting, and the folder where each of `at_once` says it is ready."""

    setting: Setting
    number: int
    at_once: int
    folder: str
    dry: bool


def together_rates(at_once: int, dry: bool) -> Iterator[dict]:
    """Train each small setting in `at_once` processes; yield its images a second in all."""
    for setting in (DRY,) if dry else SMALL:
        with tempfile.TemporaryDirectory() as folder:
            shares = [Share(setting, n, at_once, folder, dry) for n in range(at_once)]
            found = [result for _, result in in_processes(count_images, shares, at_once=at_once)]
        if failed := [result for result in found if isinstance(result, MaeError)]:
            yield {"error": f"{setting.name}: {failed[0]}"}
            continue
        rates = [row["images"] / row["seconds"] for row in found]
        row = {
            "setting": setting.name,
            "batch": setting.batch,
            "at_once": at_once,
            "images_per_s": sum(rates),
            "images_per_s_each": rates,
            "captured": all(row["captured"] for row in found),
        }
        yield {"together": [row]}


def count_images(share: Share) -> dict:
    """Prepare a cell's training, wait for the window, and count what is trained within it."""
    from mae_lib.bench.gpu_throughput import MODES, WARMUP, cell_of, in_mode, noise_store, stepper
    from mae_lib.bench.gpu_timing import device_for, wait

    setting, device, mode = share.setting, device_for(share.dry), MODES["ours"]
    store, limit = noise_store(setting, share.dry), DRY_SECONDS if share.dry else SECONDS
    cell = cell_of(setting, store, batch=setting.batch, mode=mode)
    with in_mode(mode, cell.recipe):
        advance, whole = stepper(cell, store, mode, device)
        for _ in range(WARMUP):
            advance()
        wait(device)
        _meet(Path(share.folder), share.number, share.at_once)
        started, images = time.perf_counter(), 0
        while (seconds := time.perf_counter() - started) < limit:
            for _ in range(4):
                advance()
            images += 4 * setting.batch
            wait(device)
    captured = whole is not None and whole.captured
    return {"images": images, "seconds": seconds, "captured": captured}


def _meet(folder: Path, number: int, count: int) -> None:
    """Wait until all of `count` processes are here.

    Raises: KernelError when one does not come.
    """
    (folder / str(number)).touch()
    until = time.monotonic() + READY_SECONDS
    while len(list(folder.iterdir())) < count:
        if time.monotonic() > until:
            raise KernelError(f"together: not all of {count} started in {READY_SECONDS:.0f} s")
        time.sleep(0.01)
