"""Train one cell: the same bits however often it is cut, and never again once it is done."""

import dataclasses
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from mae_lib.errors import Interrupted, RecordError
from mae_lib.images.store import Store
from mae_lib.kernels import choose
from mae_lib.model.mae import MaskedAutoencoder, compute_dtype
from mae_lib.model.masking import keep_count
from mae_lib.records.atomic import sha256_of
from mae_lib.records.locks import locked
from mae_lib.records.provenance import available_cores, processor, versions
from mae_lib.records.quarantine import quarantine
from mae_lib.records.sealed import read_sealed, write_sealed
from mae_lib.study.definition import Cell, settings_of
from mae_lib.study.models import model_shape
from mae_lib.training.batches import batches
from mae_lib.training.checkpoint import restore_checkpoint, save_checkpoint, write_tensors
from mae_lib.training.metrics import MetricsFile
from mae_lib.training.recipe import build_optimizer, learning_rate, planned_steps
from mae_lib.training.signals import stopping

LOG_EVERY = 20
CHECKPOINT_SECONDS = 20.0


@dataclass(frozen=True)
class Trained:
    """What training left: where, how it ended, and what it took."""

    folder: Path
    status: str
    steps: int
    images_seen: int
    loss: float | None
    wall_s: float
    environment: dict


def pretrain(
    cell: Cell,
    store: Store,
    folder: Path,
    *,
    log_every: int = LOG_EVERY,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    on_log: Callable[[dict], None] | None = None,
) -> Trained:
    """Train `cell` on its subset of `store` into `folder`, or return what is there when complete.

    Writes cell.json, metrics.jsonl, state/ (checkpoints) and at last weights.safetensors and
    training.json. A cut run goes on from its last checkpoint with the recorded threads and
    kernels; a run begun on another processor or with other libraries starts over, because its
    bits could not be kept. A loss that is not finite ends the run with status `diverged`.

    Raises: Interrupted after SIGTERM or Ctrl-C, once the state is saved; RecordError when the
    folder belongs to another cell.
    """
    with locked(folder / ".lock"):
        if (done := completed(cell, folder)) is not None:
            if not (folder / "cell.json").exists():
                _describe(cell, folder, done.environment)
            return done
        environment = _environment(cell, folder)
        torch.set_num_threads(environment["threads"])
        with choose.using(environment["kernels"]):
            return _train(cell, store, folder, environment, log_every, checkpoint_seconds, on_log)


def completed(cell: Cell, folder: Path) -> Trained | None:
    """Return the result of a finished training, after checking its hash; None when there is none.

    Damaged files are moved aside, so that the training is done again.
    """
    path, weights = folder / "training.json", folder / "weights.safetensors"
    if not path.exists():
        return None
    try:
        result = read_sealed(path)
        if result["digest"] != cell.digest:
            raise RecordError(f"{path}: belongs to cell {result['digest']}, not {cell.digest}")
        if result["weights_sha256"] and (
            not weights.exists() or sha256_of(weights) != result["weights_sha256"]
        ):
            raise RecordError(f"{weights}: cut or changed")
    except RecordError:
        for damaged in (path, weights):
            if damaged.exists():
                quarantine(damaged)
        return None
    names = [field.name for field in dataclasses.fields(Trained) if field.name != "folder"]
    return Trained(folder=folder, **{name: result[name] for name in names})


