"""JSON files that carry their own sha256, so that a flipped bit is found before it is believed."""

import hashlib
import json
from pathlib import Path

from mae_lib.errors import RecordError
from mae_lib.records.atomic import write_json
from mae_lib.study.definition import FORMAT, canonical_json


def write_sealed(path: Path, value: dict) -> None:
    """Write `value` with `format` and a seal: the sha256 of all the rest."""
    body = {"format": FORMAT, **value}
    write_json(path, {**body, "seal": seal_of(body)})


def read_sealed(path: Path) -> dict:
    """Read a sealed file.

    Raises: RecordError when it is missing, cut, or not what was written.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        seal = value.pop("seal")
    except FileNotFoundError:
        raise RecordError(f"{path}: missing; run the study again") from None
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        raise RecordError(f"{path}: cut or changed, it is no sealed JSON; {REMEDY}") from None
    if seal != seal_of(value):
        raise RecordError(f"{path}: changed after it was written, its seal differs; {REMEDY}")
    if value.get("format") != FORMAT:
        raise RecordError(f"{path}: format {FORMAT} is read here, got {value.get('format')!r}")
    return value


REMEDY = "delete it and run the study again: it is made anew"


def seal_of(value: dict) -> str:
    """Return the sha256 of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
