"""Images a second of whole training steps, data included: as the loop did it, compiled, and ours."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from mae_lib.bench.gpu_plan import Setting
from mae_lib.bench.gpu_timing import device_for, time_calls
from mae_lib.cost import cost_of
from mae_lib.images.store import Store
from mae_lib.kernels import choose, dispatch
from mae_lib.study.definition import Cell, Data, Evaluation, Recipe, Source, Task
from mae_lib.study.models import ModelShape
from mae_lib.study.paths import root
from mae_lib.training.batches import batches
from mae_lib.training.environment import kernels_for
from mae_lib.training.graph import WholeStep, prepare_cuda
from mae_lib.training.loop import build_model
from mae_lib.training.recipe import build_optimizer
from mae_lib.training.resident import resident_images
from mae_lib.training.step import Step

# The operations behind a word of the ablation.
OPERATIONS: dict[str, tuple[str, ...]] = {
    "crop": ("crop_patches", "mask_order"),
    "norm": ("add_norm",),
    "gelu": ("bias_gelu",),
    "loss": ("masked_error",),
    "attention": ("packed_attention", "query_attention"),
}
IN_BLOCKS = ("norm", "gelu", "attention")
LEARNING_RATE = 1e-4
# Steps before timing: three uncaptured, the capture, and a few replays.
WARMUP = 6
_STORED_IMAGES, _DRY_IMAGES = 4096, 32
_FOREVER = 10**7


@dataclass(frozen=True)
class Mode:
    """How a step is run. `kernels`: those forced to Triton; None leaves the choice as training's."""

    name: str
    resident: bool = True
    capture: bool = True
    compiled: bool = False
    kernels: tuple[str, ...] | None = ()


MODES: dict[str, Mode] = {
    mode.name: mode
    for mode in (
        Mode("eager", resident=False, capture=False),
        Mode("eager, images on the device", capture=False),
        Mode("compiled", capture=False, compiled=True),
        Mode("compiled + graph", compiled=True),
        Mode("graph"),
        Mode("ours", kernels=None),
        Mode("graph + all", kernels=tuple(OPERATIONS)),
        *(Mode(f"graph + {name}", kernels=(name,)) for name in OPERATIONS),
        *(
            Mode(f"graph + all - {name}", kernels=tuple(k for k in OPERATIONS if k != name))
            for name in OPERATIONS
        ),
    )
}


