"""Read a table of runs from CSV or Parquet, with a small YAML beside it that says what is what.

`runs.csv` may lie beside `runs.yaml` (or `runs.yml`). All keys are optional; what a caller gives
overrides them:

    response: acc1_max                # the column to explain
    factors: [hours, n_params, res]   # what explains it; logs are taken
    clusters: subset                  # runs with the same label share data: resampled whole
    cells: [arch, res, data_frac]     # runs alike in these repeat one cell; default all factors
    kind: accuracy                    # accuracy | error | loss; default from the name, and said
    trials: n_eval                    # images scored, for the binomial objective
    units: {acc1_max: percent, hours: h}   # `percent`, `%` or `fraction` counts for the response
    roles: {parameters: n_params, data: hours, resolution: res, epochs: epochs, compute: flops}
    source: github.com/owner/name, commit    # for readers
    licence: MIT                             # for readers

Rows are numbered as a person sees them: in a CSV the header is row 1; a Parquet has no header, so
its first run is row 1. A table has at most 10,000 rows and 64 MiB: it holds runs, not steps.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from mae_lib.errors import FitError
from mae_lib.scaling.table import ROLES, Table, check_table
from mae_lib.study.suggest import nearest

MAX_ROWS = 10_000
MAX_BYTES = 64 * 2**20
_TEXTS = ("response", "clusters", "kind", "trials", "source", "licence")
_LISTS = ("factors", "cells")
_MAPPINGS = ("units", "roles")
KEYS = (*_TEXTS, *_LISTS, *_MAPPINGS)
_LIMIT = f"a table of runs has at most {MAX_ROWS:,} rows and {MAX_BYTES // 2**20} MiB"


@dataclass(frozen=True)
class Sheet:
    """A file as read: its frame, the visible number of the first run, and the YAML beside it."""

    frame: pd.DataFrame
    name: str
    first_row: int
    fields: Mapping[str, object] = field(default_factory=dict)


def read_table(
    path: str | Path,
    *,
    response: str | None = None,
    factors: Sequence[str] | None = None,
    clusters: str | None = None,
    cells: Sequence[str] | None = None,
    kind: str | None = None,
    unit: str | None = None,
    trials: str | None = None,
    roles: Mapping[str, str] | None = None,
    allow_repeats: bool = False,
) -> Table:
    """Read and check a table; what is given here goes before what the YAML beside it says.

    Raises: FitError in one line, naming file, column and row.
    """
    sheet = read_sheet(path)
    said = sheet.fields
    response = response or said.get("response")
    factors = factors or said.get("factors")
    for key, value in (("response", response), ("factors", factors)):
        if not value:
            raise FitError(
                f"{path}: {key}: not given; use --{key}, or write {key} in "
                f"{Path(path).with_suffix('.yaml').name}"
            )
    units = said.get("units", {})
    return check_table(
        sheet.frame,
        response=response,
        factors=factors,
        clusters=clusters or said.get("clusters"),
        cells=cells or said.get("cells"),
        kind=kind or said.get("kind"),
        unit=unit or _unit_in(units.get(response, "")),
        trials=trials or said.get("trials"),
        roles={**said.get("roles", {}), **(roles or {})},
        name=sheet.name,
        first_row=sheet.first_row,
        allow_repeats=allow_repeats,
    )


def _unit_in(text: str) -> str | None:
    """Find percent or fraction in a unit's words; other words are for readers."""
    if "%" in text or "percent" in text.lower():
        return "percent"
    return "fraction" if "fraction" in text.lower() else None


