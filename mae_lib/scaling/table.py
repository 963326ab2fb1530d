"""A table of runs that a law can be fitted to, or one line that says which row and column is wrong.

Rows are numbered as a person sees them in the file: the header is row 1, the first run row 2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from mae_lib.errors import FitError
from mae_lib.scaling.notes import table_notes
from mae_lib.scaling.unit import KINDS, kind_of, unit_of
from mae_lib.study.suggest import nearest

ROLES = ("parameters", "data", "resolution", "epochs", "compute")


@dataclass(frozen=True)
class Table:
    """Checked runs: every column of the file, row by row, with the names of those that matter.

    `kind` is accuracy, error (both in fractions after division by `scale`) or loss (as it stands).
    `cells` are the columns that define a repeated cell; without them, all factors. `trials` is the
    column of images scored; `roles` maps parameters, data, resolution, epochs and compute to
    columns; `notes` are what a reader should know and what does not stop a fit, in words; `rows` are
    the numbers that a person sees beside the runs.
    """

    frame: pd.DataFrame
    response: str
    factors: tuple[str, ...]
    clusters: str | None
    scale: float
    kind: str = "accuracy"
    cells: tuple[str, ...] | None = None
    name: str = "table"
    trials: str | None = None
    roles: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    rows: tuple[int, ...] = ()

    @property
    def y(self) -> np.ndarray:
        """The response, `[n]`: a fraction for accuracies and errors, native units for a loss."""
        return self.frame[self.response].to_numpy(np.float64) / self.scale

    @property
    def x(self) -> np.ndarray:
        """The factors as they stand in the file, `[n, m]`."""
        return self.frame[list(self.factors)].to_numpy(np.float64)

    @property
    def logs(self) -> np.ndarray:
        """Natural logs of the factors, `[n, m]`."""
        return np.log(self.x)

    @property
    def cell_codes(self) -> np.ndarray:
        """The number of each row's cell, from 0 in order of appearance, `[n]`."""
        if self.cells:
            return self.frame.groupby(list(self.cells), sort=False).ngroup().to_numpy()
        _, first, codes = np.unique(
            self.logs.round(12), axis=0, return_index=True, return_inverse=True
        )
        return np.argsort(np.argsort(first))[codes.ravel()]

    @property
    def cluster_codes(self) -> np.ndarray | None:
        """The number of each row's cluster, from 0, `[n]`; None without clusters."""
        return pd.factorize(self.frame[self.clusters])[0] if self.clusters else None


def check_table(
    frame: pd.DataFrame,
    *,
    response: str,
    factors: Sequence[str],
    clusters: str | None = None,
    cells: Sequence[str] | None = None,
    kind: str | None = None,
    unit: str | None = None,
    trials: str | None = None,
    roles: Mapping[str, str] | None = None,
    name: str = "table",
    first_row: int = 2,
    allow_repeats: bool = False,
) -> Table:
    """Check a frame of runs. What is detected (kind, percent or fraction) is said in its notes.

    `first_row` is the number that a person sees beside the first run; the frame's own integer
    index counts from it, so that a selection of a larger table still names the file's rows.
    `allow_repeats` lets rows through that are equal in every column.
    Raises: FitError naming column and row of the first value that cannot be used.
    """
    factors, cells = tuple(factors), tuple(cells) if cells else None
    roles = dict(roles or {})
    where = _Where(name, _row_numbers(frame, first_row))
    if not factors:
        raise FitError(f"{name}: factors: at least one column is needed, got none")
    if len(set(factors)) < len(factors) or response in factors:
        raise FitError(f"{name}: factors: each column once, the response not among them")
    optional = [column for column in (clusters, trials) if column]
    for column in (response, *factors, *optional, *(cells or ()), *roles.values()):
        if column not in frame.columns:
            raise FitError(
                f"{name}: no column {column!r}{nearest(column, map(str, frame.columns))}"
            )
    if kind is not None and kind not in KINDS:
        raise FitError(f"{name}: kind: one of {', '.join(KINDS)}, got {kind!r}")
    if len(frame) < 2:
        raise FitError(f"{name}: at least 2 rows are needed, got {len(frame)}")
    numbers = {c: _numbers(frame[c], where, above_zero=c != response) for c in (response, *factors)}
    for column in factors:
        if np.ptp(numbers[column]) == 0:
            value = numbers[column][0]
            raise FitError(
                f"{name}: {column}: never varies ({value:g}), so it has no effect to fit; "
                "leave it out of the factors"
            )
    if trials:
        numbers[trials] = _numbers(frame[trials], where, above_zero=True)
    _check_labels(frame, where, clusters, cells)
    if not allow_repeats:
        _refuse_repeats(frame, where)
    logs = np.log(np.column_stack([numbers[column] for column in factors]))
    kind, kind_note = kind_of(response, kind)
    scale, unit_note = unit_of(numbers[response], kind, unit, logs, where.of(response))
    # A column read as text stays text elsewhere; those that are used are numbers from here on.
    checked = frame.reset_index(drop=True).assign(**numbers)
    table = Table(checked, response, factors, clusters, scale, kind, cells, name, trials, roles)
    said = [note for note in (kind_note, unit_note) if note]
    rows = tuple(int(row) for row in where.rows)
    return replace(table, notes=(*said, *table_notes(table)), rows=rows)


