"""Train one cell: the same bits however often it is cut, and never again once it is done."""

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from mae_lib.errors import Interrupted
from mae_lib.images.store import Store
from mae_lib.kernels import choose
from mae_lib.model.mae import MaskedAutoencoder, compute_dtype
from mae_lib.model.masking import keep_count
from mae_lib.records.locks import locked
from mae_lib.study.definition import Cell
from mae_lib.study.execution import Execution
from mae_lib.study.models import model_shape
from mae_lib.training.batches import batches
from mae_lib.training.checkpoint import restore_checkpoint, save_checkpoint
from mae_lib.training.environment import device, environment_for, write_description
from mae_lib.training.finished import Trained, completed, finish
from mae_lib.training.launch import train_on_devices
from mae_lib.training.metrics import MetricsFile
from mae_lib.training.recipe import build_optimizer, learning_rate, planned_steps
from mae_lib.training.signals import stopping
from mae_lib.training.step import Step
from mae_lib.training.world import Agreement, World, alone, spread, whole

LOG_EVERY = 20
CHECKPOINT_SECONDS = 20.0


def pretrain(
    cell: Cell,
    store: Store,
    folder: Path,
    *,
    execution: Execution | None = None,
    log_every: int = LOG_EVERY,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    on_log: Callable[[dict], None] | None = None,
    wait: bool = True,
) -> Trained:
    """Train `cell` on its subset of `store` into `folder`, or return what is there when complete.

    Writes cell.json, metrics.jsonl, state/ (checkpoints) and at last weights.safetensors and
    training.json. A cut run goes on from its last checkpoint with the recorded threads and
    kernels; a run begun on another processor or with other libraries starts over, because its
    bits could not be kept. A gradient that is not finite ends the run with status `diverged`.

    Raises: Interrupted after SIGTERM or Ctrl-C, once the state is saved; RecordError when the
    folder belongs to another cell; BusyError when another process trains it and `wait` is False.
    """
    with locked(folder / ".lock", wait=wait):
        if (done := completed(cell, folder)) is not None:
            if not (folder / "cell.json").exists():
                write_description(cell, folder, done.environment)
            return done
        execution = execution or Execution()
        if execution.devices > 1:
            rhythm = {"log_every": log_every, "checkpoint_seconds": checkpoint_seconds}
            return train_on_devices(cell, store.folder, folder, execution, rhythm)
        world = alone(device())
        return train(cell, store, folder, execution, world, log_every, checkpoint_seconds, on_log)


def train(
    cell: Cell,
    store: Store,
    folder: Path,
    execution: Execution,
    world: World,
    log_every: int = LOG_EVERY,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    on_log: Callable[[dict], None] | None = None,
) -> Trained:
    """Train as one of the world's processes, the cell's lock being held."""
    environment = environment_for(cell, folder, world)
    torch.set_num_threads(environment["threads"])
    with choose.using(environment["kernels"]):
        run = Run(cell, store, folder, execution, environment, world)
        return _train(run, log_every, checkpoint_seconds, on_log)


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


@dataclass(frozen=True)
class Run:
    """What is trained, from what, to where, and how."""

    cell: Cell
    store: Store
    folder: Path
    execution: Execution
    environment: dict
    world: World

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of master weights, losses and targets."""
        return torch.float64 if self.cell.recipe.precision == "fp64" else torch.float32


@dataclass
class Progress:
    """What changes from step to step, all of it in a checkpoint's meta or its tensors."""

    step: int = 0
    logged_step: int = 0
    total: float = 0.0
    loss: float | None = None
    wall_s: float = 0.0


