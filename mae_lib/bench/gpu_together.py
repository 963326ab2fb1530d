"""Small cells at once on one device: images a second in all, by how many share it."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from mae_lib.bench.gpu_plan import DRY, Setting
from mae_lib.errors import MaeError
from mae_lib.training.together import together

# As the studies train them: batches far too small to fill a device.
SMALL = (
    Setting("vit_tiny_d6", 8, 64, 128, 64),
    Setting("vit_tiny", 4, 32, 128, 64),
    Setting("vit_small", 8, 64, 128, 64),
)
SECONDS, DRY_SECONDS = 5.0, 0.2
# Processes start at different speeds; all are timed over the one window that all of them share.
READY_SECONDS, DRY_READY_SECONDS = 14.0, 6.0


@dataclass(frozen=True)
class Share:
    """One process's part: a setting, and the window of the wall clock in which steps count."""

    setting: Setting
    begins: float
    ends: float
    dry: bool


def together_rates(at_once: int, dry: bool) -> Iterator[dict]:
    """Train each small setting in `at_once` processes; yield its images a second in all."""
    for setting in (DRY,) if dry else SMALL:
        begins = time.time() + (DRY_READY_SECONDS if dry else READY_SECONDS)
        ends = begins + (DRY_SECONDS if dry else SECONDS)
        shares = [Share(setting, begins, ends, dry)] * at_once
        found = [result for _, result in together(count_images, shares, at_once=at_once)]
        if failed := [result for result in found if isinstance(result, MaeError)]:
            yield {"error": f"{setting.name}: {failed[0]}"}
            continue
        late = [row for row in found if row["ready"] > begins]
        rates = [row["images"] / row["seconds"] for row in found]
        row = {
            "setting": setting.name,
            "batch": setting.batch,
            "at_once": at_once,
            "images_per_s": sum(rates),
            "images_per_s_each": rates,
            "started_late": len(late),
            "captured": all(row["captured"] for row in found),
        }
        yield {"together": [row]}


def count_images(share: Share) -> dict:
    """Prepare a cell's training, wait for the window, and count what is trained within it."""
    from mae_lib.bench.gpu_throughput import MODES, WARMUP, cell_of, in_mode, noise_store, stepper
    from mae_lib.bench.gpu_timing import device_for, wait

    setting, device, mode = share.setting, device_for(share.dry), MODES["ours"]
    store = noise_store(setting, share.dry)
    cell = cell_of(setting, store, batch=setting.batch, mode=mode)
    with in_mode(mode):
        advance, whole = stepper(cell, store, mode, device)
        for _ in range(WARMUP):
            advance()
        wait(device)
        ready = time.time()
        while time.time() < share.begins:
            advance()
        wait(device)
        started, images = time.time(), 0
        while images == 0 or time.time() < share.ends:
            for _ in range(4):
                advance()
            images += 4 * setting.batch
            wait(device)
        seconds = time.time() - started
    captured = whole is not None and whole.captured
    return {"images": images, "seconds": seconds, "ready": ready, "captured": captured}
