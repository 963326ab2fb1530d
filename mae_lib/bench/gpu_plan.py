"""What `bench gpu` does, in the order of its worth: a run that is cut keeps the most wanted."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

# The section of gpu.json that a stage fills, the worker's function of the same name fills it.
STAGES = (
    "provenance",
    "ceilings",
    "tests",
    "throughput",
    "peers",
    "kernels",
    "ablation",
    "sdpa",
    "profile",
    "fields",
    "together",
    "cell",
    "compiled",
)
# `compiled` takes what is left of the first half: compiling takes up to a minute a setting.
HALVES = {
    1: (*STAGES[:6], "compiled"),
    2: ("provenance", "ceilings", *STAGES[6:-1]),
}


@dataclass(frozen=True)
class Task:
    """One piece of work of a stage, its arguments plain values, and the seconds it may take."""

    stage: str
    name: str
    limit_s: float
    arguments: dict = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Unique in a plan."""
        return f"{self.stage}/{self.name}" if self.name else self.stage

    def as_dict(self) -> dict:
        """As the worker reads it."""
        return {"id": self.id, "stage": self.stage, "arguments": self.arguments}


@dataclass(frozen=True)
class Setting:
    """A model, its decoder (dim, depth, heads; None: the model's own), and a batch that fits."""

    model: str
    patch_size: int
    resolution: int
    batch: int
    stored: int
    decoder: tuple[int, int, int] | None = None

    @property
    def name(self) -> str:
        """As in `vit_small-p16-r64-512x8`."""
        decoder = f"-{self.decoder[0]}x{self.decoder[1]}" if self.decoder else ""
        return f"{self.model}-p{self.patch_size}-r{self.resolution}{decoder}"


# The table. `stored` is the side of the images on the device, cropped from.
S16 = Setting("vit_small", 16, 64, 4096, 64, (512, 8, 16))
TI4 = Setting("vit_tiny", 4, 32, 4096, 64)
S8 = Setting("vit_small", 8, 64, 2048, 64)
B16 = Setting("vit_base", 16, 224, 512, 256)
L16 = Setting("vit_large", 16, 256, 256, 256)
HYBRID = Setting("vit_hybrid", 16, 224, 128, 256)
SETTINGS = (S16, B16, L16, TI4, S8, HYBRID)
# Each peer's own loop is timed on these.
PEERS = (S16, B16, L16)
DRY = Setting("vit_pico", 4, 16, 8, 20)

KERNELS = ("crop", "norm", "gelu", "loss", "attention")
ABLATED = (TI4, S8, B16)
PROFILED = (TI4, S8, B16)
COMPILED = (S16, B16, TI4, S8, L16, HYBRID)
TOGETHER = (1, 2, 4)


def plan(
    *,
    dry: bool,
    half: int | None = None,
    images: Path | None = None,
    stages: tuple[str, ...] = (),
) -> list[Task]:
    """List the tasks of a run: those of a half, or of chosen stages, or all."""
    wanted = stages or (HALVES[half] if half else STAGES)
    if "provenance" not in wanted:
        wanted = ("provenance", *wanted)
    folder = str(images.resolve()) if images else None
    return [task for stage in wanted for task in _TASKS[stage](dry, folder)]


def _once(stage: str, limit_s: float):
    return lambda dry, images: [Task(stage, "", limit_s, {"dry": dry})]


def _of(settings: tuple[Setting, ...], dry: bool) -> tuple[Setting, ...]:
    return (DRY,) if dry else settings


def _arguments(setting: Setting, dry: bool, **more) -> dict:
    return {"setting": dataclasses.asdict(setting), "dry": dry, **more}


def _throughput(dry: bool, images: str | None) -> list[Task]:
    # Ours and graph-only of one setting share a task: they share the images on the device.
    modes = ("eager", "graph", "ours")
    return [
        Task("throughput", s.name, 75, _arguments(s, dry, modes=modes)) for s in _of(SETTINGS, dry)
    ]


def _peers(dry: bool, images: str | None) -> list[Task]:
    return [Task("peers", s.name, 75, _arguments(s, dry, images=images)) for s in _of(PEERS, dry)]


def _kernels(dry: bool, images: str | None) -> list[Task]:
    return [Task("kernels", name, 45, {"operation": name, "dry": dry}) for name in KERNELS]


def _ablation(dry: bool, images: str | None) -> list[Task]:
    return [
        Task("ablation", s.name, 90, _arguments(s, dry, kernels=KERNELS)) for s in _of(ABLATED, dry)
    ]


def _profile(dry: bool, images: str | None) -> list[Task]:
    return [Task("profile", s.name, 45, _arguments(s, dry)) for s in _of(PROFILED, dry)]


def _compiled(dry: bool, images: str | None) -> list[Task]:
    return [
        Task("compiled", s.name, 150, _arguments(s, dry, modes=("compiled",)))
        for s in _of(COMPILED, dry)
    ]


def _fields(dry: bool, images: str | None) -> list[Task]:
    settings = (DRY,) if dry else (S8, L16)
    return [Task("fields", s.name, 90, _arguments(s, dry)) for s in settings]


def _together(dry: bool, images: str | None) -> list[Task]:
    counts = (2,) if dry else TOGETHER
    return [Task("together", str(n), 60, {"at_once": n, "dry": dry}) for n in counts]


def _cell(dry: bool, images: str | None) -> list[Task]:
    return [Task("cell", "", 120, {"images": images, "dry": dry})]


_TASKS = {
    "provenance": _once("provenance", 60),
    "ceilings": _once("ceilings", 40),
    "tests": _once("tests", 120),
    "throughput": _throughput,
    "peers": _peers,
    "kernels": _kernels,
    "ablation": _ablation,
    "sdpa": _once("sdpa", 110),
    "profile": _profile,
    "fields": _fields,
    "together": _together,
    "cell": _cell,
    "compiled": _compiled,
}