def throughput(setting: dict, modes: list[str], dry: bool) -> Iterator[dict]:
    """Time a setting in each mode: a row each, or the error that it gave."""
    wanted = Setting(**setting)
    store = noise_store(wanted, dry)
    for name in modes:
        try:
            yield {"throughput": [time_mode(wanted, store, MODES[name], dry)]}
        except Exception as error:
            if _device_is_lost(error):
                raise
            yield {"error": f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"}


def ablation(setting: dict, kernels: list[str], dry: bool) -> Iterator[dict]:
    """Time the graph with one kernel at a time, with all, and with all but one: what each takes off
    a real step. Kernels inside blocks share a form of the block, so they are left out one by one."""
    # A kernel that breaks the device ends the task: what holds all of them comes late.
    modes = ["graph", *(f"graph + {name}" for name in kernels), "graph + all"]
    modes += [f"graph + all - {name}" for name in kernels if name in IN_BLOCKS]
    yield from throughput(setting, modes, dry)


def time_mode(setting: Setting, store: Store, mode: Mode, dry: bool, **recipe) -> dict:
    """Return the row of one mode; a batch that does not fit is halved until it does."""
    batch = setting.batch
    while True:
        cell = cell_of(setting, store, batch=batch, mode=mode, **recipe)
        try:
            with in_mode(mode, cell.recipe):
                return _row(setting, cell, mode, dry, *_timed(cell, store, mode, device_for(dry)))
        except torch.OutOfMemoryError:
            if batch == 1:
                raise
            batch //= 2
        # Outside the handler: its traceback holds the tensors that did not fit.
        torch.cuda.empty_cache()


@contextlib.contextmanager
def in_mode(mode: Mode, recipe: Recipe) -> Iterator[None]:
    """Let a mode's operations take their kernels, attention without asking its table."""
    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with choose.using(kernels_for(recipe, choose.best(), where)):
        if mode.kernels is None:
            yield
            return
        names = [name for word in mode.kernels for name in OPERATIONS[word]]
        before = os.environ.get("MAE_KERNELS")
        if torch.cuda.is_available():
            os.environ["MAE_KERNELS"] = "triton"
        try:
            with dispatch.only(names):
                yield
        finally:
            if before is None:
                os.environ.pop("MAE_KERNELS", None)
            else:
                os.environ["MAE_KERNELS"] = before


def noise_store(setting: Setting, dry: bool) -> Store:
    """Return a store of noise, as fast to make as to read; speed does not depend on the pixels."""
    count = _DRY_IMAGES if dry else _STORED_IMAGES
    side = setting.stored
    images = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return store_of(images)


def store_of(images: np.ndarray) -> Store:
    """Return images in memory as a store of one source."""
    index = pd.DataFrame({"source": "noise", "sha256": [f"{i:064x}" for i in range(len(images))]})
    return Store(root(), {"recipe": {"kind": "procedural"}}, images, index)


def cell_of(setting: Setting, store: Store, *, batch: int, mode: Mode, **recipe) -> Cell:
    """Return a cell that would train a setting on a store for ever, in bf16 and at mask 0.8."""
    dim, depth, heads = setting.decoder or (None, None, None)
    whole_numbers = mode.resident and (mode.kernels is None or "crop" in mode.kernels)
    fields = {
        "steps": _FOREVER,
        "batch_size": batch,
        "precision": "bf16",
        "max_flops": 1e30,
        "decoder_dim": dim,
        "decoder_depth": depth,
        "decoder_heads": heads,
        "crop": "integer" if whole_numbers else "float",
    }
    data = Data("procedural", len(store.images), setting.stored, 0, (Source("noise", 1.0),),
                (Task("none"),))  # fmt: skip
    return Cell(
        setting.model,
        len(store.images),
        setting.resolution,
        setting.patch_size,
        0.8,
        0,
        Recipe(**fields | recipe),
        Evaluation(),
        data,
    )


def with_decoder(shape: ModelShape, decoder: tuple[int, int, int] | None) -> ModelShape:
    """Return a shape with another decoder: dim, depth and heads."""
    if decoder is None:
        return shape
    dim, depth, heads = decoder
    return dataclasses.replace(shape, decoder_dim=dim, decoder_depth=depth, decoder_heads=heads)


def stepper(
    cell: Cell, store: Store, mode: Mode, device: torch.device
) -> tuple[Callable[[], torch.Tensor], WholeStep | None]:
    """Return a function that does one training step of a mode, and the whole step behind it."""
    prepare_cuda()
    torch.use_deterministic_algorithms(True, warn_only=True)
    model = build_model(cell).to(device).train()
    optimizer = build_optimizer(model, cell.recipe)
    if mode.compiled:
        if device.type == "cpu":
            # A dry run wraps the model and traces nothing: that would take half a minute.
            torch.compiler.set_stance("force_eager")
        model = torch.compile(model, dynamic=False)
    step = Step(model, optimizer, clip_grad=cell.recipe.clip_grad)
    if not mode.resident:
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE
        source = batches(cell, store, start=0, stop=_FOREVER, device=device, dtype=torch.float32)
        return lambda: step(next(source))[0], None
    images, why = resident_images(store, device)
    if images is None:
        raise torch.OutOfMemoryError(why)
    whole = WholeStep(cell, store, step, images, capture=mode.capture)
    tables = whole.tables(0, _FOREVER)
    return lambda: whole(next(tables), LEARNING_RATE)[0], whole


def _timed(cell: Cell, store: Store, mode: Mode, device: torch.device) -> tuple[dict, dict]:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    advance, whole = stepper(cell, store, mode, device)
    said: list[str] = []
    if whole is not None:
        whole.say = said.append
    for _ in range(WARMUP):
        advance()
    began = time.perf_counter() - started
    seconds = time_calls(advance, device, warm_up=0)
    facts = {
        "captured": whole is not None and whole.captured,
        "warm_up_s": round(began, 2),
        "last_loss": float(advance()),
        "said": said,
    }
    if device.type == "cuda":
        facts["peak_memory_bytes"] = torch.cuda.max_memory_allocated()
    if whole is not None:
        # What the host does meanwhile must be less than a step, or data is the bound.
        facts["host_draw_s"] = time_calls(lambda: whole.draws(0), torch.device("cpu"))["seconds"]
    return seconds, facts


def _row(setting: Setting, cell: Cell, mode: Mode, dry: bool, seconds: dict, facts: dict) -> dict:
    batch = cell.recipe.batch_size
    return {
        "model": cell.model,
        "patch_size": cell.patch_size,
        "resolution": cell.resolution,
        "setting": setting.name,
        "mode": mode.name,
        "kernels": None if mode.kernels is None else list(mode.kernels),
        "precision": cell.recipe.precision,
        "batch": batch,
        "dry": dry,
        "images_per_s": batch / seconds["seconds"],
        "images_per_s_p20": batch / seconds["seconds_p80"],
        "images_per_s_p80": batch / seconds["seconds_p20"],
        "flops_per_image": cost_of(cell).flops_per_image,
        **seconds,
        **facts,
    }


def _device_is_lost(error: Exception) -> bool:
    """Whether nothing more can run on the device in this process."""
    return (
        isinstance(error, torch.AcceleratorError) if hasattr(torch, "AcceleratorError") else False
    )