def device() -> torch.device:
    """Return the accelerator where there is one, else the processor; MAE_DEVICE=cpu forces it."""
    wish = os.environ.get("MAE_DEVICE", "cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wish)


def build_model(cell: Cell) -> MaskedAutoencoder:
    """Build the untrained model of a cell, initialised from its seed."""
    recipe = cell.recipe
    model = MaskedAutoencoder(
        model_shape(cell.model),
        pixels=cell.pixels,
        patch_size=cell.patch_size,
        keep=keep_count(cell.tokens, cell.mask_ratio, rule=recipe.keep_rule),
        norm_pix=recipe.norm_pix,
        decoder_dim=recipe.decoder_dim,
        decoder_depth=recipe.decoder_depth,
        decoder_heads=recipe.decoder_heads,
        compute_dtype=compute_dtype(recipe.precision),
    )
    return model.initialise(cell.seed)


def _environment(cell: Cell, folder: Path) -> dict:
    """Read the environment that a begun cell was trained in, or record this one."""
    path = folder / "cell.json"
    here = {
        "processor": processor(),
        "device": torch.cuda.get_device_name() if device().type == "cuda" else "cpu",
        "threads": int(os.environ.get("MAE_THREADS", available_cores())),
        "versions": versions(),
    }
    if path.exists():
        try:
            begun = read_sealed(path)
        except RecordError:
            begun = {}
            quarantine(path)
        if begun.get("digest", cell.digest) != cell.digest:
            raise RecordError(f"{path}: belongs to cell {begun['digest']}, not {cell.digest}")
        before = begun.get("environment", {})
        if all(before.get(key) == here[key] for key in ("processor", "device", "versions")):
            return before
        for state in sorted((folder / "state").glob("step-*")):
            state.unlink()
    here["kernels"] = choose.best()
    _describe(cell, folder, here)
    return here


def _describe(cell: Cell, folder: Path, environment: dict) -> None:
    """Write cell.json: settings, and what the bits depend on beside them."""
    about = {"id": cell.id, "digest": cell.digest, "settings": settings_of(cell)}
    write_sealed(folder / "cell.json", about | {"environment": environment})


@dataclass
class _Progress:
    """What changes from step to step, all of it in a checkpoint's meta or its tensors."""

    step: int
    logged_step: int
    total: float
    loss: float | None
    wall_s: float


def _train(cell, store, folder, environment, log_every, checkpoint_seconds, on_log) -> Trained:
    where, recipe, steps = device(), cell.recipe, planned_steps(cell)
    torch.use_deterministic_algorithms(True, warn_only=True)
    model = build_model(cell).to(where)
    if recipe.precision == "fp64":
        model = model.double()
    optimizer = build_optimizer(model, recipe)
    meta = restore_checkpoint(folder / "state", model, optimizer)
    progress = _Progress(**meta["progress"]) if meta else _Progress(0, 0, 0.0, None, 0.0)
    header = {"cell": cell.id, "digest": cell.digest, "steps": steps, "batch": recipe.batch_size}
    metrics = MetricsFile(folder / "metrics.jsonl", header=header, from_step=progress.step)
    dtype = torch.float64 if recipe.precision == "fp64" else torch.float32
    source = batches(cell, store, start=progress.step, stop=steps, device=where, dtype=dtype)
    parameters = [p for p in model.parameters() if p.requires_grad]
    total = torch.tensor(progress.total, device=where)
    wall_before, status = progress.wall_s, "complete"
    started = last_log = last_save = time.monotonic()

    model.train()
    with stopping() as stop:
        for batch in source:
            lr = _set_rate(optimizer, learning_rate(recipe, progress.step, steps))
            loss, norm = _step(model, optimizer, parameters, batch, recipe.clip_grad)
            total += loss
            progress.step += 1
            if progress.step % log_every == 0 or progress.step == steps:
                now = time.monotonic()
                passed = progress.step - progress.logged_step
                progress.loss = total.item() / passed
                row = {
                    "step": progress.step,
                    "images_seen": progress.step * recipe.batch_size,
                    "loss": _finite(progress.loss),
                    "lr": lr,
                    "grad_norm": _finite(norm.item()),
                    "images_per_s": passed * recipe.batch_size / (now - last_log),
                }
                metrics.append(**row)
                if on_log is not None:
                    on_log(row)
                if row["loss"] is None:
                    status = "diverged"
                    break
                total.zero_()
                progress.logged_step, last_log = progress.step, now
            if progress.step == steps:
                break
            if stop.requested or time.monotonic() - last_save >= checkpoint_seconds:
                progress.total = total.item()
                progress.wall_s = wall_before + time.monotonic() - started
                kept = {"digest": cell.digest, "progress": dataclasses.asdict(progress)}
                save_checkpoint(folder / "state", model, optimizer, step=progress.step, meta=kept)
                last_save = time.monotonic()
            if stop.requested:
                raise Interrupted(
                    f"{cell.id}: stopped by a signal after step {progress.step} of {steps}; "
                    "the state is saved, the same command goes on from there"
                )
    progress.wall_s = wall_before + time.monotonic() - started
    return _finish(cell, folder, environment, model, status, progress)


def _step(model, optimizer, parameters, batch, clip_grad) -> tuple[torch.Tensor, torch.Tensor]:
    """Forward, backward, clip, update; nothing here waits for the device."""
    loss = model(batch.pixels, batch.order)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(parameters, clip_grad or math.inf, foreach=True)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach().float(), norm.detach()


def _set_rate(optimizer: torch.optim.Optimizer, lr: float) -> float:
    for group in optimizer.param_groups:
        group["lr"] = lr
    return lr


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _finish(cell, folder, environment, model, status, progress) -> Trained:
    """Write the weights, then the sealed result that makes the training count as done."""
    weights = folder / "weights.safetensors"
    sha256 = None
    if status == "complete":
        write_tensors(weights, model.state_dict())
        sha256 = sha256_of(weights)
    trained = Trained(
        folder=folder,
        status=status,
        steps=progress.step,
        images_seen=progress.step * cell.recipe.batch_size,
        loss=progress.loss if status == "complete" else None,
        wall_s=progress.wall_s,
        environment=environment,
    )
    result = dataclasses.asdict(trained) | {"digest": cell.digest, "weights_sha256": sha256}
    result["metrics_sha256"] = sha256_of(folder / "metrics.jsonl")
    del result["folder"]
    write_sealed(folder / "training.json", result)
    for old in sorted((folder / "state").glob("step-*")) if status == "complete" else ():
        if ".corrupt" not in old.name:
            old.unlink()
    return trained
