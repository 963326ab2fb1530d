"""From a cell to its record: train if need be, evaluate beside both baselines, write it last."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from mae_lib.cost import cost_of
from mae_lib.evaluation.baselines import ensure_baselines
from mae_lib.evaluation.evaluate import evaluate
from mae_lib.evaluation.features import Encode, Features, encoder_on
from mae_lib.images.store import Store, build_store
from mae_lib.model.mae import MaskedAutoencoder
from mae_lib.records.locks import CELL_LOCK, locked
from mae_lib.records.provenance import commit
from mae_lib.records.sealed import read_sealed, write_sealed
from mae_lib.records.table import cell_columns
from mae_lib.study.definition import Cell
from mae_lib.study.execution import Execution
from mae_lib.study.paths import RunPaths, data_root
from mae_lib.training.loop import Trained, build_model, device, pretrain

Keep = Callable[[Encode, dict[str, Features]], None]


def open_images(cell: Cell, paths: RunPaths) -> Store:
    """Open the packed images of a cell, building them when this run folder has none."""
    return build_store(cell.data, paths.store(cell.data.digest), data_root=data_root())


def train_cell(cell: Cell, out: str, **options) -> Trained:
    """Train a cell into `runs/<out>/cells/<id>/`, or return what is there when complete."""
    paths = RunPaths.of(out)
    options = {"execution": execution_of(paths)} | options
    return pretrain(cell, open_images(cell, paths), paths.cell(cell.id), **options)


def execution_of(paths: RunPaths) -> Execution:
    """Return how the study of a run folder asks its cells to be run; the default outside of one."""
    if not (copy := paths.folder / "study.yaml").exists():
        return Execution()
    # Only here: a machine that reads no YAML has no pydantic either.
    from mae_lib.study.load import load_study

    return load_study(copy).execution


def trained_model(cell: Cell, trained: Trained) -> MaskedAutoencoder:
    """Load the weights that training left; evaluation runs in the precision of the recipe."""
    model = build_model(cell)
    model.load_state_dict(load_file(trained.folder / "weights.safetensors"))
    return model.eval()


def record_cell(cell: Cell, out: str, *, keep: Keep | None = None) -> dict:
    """Return the record of a cell, computing whatever of it is missing.

    The record is written last, by rename: where it exists, the cell is complete. Before that,
    `keep` gets the encoder and the features that were read out, `<task>-train` and `<task>-test`.
    """
    paths = RunPaths.of(out)
    path = paths.cell(cell.id) / "record.json"
    store = open_images(cell, paths)
    trained = pretrain(cell, store, paths.cell(cell.id), execution=execution_of(paths))
    with locked(paths.cell(cell.id) / CELL_LOCK):
        if not path.exists():
            write_sealed(path, _record(cell, store, trained, paths.baselines, keep))
    return read_sealed(path)


def _record(cell: Cell, store: Store, trained: Trained, baselines: Path, keep: Keep | None) -> dict:
    common = _common_columns(cell, store, trained)
    if trained.status != "complete":
        return {"id": cell.id, "digest": cell.digest, "status": trained.status, "rows": [common]}
    tasks = {task.name: store.task(task.name) for task in cell.data.tasks}
    where = device()
    encode = encoder_on(trained_model(cell, trained).to(where).encode, where)
    features: dict[str, Features] = {}
    scores = evaluate(
        encode,
        tasks,
        cell.evaluation,
        pixels=cell.pixels,
        on_features=None if keep is None else features.__setitem__,
    )
    if keep is not None:
        keep(encode, features)
    beside = ensure_baselines(cell, tasks, baselines, where=where)
    rows = []
    for score in scores:
        rows.append(common | score | beside[score["task"], score["protocol"]])
    return {
        "id": cell.id,
        "digest": cell.digest,
        "status": trained.status,
        "environment": trained.environment,
        "rows": rows,
    }


def _common_columns(cell: Cell, store: Store, trained: Trained) -> dict:
    cost = cost_of(cell)
    native = np.minimum(store.native_sides[store.subset(cell.images, cell.seed)], cell.pixels)
    return cell_columns(cell) | {
        "params_encoder": cost.params_encoder,
        "params_total": cost.params_total,
        "effective_resolution": round(float(native.mean()), 2),
        "images_seen": trained.images_seen,
        "loss": trained.loss,
        "flops": cost.flops_per_image * trained.images_seen,
        "wall_s": round(trained.wall_s, 3),
        "device": trained.environment["device"],
        "commit": commit(),
        "status": trained.status,
    }
