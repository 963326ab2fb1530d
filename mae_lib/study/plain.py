"""A study read without pydantic: for a machine that has torch and little else.

It knows the fields of the dataclasses and their types, and no bounds: the schema (`load.py`) has
checked the file before it was committed, and the digests of `results/<study>/plan.json`, made by
that road, are compared with what is read here.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path

from mae_lib.errors import StudyError
from mae_lib.study import definition
from mae_lib.study.grid import Grid, cells_of
from mae_lib.study.pins import pinned
from mae_lib.study.suggest import nearest
from mae_lib.study.yaml_file import read_yaml, study_path

# Where the schema has a default and the dataclass none, or another; a test compares the two roads.
_DATA_DEFAULTS = {"size": 64, "seed": 0}
_SOURCES_DEFAULTS = {"twins": "drop", "set_aside_limit": 0.001}


def read_study(name_or_path: str | Path) -> definition.Study:
    """Read a study file.

    Raises: StudyError in one line: file, field, problem, value.
    """
    path = study_path(name_or_path)
    content = read_yaml(path)
    try:
        return _study(content)
    except StudyError as error:
        raise StudyError(f"{path}: {error}") from None


def _study(content: Mapping) -> definition.Study:
    if missing := [f for f in ("name", "question", "data", "grid", "law") if f not in content]:
        raise StudyError(f"{missing[0]}: missing, a study needs it")
    if content.get("format", 1) != 1:
        raise StudyError(f"format: 1 is read here, got {content['format']!r}")
    if not isinstance(content["data"], Mapping):
        raise StudyError(f"data: a mapping of fields was expected, got {content['data']!r}")
    defaults = _DATA_DEFAULTS | (
        _SOURCES_DEFAULTS if content["data"].get("kind") == "sources" else {}
    )
    data = pinned(_build(definition.Data, defaults | content["data"], "data"))
    # Sections of later versions that change no cell (how a cell is run, say) are passed over: the
    # digests tell whether one of them should not have been.
    return definition.Study(
        name=content["name"],
        question=content["question"],
        data=data,
        cells=cells_of(
            _build(Grid, content["grid"], "grid"),
            recipe=_build(definition.Recipe, content.get("recipe", {}), "recipe"),
            evaluation=_build(definition.Evaluation, content.get("evaluation", {}), "evaluation"),
            data=data,
        ),
        law=_build(definition.LawChoice, content["law"] | _protocol(content["law"]), "law"),
        targets=_value(tuple[definition.Target, ...], content.get("targets", ()), "targets"),
    )


def _protocol(law: Mapping) -> dict:
    return {} if "protocol" in law else {"protocol": "linear"}


def _build(kind: type, values: object, where: str):
    """Make a dataclass of a mapping, each value by its field's type."""
    if not isinstance(values, Mapping):
        raise StudyError(f"{where}: a mapping of fields was expected, got {values!r}")
    known = typing.get_type_hints(kind)
    if unknown := [name for name in values if name not in known]:
        hint = nearest(str(unknown[0]), known)
        raise StudyError(f"{where}.{unknown[0]}: unknown field, got {values[unknown[0]]!r}{hint}")
    required = [f.name for f in dataclasses.fields(kind) if _has_no_default(f)]
    if missing := [name for name in required if name not in values]:
        raise StudyError(f"{where}.{missing[0]}: missing, this needs it")
    return kind(**{n: _value(known[n], v, f"{where}.{n}") for n, v in values.items()})


def _has_no_default(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _value(kind: object, value: object, where: str):
    """Return a YAML value as a field's type: whole numbers become floats where floats belong."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in inner:
            return None
        return _value(next(k for k in inner if k is not type(None)), value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise StudyError(f"{where}: a list was expected, got {value!r}")
        return tuple(_value(inner[0], item, f"{where}.{i}") for i, item in enumerate(value))
    if dataclasses.is_dataclass(kind):
        return _build(kind, value, where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise StudyError(f"{where}: {kind.__name__} was expected, got {value!r}")
    return value
