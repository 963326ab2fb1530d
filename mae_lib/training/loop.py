"""Train one cell: the same bits however often it is cut, and never again once it is done."""

import contextlib
import dataclasses
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from mae_lib.cost import cost_of
from mae_lib.errors import Interrupted
from mae_lib.images.store import Store
from mae_lib.kernels import choose
from mae_lib.model.mae import MaskedAutoencoder, compute_dtype, residual_dtype
from mae_lib.model.masking import keep_count
from mae_lib.records.locks import CELL_LOCK, locked
from mae_lib.study.definition import Cell
from mae_lib.study.execution import Execution
from mae_lib.study.models import model_shape
from mae_lib.training.anchor_loss import predict_mean_loss
from mae_lib.training.batches import Batch, batches
from mae_lib.training.checkpoint import restore_checkpoint, save_checkpoint
from mae_lib.training.environment import (
    device,
    environment_for,
    kernels_for,
    write_description,
)
from mae_lib.training.events import Events
from mae_lib.training.finished import Trained, completed, finish, noting_failure, sweep
from mae_lib.training.graph import whole_step
from mae_lib.training.launch import train_on_devices, wait_for_orphans
from mae_lib.training.metrics import KNN_KEYS, MetricsFile
from mae_lib.training.monitor import knn_is_due, knn_row
from mae_lib.training.pace import Pace, gemm_ceiling
from mae_lib.training.recipe import build_optimizer, learning_rate, planned_steps
from mae_lib.training.resident import Draws
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
    bits could not be kept. A gradient that is not finite is not applied, and ends the run with
    status `diverged`.

    Raises: Interrupted after SIGTERM or Ctrl-C, once the state is saved; RecordError when the
    folder belongs to another cell; BusyError when another process trains it and `wait` is False;
    OutOfMemory when not one image fits.
    """
    with locked(folder / CELL_LOCK, wait=wait):
        wait_for_orphans(folder)
        done = completed(cell, folder)
        sweep(folder, complete=done is not None and done.status == "complete")
        if done is not None:
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
    environment = environment_for(cell, folder, world, execution)
    torch.set_num_threads(environment["threads"])
    kernels = kernels_for(cell.recipe, environment["kernels"], world.device)
    with choose.using(kernels), noting_failure(folder):
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
        residual_dtype=residual_dtype(recipe.residual, recipe.precision),
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
    micro_batch: int | None = None


class _Trainer:
    """One training under way: what a step, a log line and a checkpoint act upon."""

    def __init__(self, run: Run):
        self.run, self.steps = run, planned_steps(run.cell)
        wanted = run.execution.tensorboard and run.world.writes
        self.events = Events(run.folder / "events") if wanted else None
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
        meta = restore_checkpoint(
            run.folder / "state",
            self.model,
            self.optimizer,
            run.world,
            digest=run.cell.digest,
        )
        self.progress = Progress(**meta["progress"]) if meta else Progress()
        self.start, self.lr, self.norm = self.progress.step, 0.0, None
        self.total = torch.tensor(self.progress.total, device=self.device, dtype=run.dtype)
        # What did not fit before the run was cut does not fit now.
        limits = [n for n in (run.execution.micro_batch, self.progress.micro_batch) if n]
        self.step = Step(
            module,
            self.optimizer,
            clip_grad=recipe.clip_grad,
            micro_batch=min(limits, default=None),
            done=self.start,
            may_halve=run.world.size == 1,
        )
        # On CUDA the whole step runs on the device, from the crop on; None elsewhere.
        wanted = run.execution.graph and run.world.size == 1
        self.whole = whole_step(run.cell, run.store, self.step) if wanted else None
        product = self.model.compute_dtype or run.dtype
        cost, ceiling = cost_of(run.cell), gemm_ceiling(self.device, product)
        self.pace = Pace(self.device, flops_per_image=cost.flops_per_image, ceiling=ceiling)
        with contextlib.closing(self.batches(0, 1)) as first:
            nothing_known = predict_mean_loss(self.model, next(first))
        header = {
            "cell": run.cell.id,
            "digest": run.cell.digest,
            "steps": self.steps,
            "batch": recipe.batch_size,
            "predict_mean_loss": nothing_known,
            "gemm_flops_per_s": round(ceiling),
        }
        self.metrics = self.knn = None
        if run.world.writes:
            place = {"header": header, "from_step": self.start}
            self.metrics = MetricsFile(run.folder / "metrics.jsonl", **place)
            if run.execution.knn_every:
                self.knn = MetricsFile(run.folder / "knn.jsonl", **place, keys=KNN_KEYS)
        self.begun_at, self.wall_before = time.monotonic(), self.progress.wall_s
        self.last_log = self.last_save = time.monotonic()

    def batches(self, start: int, stop: int, workers: int = 0) -> Iterator[Batch]:
        """Return this rank's part of the batches of steps `start` to `stop`."""
        run, place = self.run, {"device": self.device, "dtype": self.run.dtype}
        place["rows"] = run.world.rows(run.cell.recipe.batch_size)
        return batches(run.cell, run.store, start=start, stop=stop, workers=workers, **place)

    def source(self) -> Iterator[Batch] | Iterator[Draws]:
        """Return what training goes through: batches, or on CUDA what they are drawn from."""
        if self.whole is not None:
            return self.whole.tables(self.start, self.steps)
        return self.batches(self.start, self.steps, self.run.execution.workers)

    def update(self, batch: Batch | Draws) -> None:
        """Take one step at its learning rate."""
        begun, before = time.perf_counter(), self.step.micro_batch
        self.lr = learning_rate(self.run.cell.recipe, self.progress.step, self.steps)
        if self.whole is not None:
            loss, self.norm = self.whole(batch, self.lr)
        else:
            for group in self.optimizer.param_groups:
                group["lr"] = self.lr
            loss, self.norm = self.step(batch)
        self.total += loss
        self.progress.step += 1
        self.pace.worked(time.perf_counter() - begun)
        if self.step.micro_batch != before:
            self._tell_smaller(self.step.micro_batch)

    def _tell_smaller(self, micro_batch: int) -> None:
        self.progress.micro_batch = micro_batch
        after = self.progress.step - 1
        self.metrics.tell("out of memory", after_step=after, micro_batch=micro_batch)
        _say(
            f"{self.run.cell.id}: out of memory in step {after + 1}: {micro_batch} images at once "
            f"from here on, {self.run.cell.recipe.batch_size} a step as before"
        )

    def log(self) -> dict:
        """Wait for the device, write one line of the loss curve and return it."""
        progress, begun = self.progress, time.perf_counter()
        passed = progress.step - progress.logged_step
        progress.loss = self.run.world.mean(self.total).item() / passed
        self.pace.worked(time.perf_counter() - begun, waited=True)
        images, now = self.run.cell.recipe.batch_size, time.monotonic()
        row = {
            "step": progress.step,
            "images_seen": progress.step * images,
            "loss": _finite(progress.loss),
            "lr": self.lr,
            "grad_norm": _finite(self.norm.item()),
            "images_per_s": passed * images / (now - self.last_log),
        } | self.pace.row(passed * images // self.run.world.size)
        self._write(self.metrics, row)
        self.total.zero_()
        progress.logged_step, self.last_log = progress.step, now
        return row

    def score(self) -> None:
        """Write a line of the k-NN curve."""
        # On every rank: where each holds a part of the model, all take part in encoding.
        row = knn_row(self.run.cell, self.run.store, self.model, self.progress.step)
        self._write(self.knn, row)

    def _write(self, curve: MetricsFile | None, row: dict) -> None:
        if curve is not None:
            curve.append(**row)
        if self.events is not None:
            self.events.log(row)

    def failed(self) -> bool:
        """Whether an update was skipped; waits for the device."""
        return bool(self.step.failed.item())

    def save(self) -> None:
        """Write a checkpoint of this step."""
        self.progress.total = self.run.world.mean(self.total).item()
        self.note_time()
        self._save(self.progress)
        self.last_save = time.monotonic()

    def save_last_good(self) -> dict:
        """Write the state before the first skipped update; say and return where that was."""
        good = self.start + int(self.step.applied.item())
        lr = learning_rate(self.run.cell.recipe, good, self.steps)
        self._save(
            dataclasses.replace(self.progress, step=good, logged_step=good, total=0.0, loss=None)
        )
        if self.run.world.writes:
            _say(
                f"{self.run.cell.id}: diverged: the gradient of step {good + 1} is not finite, at "
                f"learning rate {lr:.3g}; its update was skipped and the state before it is kept. "
                "Lower base_lr, set clip_grad, or take precision fp32"
            )
        return {"diverged": {"step": good + 1, "lr": lr}}

    def _save(self, progress: Progress) -> None:
        meta = {"digest": self.run.cell.digest, "progress": dataclasses.asdict(progress)}
        state = self.run.folder / "state"
        world, step = self.run.world, progress.step
        save_checkpoint(state, self.model, self.optimizer, step=step, meta=meta, world=world)

    def note_time(self) -> None:
        """Bring the wall clock of the whole training, over all its parts, up to date."""
        self.progress.wall_s = self.wall_before + time.monotonic() - self.begun_at

    def close(self) -> None:
        """Write out what is buffered."""
        if self.events is not None:
            self.events.close()


def _train(run: Run, log_every: int, checkpoint_seconds: float, on_log) -> Trained:
    trainer = _Trainer(run)
    progress, every = trainer.progress, run.execution.knn_every
    trainer.model.train()
    source = trainer.source()
    agreed = Agreement(run.world)
    # torchrun passes a signal on to ranks that the cluster has told already.
    stops = stopping(second_ends=run.world.size == 1)
    with contextlib.closing(trainer), contextlib.closing(source), stops as stop:
        for batch in trainer.pace.waiting(source):
            trainer.update(batch)
            last = progress.step == trainer.steps
            stopped = due = False
            if not last:
                due = time.monotonic() - trainer.last_save >= checkpoint_seconds
                stopped, due = agreed(stop=stop.requested, save=due)
            # After a failure nothing is saved: where one shows at a save, it is logged.
            broken = (stopped or due) and trainer.failed()
            if progress.step % log_every == 0 or last or broken:
                row = trainer.log()
                if on_log is not None:
                    on_log(row)
                if row["loss"] is None or trainer.failed():
                    return _end(trainer, "diverged")
            if knn_is_due(run.cell, progress.step, every=every):
                trainer.score()
            if stopped or due:
                trainer.save()
            if stopped:
                raise Interrupted(
                    f"{run.cell.id}: stopped by a signal after step {progress.step} of "
                    f"{trainer.steps}; the state is saved, the same command goes on from there"
                )
    return _end(trainer, "complete")


def _end(trainer: _Trainer, status: str) -> Trained:
    """Write what the training leaves."""
    trainer.note_time()
    run, progress = trainer.run, trainer.progress
    notes = {} if progress.micro_batch is None else {"micro_batch": progress.micro_batch}
    if status == "diverged" and trainer.failed():
        notes |= trainer.save_last_good()
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
    if run.world.size > 1:
        notes |= {"devices": run.world.size, "sharding": run.execution.sharding}
    return finish(run.cell, trained, tensors, notes=notes)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