class _Trainer:
    """One training under way: what a step, a log line and a checkpoint act upon."""

    def __init__(self, run: Run):
        self.run, self.steps = run, planned_steps(run.cell)
        torch.use_deterministic_algorithms(True, warn_only=True)
        self.device, recipe = run.world.device, run.cell.recipe
        self.model = build_model(run.cell).to(run.dtype)
        module = spread(
            self.model,
            run.world,
            sharding=run.execution.sharding,
            checkpoint_activations=run.execution.checkpoint_activations,
        )
        self.optimizer = build_optimizer(self.model, recipe)
        meta = restore_checkpoint(run.folder / "state", self.model, self.optimizer, run.world)
        self.progress = Progress(**meta["progress"]) if meta else Progress()
        self.begun_at, self.wall_before = time.monotonic(), self.progress.wall_s
        self.total = torch.tensor(self.progress.total, device=self.device, dtype=run.dtype)
        self.step = Step(
            module,
            self.optimizer,
            clip_grad=recipe.clip_grad,
            micro_batch=run.execution.micro_batch,
        )
        self.start, self.lr, self.norm = self.progress.step, 0.0, None
        header = {
            "cell": run.cell.id,
            "digest": run.cell.digest,
            "steps": self.steps,
            "batch": recipe.batch_size,
        }
        if run.world.writes:
            self.metrics = MetricsFile(
                run.folder / "metrics.jsonl", header=header, from_step=self.start
            )
        self.last_log = self.last_save = time.monotonic()

    def batches(self):
        """Return the batches that are still to come."""
        run = self.run
        place = {"device": self.device, "dtype": run.dtype}
        place["rows"] = run.world.rows(run.cell.recipe.batch_size)
        return batches(run.cell, run.store, start=self.start, stop=self.steps, **place)

    def update(self, batch) -> None:
        """Take one step at its learning rate."""
        self.lr = learning_rate(self.run.cell.recipe, self.progress.step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
        loss, self.norm = self.step(batch)
        self.total += loss
        self.progress.step += 1

    def log(self) -> dict:
        """Wait for the device, write one line of the loss curve and return it."""
        progress, now = self.progress, time.monotonic()
        passed = progress.step - progress.logged_step
        progress.loss = self.run.world.mean(self.total).item() / passed
        images = self.run.cell.recipe.batch_size
        row = {
            "step": progress.step,
            "images_seen": progress.step * images,
            "loss": _finite(progress.loss),
            "lr": self.lr,
            "grad_norm": _finite(self.norm.item()),
            "images_per_s": passed * images / (now - self.last_log),
        }
        if self.run.world.writes:
            self.metrics.append(**row)
        self.total.zero_()
        progress.logged_step, self.last_log = progress.step, now
        return row

    def save(self) -> None:
        """Write a checkpoint of this step."""
        self.progress.total = self.run.world.mean(self.total).item()
        self.note_time()
        meta = {
            "digest": self.run.cell.digest,
            "progress": dataclasses.asdict(self.progress),
        }
        state = self.run.folder / "state"
        save_checkpoint(
            state,
            self.model,
            self.optimizer,
            step=self.progress.step,
            meta=meta,
            world=self.run.world,
        )
        self.last_save = time.monotonic()

    def note_time(self) -> None:
        """Bring the wall clock of the whole training, over all its parts, up to date."""
        self.progress.wall_s = self.wall_before + time.monotonic() - self.begun_at


def _train(run: Run, log_every: int, checkpoint_seconds: float, on_log) -> Trained:
    trainer = _Trainer(run)
    progress, status = trainer.progress, "complete"
    trainer.model.train()
    agreed = Agreement(run.world)
    # torchrun passes a signal on to ranks that the cluster has told already.
    with stopping(second_ends=run.world.size == 1) as stop:
        for batch in trainer.batches():
            trainer.update(batch)
            if progress.step % log_every == 0 or progress.step == trainer.steps:
                row = trainer.log()
                if on_log is not None:
                    on_log(row)
                if row["loss"] is None:
                    status = "diverged"
                    break
            if progress.step == trainer.steps:
                break
            due = time.monotonic() - trainer.last_save >= checkpoint_seconds
            stopped, due = agreed(stop=stop.requested, save=due)
            if stopped or due:
                trainer.save()
            if stopped:
                raise _interrupted(trainer)
    trainer.note_time()
    trained = Trained(
        folder=run.folder,
        status=status,
        steps=progress.step,
        images_seen=progress.step * run.cell.recipe.batch_size,
        loss=progress.loss if status == "complete" else None,
        wall_s=progress.wall_s,
        environment=run.environment,
    )
    tensors = whole(trainer.model)
    if not run.world.writes:
        return trained
    spread_over = {"devices": run.world.size, "sharding": run.execution.sharding}
    return finish(run.cell, trained, tensors, notes=spread_over if run.world.size > 1 else {})


def _interrupted(trainer: _Trainer) -> Interrupted:
    return Interrupted(
        f"{trainer.run.cell.id}: stopped by a signal after step {trainer.progress.step} of "
        f"{trainer.steps}; the state is saved, the same command goes on from there"
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
