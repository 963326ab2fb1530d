"""A cell read back from the settings that its cell.json keeps."""

from collections.abc import Mapping

from mae_lib.errors import RecordError
from mae_lib.study.definition import Cell, Data, Evaluation, Recipe, Source, Task


def cell_from_settings(settings: Mapping, digest: str) -> Cell:
    """Rebuild a cell from `settings_of(cell)` read from JSON.

    Raises: RecordError when fields are missing or unknown, or its digest is not `digest`: settings
    of another version of the format.
    """
    try:
        data = dict(settings["data"])
        data["sources"] = tuple(Source(**source) for source in data["sources"])
        data["tasks"] = tuple(Task(**task) for task in data["tasks"])
        data["smaller"] = tuple(data.get("smaller", ()))
        parts = {
            "recipe": Recipe(**settings["recipe"]),
            "evaluation": Evaluation(**settings["evaluation"]),
            "data": Data(**data),
        }
        cell = Cell(**{**settings, **parts})
    except (KeyError, TypeError) as error:
        raise RecordError(f"settings: not those of a cell, got {error}") from None
    if cell.digest != digest:
        raise RecordError(f"settings: of cell {cell.digest}, not {digest}: another format")
    return cell
