"""Devices to price a cell on, and how a model that one of them cannot hold is spread over many.

A plan is arithmetic on sizes: nothing here says that such a training was run.
"""

from dataclasses import dataclass

from mae_lib.cost import Cost, cost_of
from mae_lib.errors import StudyError
from mae_lib.study.definition import Cell
from mae_lib.study.models import model_shape
from mae_lib.study.suggest import nearest

# What is left for tensors beside the allocator's holes, workspaces and the communication buffers.
USABLE = 0.9
# Tensor parallelism stays inside a node of eight, where links are fast.
NODE = 8
# Parameters and gradients of the block at work and of the one fetched meanwhile, 16 bits each.
GATHERED_BYTES = 8
_MOST_DEVICES = 2**20


# Planned, not measured: narrow encoders are bound by memory traffic and launches, convolutions on
# small images too. Share of the peak by width of the encoder, and of one with a stem.
SMALL_UTILISATION = {192: 0.15, 384: 0.25}
WIDE_UTILISATION, STEM_UTILISATION = 0.40, 0.20
# Probes, features and a picture after training, on the accelerator's host and on a processor.
READOUT_SECONDS, READOUT_SECONDS_CPU = 6.0, 20.0


@dataclass(frozen=True)
class Device:
    """Dense peak of matrix products in FLOP/s, memory, and the share of the peak that is reached.

    `bytes_per_value` of activations: 2 in 16-bit arithmetic, 4 in fp32.
    """

    name: str
    peak_flops: float
    memory_bytes: float
    utilisation: float
    source: str
    bytes_per_value: int = 2


DEVICES: dict[str, Device] = {
    "h200": Device("NVIDIA H200", 989e12, 141e9, 0.40, "assumed, as large trainings reach"),
    "h100": Device("NVIDIA H100", 989e12, 80e9, 0.40, "assumed, as large trainings reach"),
    # 1,980 images/s of ViT-B/16 at 224 px a device.
    "a100": Device("NVIDIA A100", 312e12, 80e9, 0.36, "DailyMAE (arXiv 2404.00509)"),
    # 313 images/s of ViT-B/16 at 224 px a device.
    "a6000": Device("NVIDIA RTX A6000", 155e12, 48e9, 0.12, "ConvMAE, issue 5"),
    # 106 images/s of ViT-L/16 at 224 px a device, its 42 hours on 64 of them.
    "v100": Device("NVIDIA V100", 125e12, 32e9, 0.10, "facebookresearch/mae, PRETRAIN.md"),
    # 55.9 images/s of ViT-S/8 at 64 px; the memory is a laptop's.
    "cpu": Device("one core with AVX-512", 0.2e12, 16e9, 0.67, "benchmarks/README.md", 4),
}


@dataclass(frozen=True)
class Parallelism:
    """A spread that fits: devices = tensor_parallel x fsdp, each group of tensor_parallel devices
    on `micro_batch` images at a time."""

    devices: int
    tensor_parallel: int
    fsdp: int
    micro_batch: int
    recompute: bool
    bytes_per_device: float

    def __str__(self) -> str:
        if self.devices == 1:
            spread = "one device"
        elif self.tensor_parallel == 1:
            spread = f"FSDP {self.fsdp}"
        else:
            spread = f"TP {self.tensor_parallel} x FSDP {self.fsdp} = {self.devices} devices"
        return spread + (", activations recomputed" if self.recompute else "")


def device_named(name: str) -> Device:
    """Look a device up by name.

    Raises: StudyError naming the nearest known one.
    """
    if name not in DEVICES:
        raise StudyError(f"device: unknown, got {name!r}{nearest(name, DEVICES)}")
    return DEVICES[name]


def hours(cost: Cost, device: Device, images_seen: float) -> float:
    """Return device-hours of training on `images_seen` images."""
    return cost.gpu_hours(images_seen, peak=device.peak_flops, utilisation=device.utilisation)


def cell_seconds(cell: Cell, *, cores: int | None = None) -> float:
    """Return the seconds planned for training and reading out one cell.

    On one H100, at the share of its peak that encoders of that width are planned with; on `cores`
    of a processor where that is given. A plan from counted FLOPs, to be corrected by what is met.
    """
    work = cost_of(cell).flops_per_image * cell.recipe.steps * cell.recipe.batch_size
    work = min(work, cell.recipe.max_flops)
    if cores is not None:
        cpu = DEVICES["cpu"]
        return work / (cpu.peak_flops * cpu.utilisation * cores) + READOUT_SECONDS_CPU
    shape = model_shape(cell.model)
    share = SMALL_UTILISATION.get(shape.embed_dim, WIDE_UTILISATION)
    share = STEM_UTILISATION if shape.stem else share
    return work / (DEVICES["h100"].peak_flops * share) + READOUT_SECONDS


def devices_for(size_bytes: float, device: Device) -> int:
    """Return how many devices' whole memories hold so many bytes, and nothing else."""
    return int(-(-size_bytes // device.memory_bytes))


def spread(cost: Cost, device: Device) -> Parallelism:
    """Return the fewest devices, a power of two, on which a model trains on one image at least.

    Weights, gradients and moments are cut over all of them (FSDP); activations and the weights
    gathered for a block over the tensor-parallel group. Plainer is preferred: no recomputation
    before recomputation, no tensor parallelism before it.
    Raises: StudyError when even a million devices do not hold it.
    """
    usable, devices = USABLE * device.memory_bytes, 1
    while devices <= _MOST_DEVICES:
        for recompute in (False, True):
            for tensor_parallel in (1, NODE) if devices >= NODE else (1,):
                fixed, image = _needs(cost, device, devices, tensor_parallel, recompute)
                if fixed + image <= usable:
                    batch = int((usable - fixed) // image)
                    return Parallelism(
                        devices,
                        tensor_parallel,
                        devices // tensor_parallel,
                        batch,
                        recompute,
                        fixed + batch * image,
                    )
        devices *= 2
    raise StudyError(f"device: {_MOST_DEVICES:,} of {device.name} do not hold this model")


def _needs(
    cost: Cost, device: Device, devices: int, tensor_parallel: int, recompute: bool
) -> tuple[float, float]:
    """Return bytes a device without any image, and bytes that one image adds."""
    fixed = cost.state_bytes / devices
    if devices > 1:
        fixed += GATHERED_BYTES * cost.params_block / tensor_parallel
    kept = cost.activation_bytes_per_image
    if recompute:
        kept = cost.checkpointed_bytes_per_image + cost.block_bytes_per_image
    return fixed, kept * device.bytes_per_value / 2 / tensor_parallel
