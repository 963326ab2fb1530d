"""Read a study from YAML, or a cell from a notebook's namespace; one line for what is wrong."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ValidationError

from mae_lib.errors import StudyError
from mae_lib.study import definition, known, schema
from mae_lib.study.execution import Execution
from mae_lib.study.grid import cells_of, check_cell
from mae_lib.study.known import require_known
from mae_lib.study.paths import RunPaths, safe_name
from mae_lib.study.pins import pinned
from mae_lib.study.suggest import nearest
from mae_lib.study.yaml_file import read_yaml, study_path


def load_study(name_or_path: str | Path) -> definition.Study:
    """Read and check a study file.

    Raises: StudyError in one line: file, field, problem, value.
    """
    path = study_path(name_or_path)
    fields = _checked(schema.StudyFile, read_yaml(path), str(path))
    try:
        return _study(fields)
    except StudyError as error:
        raise StudyError(f"{path}: {error}") from None


def _study(fields: schema.StudyFile) -> definition.Study:
    require_known("law.laws", fields.law.laws, known.LAWS)
    targets = [target.name for target in fields.targets]
    require_known("targets", targets, targets)
    if fields.data.kind == "procedural":
        families = [source.name for source in fields.data.sources]
        require_known("data.sources", families, known.FAMILIES)
    data = pinned(schema.plain_data(fields.data))
    recipe = schema.plain(fields.recipe, definition.Recipe)
    evaluation = schema.plain(fields.evaluation, definition.Evaluation)
    grid = schema.plain_grid(fields.grid)
    cells = cells_of(grid, recipe=recipe, evaluation=evaluation, data=data)
    return definition.Study(
        name=fields.name,
        question=fields.question,
        data=data,
        cells=cells,
        law=schema.plain(fields.law, definition.LawChoice),
        targets=tuple(schema.plain(target, definition.Target) for target in fields.targets),
        execution=schema.plain(fields.execution, Execution),
    )


def cell_from_namespace(namespace: Mapping[str, object]) -> tuple[definition.Cell, str]:
    """Check a notebook's parameters, all of them, and return the cell and its run folder's name.

    Takes the scalars of the namespace: `study` (defaults come from its first cell), `out`, the
    fields of a cell, of the recipe and of the evaluation. `patch_size=None` follows the study.

    Raises: StudyError for an unknown name (with the nearest known one), a wrong type or a value
    out of range.
    """
    given = _scalars(namespace)
    cell_names = set(schema.CellFields.model_fields)
    recipe_names = set(schema.RecipeFields.model_fields)
    known = cell_names | recipe_names | {"study", "out"}
    _refuse_unknown(given, known)
    for name in ("study", "out"):
        safe_name(given.get(name), name)
    study = _study_named(given["study"], given["out"])
    fields = _checked(schema.CellFields, _only(given, cell_names), "parameters")
    recipe = {f.name: getattr(study.cells[0].recipe, f.name) for f in _fields(definition.Recipe)}
    recipe |= {k: v for k, v in _only(given, recipe_names).items() if v is not None}
    recipe = _checked(schema.RecipeFields, recipe, "parameters")
    cell = definition.Cell(
        model=fields.model,
        images=fields.images,
        resolution=fields.resolution,
        patch_size=fields.patch_size or _study_patch(study, fields.model, fields.resolution),
        mask_ratio=fields.mask_ratio,
        seed=fields.seed,
        recipe=schema.plain(recipe, definition.Recipe),
        evaluation=study.cells[0].evaluation,
        data=study.data,
    )
    check_cell(cell)
    return cell, given["out"]


def study_from_namespace(namespace: Mapping[str, object]) -> tuple[definition.Study, str]:
    """Check the parameters of a notebook about a whole study: `study` and `out` only."""
    given = _scalars(namespace)
    _refuse_unknown(given, {"study", "out"})
    for name in ("study", "out"):
        safe_name(given.get(name), name)
    return _study_named(given["study"], given["out"]), given["out"]


def parameters_of(namespace: Mapping[str, object], known: set[str]) -> dict[str, object]:
    """Return the plain parameters of a notebook that is about no study, unknown names refused."""
    given = _scalars(namespace)
    _refuse_unknown(given, known)
    return given


def _study_named(name: str, out: str) -> definition.Study:
    """Load a notebook's study: the one that its run folder was started with, else studies/NAME."""
    copy = RunPaths.of(out).folder / "study.yaml"
    if copy.exists() and (study := load_study(copy)).name == name:
        return study
    return load_study(name)


def _study_patch(study: definition.Study, model: str, resolution: int) -> int:
    same = [cell for cell in study.cells if cell.resolution == resolution]
    # A hybrid's stem fixes its patch: a cell of the same model tells more than any other.
    for cell in sorted(same, key=lambda cell: cell.model != model):
        return cell.patch_size
    first = study.cells[0]
    tied = len({cell.patch_size for cell in study.cells}) > 1
    side = first.resolution // first.patch_size
    if not tied:
        return first.patch_size
    if resolution < side or resolution % side:
        raise StudyError(
            f"resolution: the study splits every image into {side} x {side} patches, which "
            f"{resolution} pixels do not allow; give patch_size, or a multiple of {side}"
        )
    return resolution // side


def _scalars(namespace: Mapping[str, object]) -> dict[str, object]:
    return {
        name: value
        for name, value in namespace.items()
        if not name.startswith("_")
        and name not in _SHELL_NAMES
        and (value is None or isinstance(value, bool | int | float | str | list | dict | tuple))
    }


# What IPython itself puts into a notebook's namespace.
_SHELL_NAMES = {"In", "Out", "exit", "quit", "get_ipython", "open"}


def _refuse_unknown(given: Mapping[str, object], known: set[str]) -> None:
    if unknown := sorted(set(given) - known):
        more = f" (+{len(unknown) - 1} more)" if len(unknown) > 1 else ""
        raise StudyError(
            f"parameters: {unknown[0]}: unknown name, got {given[unknown[0]]!r}"
            f"{nearest(unknown[0], known)}{more}"
        )


def _only(given: Mapping[str, object], names: set[str]) -> dict[str, object]:
    return {name: value for name, value in given.items() if name in names}


def _fields(kind: type) -> tuple[dataclasses.Field, ...]:
    return dataclasses.fields(kind)


def _checked(model: type[BaseModel], values: dict, where: str):
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first, *rest = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        field = ".".join(str(part) for part in first["loc"]) or "study"
        problem = first["msg"].removeprefix("Value error, ")
        got = "" if first["type"] == "value_error" else f", got {first['input']!r}"
        if first["type"] == "extra_forbidden":
            problem = "unknown field"
            got += nearest(str(first["loc"][-1]), _siblings(model, first["loc"]))
        more = f" (+{len(rest)} more)" if rest else ""
        raise StudyError(f"{where}: {field}: {problem}{got}{more}") from None


def _siblings(model: type[BaseModel], location: tuple) -> list[str]:
    """The known fields where an unknown one was found."""
    for part in location[:-1]:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        kinds = [a for a in (annotation, *getattr(annotation, "__args__", ())) if _is_model(a)]
        if not kinds:
            break
        model = kinds[0]
    return list(model.model_fields)


def _is_model(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
