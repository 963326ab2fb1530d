"""A table as a notebook output: escaped, three significant digits, numbers aligned."""

from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Shown:
    """A frame that notebooks show by its HTML."""

    frame: pd.DataFrame
    prose: bool = False

    def _repr_html_(self) -> str:
        return table_html(self.frame, prose=self.prose)

    def __repr__(self) -> str:
        return _texts(self.frame).to_string(index=False)


def table(frame: pd.DataFrame, *, prose: bool = False) -> Shown:
    """Return a frame as a notebook output; `prose` lets the text of its columns wrap."""
    return Shown(frame, prose)


def table_html(frame: pd.DataFrame, *, prose: bool = False) -> str:
    """Return a frame as an HTML table; text is escaped, and wraps in every column if `prose`."""
    texts = _texts(frame)
    inner = texts.to_html(index=False, escape=True, border=0, classes="study-table")
    return f'<div class="table-box{" prose-table" if prose else ""}">{inner}</div>'


def number(value: object) -> str:
    """Return a value as text: three significant digits, thousands apart, `-` for nothing."""
    if value is None or (isinstance(value, float) and value != value):
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if value != 0 and (abs(value) >= 1e6 or abs(value) < 1e-3):
        return f"{value:.2e}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _texts(frame: pd.DataFrame) -> pd.DataFrame:
    columns = {}
    for name in frame.columns:
        # item by item, because pandas would turn whole numbers beside a hole into fractions
        columns[str(name).replace("_", " ")] = [number(value) for value in frame[name].tolist()]
    return pd.DataFrame(columns)
