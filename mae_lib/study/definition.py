"""A study and its cells as plain frozen dataclasses: what every layer below the edge receives.

The YAML schema (`schema.py`, pydantic) checks a file and hands these over, so that a machine
with torch alone can run cells.
"""

import functools
import hashlib
import json
from dataclasses import dataclass, field, fields, is_dataclass

from mae_lib.study.execution import Execution

FORMAT = 1


def added(since: int, default: object):
    """A field that came after format 1, with the default that says what was done before it.

    At its default it is left out of settings and digests, so that cells trained before it keep
    their identity.
    """
    return field(default=default, metadata={"since": since})


@dataclass(frozen=True)
class Source:
    """One part of the mixture: a WebDataset tar under MAE_DATA, a procedural family, or, with
    kind "sources", any layout of `known.LAYOUTS`.

    `layout` and `path` (below MAE_DATA, or absolute) say where it is; without them it is looked for
    under MAE_DATA by its name. `split` names the publisher's splits that are used, as
    "training+validation". `listing` is the sha256 of its list of images, which pins them
    (`mae data sources` prints it).
    """

    name: str
    share: float
    file: str | None = None
    sha256: str | None = None
    layout: str | None = added(since=2, default=None)
    path: str | None = added(since=2, default=None)
    split: str = added(since=2, default="train")
    listing: str | None = added(since=2, default=None)


@dataclass(frozen=True)
class Task:
    """Labelled images held out from pretraining: a training part for the probes and a test part.

    With tars, `train` and `test` are file names; with procedural images, `train_images` and
    `test_images` say how many are drawn. With kind "sources", a task names one of the mixture's
    sources (`source`) or a `layout` and `path` of its own, and the splits; `train_images` and
    `test_images` then bound how many are taken.
    """

    name: str
    train: str | None = None
    test: str | None = None
    train_sha256: str | None = None
    test_sha256: str | None = None
    train_images: int | None = None
    test_images: int | None = None
    source: str | None = added(since=2, default=None)
    layout: str | None = added(since=2, default=None)
    path: str | None = added(since=2, default=None)
    train_split: str = added(since=2, default="train")
    test_split: str = added(since=2, default="test")


@dataclass(frozen=True)
class Data:
    """Where images come from. `size` is the stored side in pixels, `seed` keys what is drawn.

    `smaller` are further stored sides, made from `size` by one antialiased filter. `decoder` is
    the road from JPEG to pixels. `twins` says whether images that evaluation shows too are kept in
    pretraining, `set_aside_limit` which share may be left out because it cannot be decoded.
    `shortfall` says what happens when a source has too few images: "error", "rescale" (the largest
    total in these proportions) or "repeat" (its images several times, counted in the manifest).
    """

    kind: str
    total: int
    size: int
    seed: int
    sources: tuple[Source, ...]
    tasks: tuple[Task, ...]
    smaller: tuple[int, ...] = added(since=2, default=())
    decoder: str = added(since=2, default="pillow")
    twins: str = added(since=2, default="keep")
    set_aside_limit: float = added(since=2, default=0.0)
    shortfall: str = added(since=2, default="error")

    @property
    def digest(self) -> str:
        """12 hex digits over everything that decides the stored bytes."""
        return digest_of(settings_of(self))


@dataclass(frozen=True)
class Recipe:
    """How a cell is trained. Sizes in images, `base_lr` per 256 images, `clip_grad` 0 = off.

    `max_flops` bounds the training of one cell: a cell that would cost more is trained for fewer
    steps, and its record says so (`mae_lib.training.recipe.planned_steps`). `crop` is the arithmetic
    of the resize: `float`, or `integer` as Pillow's, with equal bits on every device. `residual` is
    where the stream between blocks is kept: in the dtype of products (`compute`), or in `fp32`.
    """

    steps: int = 400
    batch_size: int = 128
    base_lr: float = 2.0e-3
    weight_decay: float = 0.05
    warmup_steps: int = 40
    precision: str = "fp32"
    crop_min: float = 0.2
    flip: bool = True
    norm_pix: bool = True
    clip_grad: float = 0.0
    keep_rule: str = "reference"
    max_flops: float = 2.0e13
    decoder_dim: int | None = None
    decoder_depth: int | None = None
    decoder_heads: int | None = None
    crop: str = added(since=2, default="float")
    residual: str = added(since=2, default="compute")


@dataclass(frozen=True)
class Evaluation:
    """The probes: neighbours counted, ridge strengths tried on the training part, folds."""

    neighbours: int = 20
    temperature: float = 0.07
    folds: int = 5
    random_seeds: int = 3


@dataclass(frozen=True)
class LawChoice:
    """What the law is fitted to: one task and protocol, and the laws side by side."""

    task: str
    protocol: str
    laws: tuple[str, ...]
    bootstrap: int = 2000


@dataclass(frozen=True)
class Target:
    """A point that the law is asked about."""

    name: str
    images: float
    params_encoder: float
    resolution: float


@dataclass(frozen=True)
class Cell:
    """One training run. `seed` picks the nested subset, the initialisation, crops and masks."""

    model: str
    images: int
    resolution: int
    patch_size: int
    mask_ratio: float
    seed: int
    recipe: Recipe
    evaluation: Evaluation
    data: Data

    @functools.cached_property
    def digest(self) -> str:
        """12 hex digits over everything that can change the result."""
        return digest_of(settings_of(self))

    @property
    def id(self) -> str:
        """A readable, safe name: `vit_nano-p4-n1000-r32-m80-s0-1a2b3c`."""
        mask = f"{self.mask_ratio * 100:g}".replace(".", "_")
        return (
            f"{self.model}-p{self.patch_size}-n{self.images}-r{self.resolution}"
            f"-m{mask}-s{self.seed}-{self.digest[:6]}"
        )

    @property
    def pixels(self) -> int:
        """Side in pixels that the encoder gets: a resolution that the patch does not divide is
        rounded down to whole patches (226 px at patch 16 is 224)."""
        return self.resolution - self.resolution % self.patch_size

    @property
    def tokens(self) -> int:
        """Patches an image, without the class token."""
        return (self.resolution // self.patch_size) ** 2


@dataclass(frozen=True)
class Study:
    """A grid of cells with the question it answers. `execution` is in no digest."""

    name: str
    question: str
    data: Data
    cells: tuple[Cell, ...]
    law: LawChoice
    targets: tuple[Target, ...] = field(default=())
    execution: Execution = field(default_factory=Execution)

    def cell(self, cell_id: str) -> Cell:
        """Look a cell up by its id; raises KeyError."""
        return {cell.id: cell for cell in self.cells}[cell_id]


def settings_of(value: object) -> object:
    """Return a dataclass as plain values, the fields `added` later only where they differ from
    their default: what a digest covers, and what cell.json and a manifest keep."""
    if is_dataclass(value):
        pairs = ((f, getattr(value, f.name)) for f in fields(value))
        return {
            f.name: settings_of(v)
            for f, v in pairs
            if not ("since" in f.metadata and v == f.default)
        }
    if isinstance(value, tuple | list):
        return [settings_of(item) for item in value]
    return value


def canonical_json(value: object) -> str:
    """One spelling for equal values: sorted keys, no spaces, integral floats as floats."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest_of(value: object) -> str:
    """12 hex digits of sha256 over canonical JSON and the format version."""
    text = canonical_json({"format": FORMAT, "value": value})
    return hashlib.sha256(text.encode()).hexdigest()[:12]
