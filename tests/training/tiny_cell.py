"""The cell that the tests of training run: 16 patches, 24 steps, a tenth of a second."""

from mae_lib.study.definition import Cell, Data, Evaluation, Recipe, Source, Task
from mae_lib.training.metrics import read_metrics

DATA = Data("procedural", 60, 16, 0, (Source("objects", 1.0),), (Task("shapes", None, None, None,
            None, 60, 50),))  # fmt: skip
CELL = Cell("vit_pico", 50, 16, 4, 0.8, 3, Recipe(steps=24, batch_size=8, warmup_steps=4),
            Evaluation(), DATA)  # fmt: skip


def weights(folder):
    return (folder / "weights.safetensors").read_bytes()


def losses(folder):
    return [(r["step"], r["loss"], r["grad_norm"]) for r in read_metrics(folder / "metrics.jsonl")]
