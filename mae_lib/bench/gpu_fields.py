"""What a field of the recipe does to speed and to the loss: precision, residual stream, crops."""

from collections.abc import Iterator

import numpy as np
import torch

from mae_lib.bench.gpu_plan import Setting
from mae_lib.bench.gpu_throughput import MODES, cell_of, in_mode, noise_store, stepper, store_of
from mae_lib.bench.gpu_throughput import time_mode as time_setting
from mae_lib.bench.gpu_timing import device_for
from mae_lib.images.procedural import FAMILIES, draw
from mae_lib.training.recipe import learning_rate

# Changes of one field each; the first row is what the others are compared with.
CHANGES: tuple[dict[str, str], ...] = (
    {},
    {"precision": "fp32"},
    {"residual": "fp32"},
    {"crop": "float"},
    {"precision": "fp8"},
)
_STEPS, _BATCH, _IMAGES = 300, 128, 1024
_DRY_STEPS, _DRY_IMAGES = 4, 12
# The loss reported is the mean of the last tenth of the steps.
_LAST = 0.1


def fields(setting: dict, dry: bool) -> Iterator[dict]:
    """Time each change, and train it on drawn images from the same start with the same draws."""
    wanted, mode = Setting(**setting), MODES["ours"]
    noise, pictures = noise_store(wanted, dry), _pictures(wanted, dry)
    for change in CHANGES:
        row = {"setting": wanted.name, "changed": change}
        try:
            speed = time_setting(wanted, noise, mode, dry, **change)
            keys = ("images_per_s", "images_per_s_p20", "images_per_s_p80", "batch")
            row |= {key: speed[key] for key in keys} | _trained(wanted, pictures, change, dry)
            yield {"fields": [row]}
        except Exception as error:
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            yield {"error": f"{change or 'as it is'}: {said}"}


def _trained(setting: Setting, store, change: dict[str, str], dry: bool) -> dict:
    """Return the loss of the last steps, for every mask and crop equal between changes."""
    mode, device = MODES["ours"], device_for(dry)
    steps, batch = (_DRY_STEPS, 4) if dry else (_STEPS, min(_BATCH, setting.batch))
    cell = cell_of(
        setting, store, batch=batch, mode=mode, steps=steps, warmup_steps=steps // 10 or 1, **change
    )
    with in_mode(mode, cell.recipe):
        _, whole = stepper(cell, store, mode, device)
        losses = torch.zeros(steps, device=device)
        for number, draws in enumerate(whole.tables(0, steps)):
            loss, _ = whole(draws, learning_rate(cell.recipe, number, steps))
            losses[number] = loss
    last = losses[-max(1, round(_LAST * steps)) :].float()
    return {"steps": steps, "trained_batch": batch, "loss": last.mean().item()}


def _pictures(setting: Setting, dry: bool):
    count = _DRY_IMAGES if dry else _IMAGES * 64 // max(64, setting.stored)
    each = -(-count // len(FAMILIES))
    drawn = [draw(name, np.arange(each), size=setting.stored, seed=0)[0] for name in FAMILIES]
    return store_of(np.concatenate(drawn)[:count])