def require_logs(table: Table, *, flips: bool, objective: str) -> None:
    """Refuse a response, or with `flips` an accuracy whose error 1 - y, that has no log.

    Raises: FitError naming the row.
    """
    bad = (table.y >= 1) if flips else (table.y <= 0)
    if not bad.any():
        return
    position = int(np.argmax(bad))
    row = table.rows[position] if len(table.rows) == len(bad) else position + 2
    value = table.frame[table.response].iloc[position]
    taken = f"of {'100 %' if table.scale == 100 else '1'} minus it " * flips
    raise FitError(
        f"{table.name}: {table.response}: row {row}: objective {objective} takes the log {taken}"
        f"and needs it above 0, got {value:g}; use objective ls"
    )


@dataclass(frozen=True)
class _Where:
    """The file and its visible row numbers, for messages."""

    name: str
    rows: np.ndarray

    def of(self, column: str):
        """Return a function from a position to `file: column: row n`."""
        return lambda position: f"{self.name}: {column}: row {self.rows[position]}"


def _row_numbers(frame: pd.DataFrame, first_row: int) -> np.ndarray:
    index = frame.index
    if pd.api.types.is_integer_dtype(index.dtype) and index.is_unique:
        return index.to_numpy() + first_row
    return np.arange(len(frame)) + first_row


def _numbers(column: pd.Series, where: _Where, *, above_zero: bool) -> np.ndarray:
    """Return a column as float64, or refuse the first value that is no (positive) number."""
    if column.dtype.kind in "mMb":
        kind = {"m": "a duration", "M": "a date", "b": "true or false"}[column.dtype.kind]
        raise FitError(f"{where.of(column.name)(0)}: must be a number, got {kind}")
    values = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
    bad = ~np.isfinite(values) | ((values <= 0) & above_zero)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        got = column.iloc[row]
        shown = "an empty value (NaN)" if pd.isna(got) else _shown(got)
        need = "a number above 0, its log is taken" if above_zero else "a number"
        more = f" (+{int(bad.sum()) - 1} more rows)" if bad.sum() > 1 else ""
        raise FitError(f"{where.of(column.name)(row)}: must be {need}, got {shown}{more}")
    return values


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, str) else f"{value}"


def _check_labels(
    frame: pd.DataFrame, where: _Where, clusters: str | None, cells: tuple[str, ...] | None
) -> None:
    """Refuse empty labels, and clusters that are one."""
    for column in ((clusters,) if clusters else ()) + (cells or ()):
        if (empty := frame[column].isna().to_numpy()).any():
            row = int(np.flatnonzero(empty)[0])
            raise FitError(f"{where.of(column)(row)}: must be a label, got an empty value (NaN)")
    if clusters and frame[clusters].nunique() < 2:
        raise FitError(
            f"{where.name}: {clusters}: one cluster only, so nothing can be resampled; "
            "leave clusters out"
        )


def _refuse_repeats(frame: pd.DataFrame, where: _Where) -> None:
    """Refuse a row that equals an earlier one in every column: a run that is counted twice."""
    repeated = frame.duplicated().to_numpy()
    if not repeated.any():
        return
    row = int(np.flatnonzero(repeated)[0])
    same = frame.eq(frame.iloc[row]) | (frame.isna() & frame.iloc[row].isna())
    first = int(np.flatnonzero(same.all(axis=1).to_numpy())[0])
    more = f" (+{int(repeated.sum()) - 1} more)" if repeated.sum() > 1 else ""
    raise FitError(
        f"{where.name}: row {where.rows[row]} repeats row {where.rows[first]} in every column"
        f"{more}; drop it, or add a column (a seed) that tells the runs apart"
    )
