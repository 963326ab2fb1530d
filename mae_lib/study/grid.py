"""From a grid as a study states it to the points of its cells, by either road (YAML or schema)."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from mae_lib.errors import StudyError
from mae_lib.study.definition import Cell, Data, Evaluation, Recipe
from mae_lib.study.models import require_decoder


@dataclass(frozen=True)
class Listed:
    """A cell named one by one."""

    model: str
    images: int
    resolution: int
    seed: int = 0


@dataclass(frozen=True)
class Block:
    """A product of its own inside a grid that is none; `patch_size` where a stem fixes it."""

    models: tuple[str, ...]
    images: tuple[int, ...]
    resolutions: tuple[int, ...]
    seeds: tuple[int, ...] = (0,)
    patch_size: int | None = None


@dataclass(frozen=True)
class Grid:
    """What a study states: a product, or `cells`, or `blocks` that may overlap.

    `patch_grid` ties the patch to the resolution, `patch_size` fixes it.
    """

    models: tuple[str, ...] = ()
    images: tuple[int, ...] = ()
    resolutions: tuple[int, ...] = ()
    seeds: tuple[int, ...] = (0,)
    cells: tuple[Listed, ...] = ()
    blocks: tuple[Block, ...] = ()
    patch_grid: int | None = None
    patch_size: int | None = None
    mask_ratio: float = 0.8


def cells_of(grid: Grid, *, recipe: Recipe, evaluation: Evaluation, data: Data) -> tuple[Cell, ...]:
    """Return the cells of a grid in its own order, each checked.

    Raises: StudyError for a cell that cannot be trained, or is listed twice.
    """
    cells = tuple(
        Cell(
            model=model,
            images=images,
            resolution=resolution,
            patch_size=patch or patch_of(resolution, grid.patch_grid),
            mask_ratio=grid.mask_ratio,
            seed=seed,
            recipe=recipe,
            evaluation=evaluation,
            data=data,
        )
        for model, images, resolution, seed, patch in _points(grid)
    )
    for cell in cells:
        check_cell(cell)
    if len({cell.id for cell in cells}) < len(cells):
        raise StudyError("grid: the same cell is listed twice")
    return cells


def _points(grid: Grid) -> Iterator[tuple[str, int, int, int, int | None]]:
    """Yield model, images, resolution, seed and patch (None: tied to the resolution).

    Blocks may overlap, so that a cross is written as its two arms: a point comes once, where it
    is met first.
    """
    for cell in grid.cells:
        yield cell.model, cell.images, cell.resolution, cell.seed, grid.patch_size
    if not grid.blocks:
        product = itertools.product(grid.models, grid.images, grid.resolutions, grid.seeds)
        yield from ((*point, grid.patch_size) for point in product)
    seen = set()
    for block in grid.blocks:
        axes = (block.models, block.images, block.resolutions, block.seeds)
        for point in itertools.product(*axes):
            if (full := (*point, block.patch_size or grid.patch_size)) not in seen:
                seen.add(full)
                yield full


def patch_of(resolution: int, patch_grid: int) -> int:
    """Return the patch that splits an image into `patch_grid` patches a side.

    Raises: StudyError when that is no whole number of pixels.
    """
    if resolution % patch_grid:
        raise StudyError(
            f"grid.patch_grid: {patch_grid} does not divide the resolution {resolution}; "
            "choose resolutions that are multiples of it, or give patch_size"
        )
    return resolution // patch_grid


def check_cell(cell: Cell) -> None:
    """Refuse a cell that cannot be trained as asked.

    Raises: StudyError.
    """
    require_decoder(cell.model, cell.recipe.decoder_dim, cell.recipe.decoder_heads)
    if cell.patch_size > cell.resolution:
        raise StudyError(
            f"resolution: must be at least the patch of {cell.patch_size} pixels, "
            f"got {cell.resolution}"
        )
    if cell.data.kind != "planned" and cell.resolution > cell.data.size:
        raise StudyError(
            f"resolution: the study stores {cell.data.size} pixels a side, got {cell.resolution}; "
            "more would be interpolated: ask for fewer, or raise data.size in a copy of the study"
        )
    if cell.images > cell.data.total:
        raise StudyError(
            f"images: the study's data holds {cell.data.total:,} images, got {cell.images:,}; "
            "ask for fewer, or raise data.total in a copy of the study"
        )
    kept = int(cell.tokens * (1 - cell.mask_ratio))
    if kept < 1 or kept >= cell.tokens:
        raise StudyError(
            f"mask_ratio: {cell.mask_ratio:g} of {cell.tokens} patches leaves {kept} visible; "
            "at least 1 must be visible and 1 masked: change it, the resolution or the patch"
        )