def read_sheet(path: str | Path) -> Sheet:
    """Read a CSV or a Parquet (told apart by its first bytes) and the YAML beside it.

    Raises: FitError in one line.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise FitError(f"{path}: is a folder; give a CSV or a Parquet")
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(4096)
    except FileNotFoundError:
        beside = [p.name for p in path.parent.glob("*") if p.suffix in (".csv", ".parquet", ".pq")]
        hint = nearest(path.name, beside) if beside else ""
        raise FitError(f"{path}: no such file{hint}") from None
    except OSError as error:
        raise FitError(f"{path}: cannot be read, got {error.strerror}") from None
    if size == 0:
        raise FitError(f"{path}: is empty")
    if size > MAX_BYTES:
        raise FitError(f"{path}: is too large: {size:,} bytes; {_LIMIT}")
    fields = _read_fields(path)
    if head.startswith(b"PAR1"):
        return Sheet(_read_parquet(path), str(path), 1, fields)
    if head.startswith((b"PK\x03\x04", b"\x1f\x8b", b"BZh", b"\x28\xb5\x2f\xfd")) or b"\0" in head:
        raise FitError(f"{path}: is neither CSV nor Parquet (a workbook or an archive?); export it")
    return Sheet(_read_csv(path), str(path), 2, fields)


def _read_csv(path: Path) -> pd.DataFrame:
    """Check a CSV row by row, let pandas parse it, and keep the row numbers of the file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise FitError(
            f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from None
    rows = csv.reader(io.StringIO(text, newline=""))
    kept, numbers = io.StringIO(), []
    writer = csv.writer(kept)
    try:
        names = [name.strip() for name in next(rows, [])]
        _check_header(path, names)
        writer.writerow(names)
        for number, row in enumerate(rows, start=2):
            values = [value.strip() for value in row]
            if not any(values):
                continue
            if len(row) != len(names):
                raise FitError(
                    f"{path}: row {number}: has {len(row)} values, the header has {len(names)}"
                )
            if len(numbers) == MAX_ROWS:
                raise FitError(f"{path}: row {number}: is too many; {_LIMIT}")
            writer.writerow(values)
            numbers.append(number)
    except csv.Error as error:
        raise FitError(f"{path}: cannot be read as CSV, got {error}") from None
    kept.seek(0)
    frame = pd.read_csv(kept, index_col=False, low_memory=False)
    return frame.set_index(pd.Index([number - 2 for number in numbers], dtype="int64"))


def _check_header(path: Path, names: list[str]) -> None:
    if not any(names):
        raise FitError(f"{path}: row 1: is no header: it is blank")
    if len(names) == 1:
        for sign, called in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
            if sign in names[0]:
                raise FitError(f"{path}: row 1: has {called} between its columns; use commas")
    if "" in names:
        raise FitError(f"{path}: row 1: column {names.index('') + 1} has no name")
    for name in names:
        if names.count(name) > 1:
            raise FitError(f"{path}: row 1: column {name!r} is given twice")


def _read_parquet(path: Path) -> pd.DataFrame:
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        if file.metadata.num_rows > MAX_ROWS:
            raise FitError(f"{path}: has {file.metadata.num_rows:,} rows; {_LIMIT}")
        _check_header(path, file.schema_arrow.names)
        for column in file.schema_arrow:
            if pyarrow.types.is_nested(column.type):
                raise FitError(f"{path}: {column.name}: holds lists or structs; leave it out")
        return file.read().to_pandas().reset_index(drop=True)
    except (pyarrow.ArrowException, OSError) as error:
        raise FitError(f"{path}: cannot be read as Parquet, got {error}") from None


def _read_fields(path: Path) -> dict[str, object]:
    """Read and check the YAML beside a table; nothing where there is none."""
    beside = [path.with_suffix(end) for end in (".yaml", ".yml") if path.with_suffix(end).exists()]
    if not beside:
        return {}
    import yaml

    sidecar = beside[0]
    try:
        text = sidecar.read_text(encoding="utf-8")
        _refuse_double_keys(sidecar, yaml.compose(text, Loader=yaml.SafeLoader))
        content = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise FitError(f"{sidecar}: cannot be read, got {error}") from None
    except RecursionError:
        raise FitError(f"{sidecar}: is nested too deep to be read") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        raise FitError(
            f"{sidecar}:{line} is not YAML, got {getattr(error, 'problem', error)}"
        ) from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise FitError(f"{sidecar}: is a mapping of keys, got {type(content).__name__}")
    for key, value in content.items():
        _check_field(sidecar, key, value)
    return content


def _refuse_double_keys(sidecar: Path, node: object) -> None:
    """Refuse a key given twice: YAML would silently keep the second."""
    pairs = node.value if getattr(node, "id", "") == "mapping" else []
    seen = set()
    for key, value in pairs:
        line = key.start_mark.line + 1
        if getattr(key, "id", "") != "scalar":
            raise FitError(f"{sidecar}: line {line}: a key must be a plain word")
        if key.value in seen:
            raise FitError(f"{sidecar}: line {line}: {key.value}: given twice")
        seen.add(key.value)
        _refuse_double_keys(sidecar, value)


def _check_field(sidecar: Path, key: object, value: object) -> None:
    if key not in KEYS:
        raise FitError(f"{sidecar}: {key}: is no key here{nearest(str(key), KEYS)}")
    if key in _TEXTS and not isinstance(value, str):
        raise FitError(f"{sidecar}: {key}: must be text, got {value!r}")
    if key in _LISTS and not (
        isinstance(value, list) and value and all(isinstance(v, str) for v in value)
    ):
        raise FitError(f"{sidecar}: {key}: must be a list of columns, got {value!r}")
    if key in _MAPPINGS:
        if not isinstance(value, dict) or not all(
            isinstance(part, str) for pair in value.items() for part in pair
        ):
            raise FitError(f"{sidecar}: {key}: must be a mapping of names, got {value!r}")
        if key == "roles" and (unknown := [role for role in value if role not in ROLES]):
            raise FitError(
                f"{sidecar}: roles: {unknown[0]}: is no role{nearest(unknown[0], ROLES)}"
            )
