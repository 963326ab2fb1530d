"""The edge: a YAML file or a notebook's namespace becomes a Study or a Cell, or one clear line.

Bounds live here and nowhere else. The JSON Schema of `StudyFile` is `studies/study.schema.json`.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mae_lib.study import definition, grid
from mae_lib.study.known import LAWS, LAYOUTS, LAYOUTS_OF
from mae_lib.study.models import MODELS

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,79}$")]
Share = Annotated[float, Field(gt=0, le=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,119}$")]
Layout = Annotated[str, Field(json_schema_extra={"enum": list(LAYOUTS)})]
# Where a source lies: below MAE_DATA, or absolute. The ids of cells hold it, so keep it relative.
Place = Annotated[str, Field(pattern=r"^[^\x00-\x1f\\]{1,500}$")]
Splits = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+(\+[A-Za-z0-9_-]+)*$")]
ModelName = Annotated[str, Field(json_schema_extra={"enum": sorted(MODELS)})]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, values):
        for name, value in values.items() if isinstance(values, dict) else ():
            field = cls.model_fields.get(name)
            if isinstance(value, bool) and field and field.annotation is not bool:
                raise ValueError(f"{name}: a number or a name was expected, got {value!r}")
        return values


class CellFields(_Strict):
    """The science of one cell in plain scalars: the parameters of notebooks 02 and 03."""

    model: ModelName = "vit_nano"
    images: int = Field(1000, ge=1, le=10_000_000)
    resolution: int = Field(32, ge=2, le=8192)
    patch_size: int | None = Field(None, ge=1, le=256)
    mask_ratio: float = Field(0.8, gt=0, lt=1)
    seed: int = Field(0, ge=0, lt=2**31)


class RecipeFields(_Strict):
    """How every cell is trained."""

    steps: int = Field(400, ge=1, le=10_000_000)
    batch_size: int = Field(128, ge=1, le=65536)
    base_lr: float = Field(2.0e-3, gt=0, le=1)
    weight_decay: float = Field(0.05, ge=0, le=1)
    warmup_steps: int = Field(40, ge=0)
    precision: Literal["fp32", "bf16", "fp64", "fp8"] = "fp32"
    crop_min: float = Field(0.2, gt=0, le=1)
    flip: bool = True
    norm_pix: bool = True
    clip_grad: float = Field(0.0, ge=0)
    keep_rule: Literal["reference", "exact"] = "reference"
    max_flops: float = Field(2.0e13, gt=0)
    decoder_dim: int | None = Field(None, ge=4, multiple_of=4)
    decoder_depth: int | None = Field(None, ge=1)
    decoder_heads: int | None = Field(None, ge=1)
    crop: Literal["float", "integer"] = "float"
    residual: Literal["compute", "fp32"] = "compute"

    @model_validator(mode="after")
    def _fits_together(self):
        if self.decoder_dim and self.decoder_heads and self.decoder_dim % self.decoder_heads:
            raise ValueError("decoder_heads must divide decoder_dim")
        return self


class SourceFields(_Strict):
    """One part of the mixture."""

    name: Name
    share: Share
    file: FileName | None = None
    sha256: Sha256 | None = None
    layout: Layout | None = None
    path: Place | None = None
    split: Splits = "train"
    listing: Sha256 | None = None


class TaskFields(_Strict):
    """Labelled images for the probes: files, or how many to draw."""

    name: Name
    train: FileName | None = None
    test: FileName | None = None
    train_sha256: Sha256 | None = None
    test_sha256: Sha256 | None = None
    train_images: int | None = Field(None, ge=50)
    test_images: int | None = Field(None, ge=50)
    source: Name | None = None
    layout: Layout | None = None
    path: Place | None = None
    train_split: Splits = "train"
    test_split: Splits = "test"


class DataFields(_Strict):
    """The images of a study."""

    kind: Literal["procedural", "tars", "sources", "planned"]
    total: int = Field(ge=1, le=100_000_000)
    size: int = Field(64, ge=4, le=4096)
    seed: int = Field(0, ge=0, lt=2**31)
    sources: tuple[SourceFields, ...] = Field(min_length=1)
    tasks: tuple[TaskFields, ...] = Field(min_length=1)
    shortfall: Literal["error", "rescale", "repeat"] = "error"
    smaller: tuple[Annotated[int, Field(ge=2, le=4096)], ...] = ()
    decoder: Literal["pillow", "fast"] = "pillow"
    # What kind sources does where the study says nothing; the older kinds do as they did.
    twins: Literal["drop", "keep"] | None = None
    set_aside_limit: float | None = Field(None, ge=0, le=1)

    @model_validator(mode="after")
    def _packing_fits_the_kind(self):
        if wrong := [s for s in self.smaller if s >= self.size]:
            raise ValueError(f"smaller: sides below size {self.size} were expected, got {wrong[0]}")
        if len(set(self.smaller)) < len(self.smaller):
            raise ValueError("smaller: the same side is given twice")
        if self.kind in ("procedural", "planned"):
            named = [n for n in ("twins", "set_aside_limit") if getattr(self, n) is not None]
            named += ["decoder"] * (self.decoder != "pillow")
            if named:
                raise ValueError(f"{named[0]}: for photographs only, kind is {self.kind}")
        return self

    @model_validator(mode="after")
    def _fits_together(self):
        total = sum(source.share for source in self.sources)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares of the sources must sum to 1, got {total:g}")
        for group in (self.sources, self.tasks):
            names = [item.name for item in group]
            if len(set(names)) < len(names):
                raise ValueError(f"names must differ, got {', '.join(names)}")
        if self.kind == "tars":
            if missing := [source.name for source in self.sources if not source.file]:
                raise ValueError(f"kind tars needs `file` in each source; {missing[0]} has none")
            if missing := [task.name for task in self.tasks if not (task.train and task.test)]:
                raise ValueError(f"kind tars needs `train` and `test` in task {missing[0]}")
        if self.kind == "procedural" and (
            missing := [t.name for t in self.tasks if not (t.train_images and t.test_images)]
        ):
            raise ValueError(
                f"kind procedural needs `train_images` and `test_images` in task {missing[0]}"
            )
        return self

    @model_validator(mode="after")
    def _places_fit_the_kind(self):
        if self.kind == "sources":
            _require_places(self.sources, self.tasks)
            return self
        for item in (*self.sources, *self.tasks):
            for name in _PLACES & set(type(item).model_fields):
                if getattr(item, name) != type(item).model_fields[name].default:
                    raise ValueError(f"{item.name}: `{name}` is for kind sources only")
        return self


_PLACES = {"layout", "path", "split", "listing", "source", "train_split", "test_split"}


def _require_places(sources: tuple[SourceFields, ...], tasks: tuple[TaskFields, ...]) -> None:
    """Refuse what kind sources cannot look for; raises ValueError."""
    names = [source.name for source in sources]
    known = {*LAYOUTS, *LAYOUTS_OF}
    for item in (*sources, *tasks):
        if item.layout is not None and item.layout not in LAYOUTS:
            raise ValueError(f"{item.name}: layout: unknown, got {item.layout!r}; {_of(LAYOUTS)}")
        source = getattr(item, "source", None)
        if source is not None and source not in names:
            raise ValueError(f"{item.name}: source: none of {', '.join(names)}, got {source!r}")
        if not (source or item.layout or item.path or item.name in known):
            raise ValueError(
                f"{item.name}: no known set; give its layout and path ({_of(LAYOUTS)})"
            )
    for item, wrong in [(s, s.file) for s in sources] + [(t, t.train or t.test) for t in tasks]:
        if wrong:
            raise ValueError(f"{item.name}: {wrong}: kind sources takes `path`, not file names")


def _of(names: tuple[str, ...]) -> str:
    return "one of " + ", ".join(names)


class ListedCell(_Strict):
    """A cell named one by one, where the grid is no product."""

    model: ModelName
    images: int = Field(ge=1)
    resolution: int = Field(ge=2, le=8192)
    seed: int = Field(0, ge=0, lt=2**31)


class GridBlock(_Strict):
    """A product of its own inside a grid that is none; `patch_size` where a stem fixes it."""

    models: tuple[ModelName, ...] = Field(min_length=1)
    images: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)
    resolutions: tuple[Annotated[int, Field(ge=2, le=8192)], ...] = Field(min_length=1)
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = (0,)
    patch_size: int | None = Field(None, ge=1, le=256)


class GridFields(_Strict):
    """models x images x resolutions x seeds, or listed cells, or blocks that may overlap.

    `patch_grid` ties the patch to the resolution (patch = resolution / patch_grid), so that every
    cell has as many tokens; `patch_size` fixes the patch instead.
    """

    models: tuple[ModelName, ...] = ()
    images: tuple[Annotated[int, Field(ge=1)], ...] = ()
    resolutions: tuple[Annotated[int, Field(ge=2, le=8192)], ...] = ()
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = (0,)
    cells: tuple[ListedCell, ...] = ()
    blocks: tuple[GridBlock, ...] = ()
    patch_grid: int | None = Field(None, ge=1, le=1024)
    patch_size: int | None = Field(None, ge=1, le=256)
    mask_ratio: float = Field(0.8, gt=0, lt=1)

    @model_validator(mode="after")
    def _fits_together(self):
        if bool(self.patch_grid) == bool(self.patch_size):
            raise ValueError("give either patch_grid or patch_size")
        ways = (self.cells, self.blocks, self.models and self.images and self.resolutions)
        if sum(map(bool, ways)) != 1:
            raise ValueError("give either models, images and resolutions, or cells, or blocks")
        return self


class EvaluationFields(_Strict):
    """The probes."""

    neighbours: int = Field(20, ge=1, le=1000)
    temperature: float = Field(0.07, gt=0)
    folds: int = Field(5, ge=2, le=20)
    random_seeds: int = Field(3, ge=1, le=10)


class LawFields(_Strict):
    """What the law is fitted to."""

    task: Name
    protocol: Literal["linear", "knn"] = "linear"
    laws: tuple[Annotated[str, Field(json_schema_extra={"enum": list(LAWS)})], ...] = Field(
        min_length=1
    )
    bootstrap: int = Field(2000, ge=100, le=100_000)


class TargetFields(_Strict):
    """A point that the laws are asked about."""

    name: Name
    images: float = Field(gt=0)
    params_encoder: float = Field(gt=0)
    resolution: float = Field(gt=0)


class ExecutionFields(_Strict):
    """How cells are run: splits and conveniences that move the last bits of a result at most."""

    micro_batch: int | None = Field(None, ge=1, le=65536)
    workers: int = Field(0, ge=0, le=64)
    checkpoint_activations: bool = False
    devices: int = Field(1, ge=1, le=1024)
    sharding: Literal["ddp", "fsdp2"] = "ddp"
    knn_every: int = Field(0, ge=0)
    tensorboard: bool = False
    graph: bool = True


class StudyFile(_Strict):
    """A study as its YAML file declares it."""

    format: Literal[1] = 1
    name: Name
    question: str = Field(min_length=8, max_length=500)
    data: DataFields
    grid: GridFields
    recipe: RecipeFields = RecipeFields()
    evaluation: EvaluationFields = EvaluationFields()
    law: LawFields
    targets: tuple[TargetFields, ...] = ()
    execution: ExecutionFields = ExecutionFields()

    @model_validator(mode="after")
    def _fits_together(self):
        if self.law.task not in (names := [task.name for task in self.data.tasks]):
            raise ValueError(f"law.task {self.law.task!r} is none of data.tasks {names}")
        if self.recipe.batch_size % self.execution.devices:
            raise ValueError(
                f"execution.devices {self.execution.devices} must divide recipe.batch_size "
                f"{self.recipe.batch_size}: every device takes equally many images of a batch"
            )
        return self


def plain(fields: BaseModel, kind: type):
    """Turn checked fields into the frozen dataclass of the same name."""
    return kind(**{name: getattr(fields, name) for name in type(fields).model_fields})


def plain_data(fields: DataFields) -> definition.Data:
    """Turn checked data fields into `definition.Data`."""
    return definition.Data(
        kind=fields.kind,
        total=fields.total,
        size=fields.size,
        seed=fields.seed,
        sources=tuple(plain(source, definition.Source) for source in fields.sources),
        tasks=tuple(plain(task, definition.Task) for task in fields.tasks),
        shortfall=fields.shortfall,
        smaller=fields.smaller,
        decoder=fields.decoder,
        twins=fields.twins or ("drop" if fields.kind == "sources" else "keep"),
        set_aside_limit=_limit(fields),
    )


def plain_grid(fields: GridFields) -> grid.Grid:
    """Turn checked grid fields into `grid.Grid`."""
    values = {name: getattr(fields, name) for name in GridFields.model_fields}
    values["cells"] = tuple(plain(cell, grid.Listed) for cell in fields.cells)
    values["blocks"] = tuple(plain(block, grid.Block) for block in fields.blocks)
    return grid.Grid(**values)


def _limit(fields: DataFields) -> float:
    """The share of images that may be set aside: one in a thousand of a publisher's whole set."""
    if fields.set_aside_limit is None:
        return 0.001 if fields.kind == "sources" else 0.0
    return fields.set_aside_limit
