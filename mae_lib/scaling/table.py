"""A table of runs that a law can be fitted to, or one line that says which row and column is wrong."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mae_lib.errors import FitError


@dataclass(frozen=True)
class Table:
    """Checked runs: `frame` holds the response (a fraction), the factors, and clusters if any."""

    frame: pd.DataFrame
    response: str
    factors: tuple[str, ...]
    clusters: str | None
    scale: float

    @property
    def y(self) -> np.ndarray:
        """The response as a fraction, `[n]`."""
        return self.frame[self.response].to_numpy(np.float64) / self.scale

    @property
    def logs(self) -> np.ndarray:
        """Natural logs of the factors, `[n, m]`."""
        return np.log(self.frame[list(self.factors)].to_numpy(np.float64))


def check_table(
    frame: pd.DataFrame, *, response: str, factors: Sequence[str], clusters: str | None = None
) -> Table:
    """Check a frame of runs; percent (a maximum above 1.5) is recognised and turned into fractions.

    Raises: FitError naming column and row of the first value that cannot be used.
    """
    columns = [response, *factors, *([clusters] if clusters else [])]
    for name in columns:
        if name not in frame.columns:
            known = ", ".join(map(str, frame.columns))
            raise FitError(f"table: no column {name!r}; it has {known}")
    if len(frame) < 2:
        raise FitError(f"table: at least 2 rows are needed, got {len(frame)}")
    for name in (response, *factors):
        values = pd.to_numeric(frame[name], errors="coerce").to_numpy(np.float64)
        bad = ~np.isfinite(values) | ((values <= 0) & (name != response))
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            need = "a number" if name == response else "a number above 0, its log is taken"
            raise FitError(
                f"table: {name}: row {row}: must be {need}, got {frame[name].iloc[row]!r}"
            )
        if name != response and np.ptp(values) == 0:
            raise FitError(
                f"table: {name}: never varies ({values[0]:g}), so it has no effect to fit"
            )
    y = pd.to_numeric(frame[response]).to_numpy(np.float64)
    scale = 100.0 if y.max() > 1.5 else 1.0
    if y.min() < 0 or y.max() > scale:
        row = int(np.argmax((y < 0) | (y > scale)))
        raise FitError(
            f"table: {response}: row {row}: an accuracy lies in 0 to {scale:g}, got {y[row]:g}"
        )
    return Table(frame[columns].reset_index(drop=True), response, tuple(factors), clusters, scale)
