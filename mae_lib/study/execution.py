"""How a cell is run on this machine, as against what is computed."""

from dataclasses import dataclass

SHARDINGS = ("ddp", "fsdp2")


@dataclass(frozen=True)
class Execution:
    """Splits and conveniences: they may move the last bits of a result, and nothing beyond.

    Never part of a digest; cell.json records them with the environment. `micro_batch` is in images
    (None: the whole batch at once), `workers` are processes that load images, `devices` over one
    are started under torchrun and hold the model by `sharding`. `knn_every` is in epochs (0: never)
    and writes knn.jsonl, `tensorboard` writes events/, both beside the cell's metrics.jsonl.
    `graph` lets a step on CUDA be one replayed graph over images that stay on the device.
    """

    micro_batch: int | None = None
    workers: int = 0
    checkpoint_activations: bool = False
    devices: int = 1
    sharding: str = "ddp"
    knn_every: int = 0
    tensorboard: bool = False
    graph: bool = True
