"""The coverage of intervals over public grids, as `mae bench coverage` measured it."""

import json
from pathlib import Path

import pandas as pd

from mae_lib.study.paths import root

NOMINAL = "0.95"


def coverage_path() -> Path:
    """Return where the measurement is published."""
    return root() / "benchmarks" / "law" / "coverage.json"


def coverage_frame() -> pd.DataFrame:
    """Return a row a method: coverage of its 95 % interval, raw and calibrated on the other studies.

    Errors, widths and interval scores are in logs of the loss or error.
    """
    found = _read()
    if found is None:
        return pd.DataFrame({"method": ["not measured yet"], "by": ["mae bench coverage"]})
    rows = []
    for name, method in found["methods"].items():
        raw, calibrated = method["raw"], method["calibrated"]
        rows.append(
            {"method": name, "splits": method["splits"], "mean error": method["mae"]}
            | {"coverage": raw["coverage"][NOMINAL], "worst study": raw["worst_study"]}
            | {"width": raw["width"], "interval score": raw["interval_score"]}
            | {"calibrated coverage": calibrated["coverage"][NOMINAL]}
            | {"its score": calibrated["interval_score"]}
        )
    return pd.DataFrame(rows).sort_values("interval score", ignore_index=True)


def coverage_by_distance() -> pd.DataFrame:
    """Return a row a distance: how many points, and the coverage of single laws and of the stack."""
    found = _read()
    if found is None:
        return coverage_frame()
    methods = {n: m["by_rho"] for n, m in found["methods"].items() if n.endswith(", naive")}
    methods |= {n: found["methods"][n]["by_rho"] for n in ("plain stack", "stacked")}
    rows: dict[tuple, dict] = {}
    for name, bins in methods.items():
        for part in bins:
            low, high = part["rho"]
            row = rows.setdefault(
                (low, high), {"rho": f"{low:g} to {high:g}" if high else f"> {low:g}"}
            )
            row["points"] = max(row.get("points", 0), part["points"])
            row[name.removesuffix(", naive")] = part["coverage"]
    return pd.DataFrame(list(rows.values()))


def coverage_sentence() -> str:
    """Say what single laws' intervals and the stack's hold, over how much."""
    found = _read()
    if found is None:
        return "- Not measured here: the coverage of intervals over all grids."
    raw = {name: m["raw"]["coverage"][NOMINAL] for name, m in found["methods"].items()}
    single = [value for name, value in raw.items() if name.endswith(", naive")]
    text = (
        f"- Measured over {found['grids']} grids of {len(found['studies'])} studies, {found['splits']} "
        f"splits: 95 % intervals of single laws hold {100 * min(single):.0f} to "
        f"{100 * max(single):.0f} % of what was left out"
    )
    if "stacked" in raw:
        worst = found["methods"]["stacked"]["raw"]["worst_study"]
        text += f"; the stack's hold {100 * raw['stacked']:.1f} %, {100 * worst:.0f} % in the worst study"
    return (
        f"{text}. {_beyond(found)} of {found['points']:,} points lie beyond one range of the data."
    )


def _beyond(found: dict) -> int:
    """Count the points that lie beyond one range of the data."""
    bins = next(iter(found["methods"].values()))["by_rho"]
    return sum(b["points"] for b in bins if b["rho"][0] >= 1)


def _read() -> dict | None:
    path = coverage_path()
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
