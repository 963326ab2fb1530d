"""How `mae bench coverage` and `mae bench law` look on a terminal."""

from rich.console import Console
from rich.table import Table

# A narrow terminal wraps lines; cut columns would hide the numbers.
WIDTH = 132


def print_coverage(found: dict) -> None:
    """Print methods side by side, then the stack by study and by rho."""
    console = _console()
    console.print(
        f"{found['grids']} grids of {len(found['studies'])} studies, {found['splits']} splits, "
        f"{found['points']} points; in ln of loss or error, nominal {found['nominal']:.0%}"
    )
    heads = ("method", "MAE", "coverage", "worst", "width", "score", "x", "coverage", "worst",
             "width", "score")  # fmt: skip
    console.print(_lines(heads, [_method(name, one) for name, one in found["methods"].items()]))
    stacked = found["methods"].get("stacked")
    if stacked is None:
        return
    rows = [
        (study, f"{one['coverage']:.3f}", f"{one['interval_score']:.3f}",
         f"{stacked['calibrated']['multipliers'][study]:.2f}",
         f"{stacked['calibrated']['by_study'][study]['coverage']:.3f}",
         f"{stacked['calibrated']['by_study'][study]['interval_score']:.3f}")
        for study, one in stacked["raw"]["by_study"].items()
    ]  # fmt: skip
    heads = ("stacked, by study", "coverage", "score", "x others'", "coverage", "score")
    console.print(_lines(heads, rows))
    rows = [
        (f"{one['rho'][0]:g} to {one['rho'][1]:g}" if one["rho"][1] else f"above {one['rho'][0]:g}",
         str(one["points"]), f"{one['coverage']:.3f}", f"{one['mae']:.3f}", f"{one['width']:.3f}")
        for one in stacked["by_rho"]
    ]  # fmt: skip
    console.print(_lines(("stacked, by rho", "points", "coverage", "MAE", "width"), rows))
    levels = ", ".join(f"{level} {v:.3f}" for level, v in stacked["raw"]["coverage"].items())
    console.print(f"stacked, coverage by level: {levels}")


def print_law(found: dict) -> None:
    """Print bootstraps beside scipy's loop, the whole report, and the peer where it is installed."""
    console = _console()
    rows = [
        (one["law"], str(one["refits"]), f"{one['ours_s']:.3f}", f"{one['scipy_s']:.2f}",
         f"{one['ratio']:.1f}", f"{one['largest_difference']:.1e}")
        for one in found["bootstraps"]
    ]  # fmt: skip
    heads = ("law", "refits", "ours, s", "scipy loop, s", "ratio", "difference of predictions")
    console.print(_lines(heads, rows))
    whole = found["report"]
    console.print(
        f"{whole['laws']} laws, {whole['bootstrap']} refits each, {whole['splits']} held-out splits: "
        f"{whole['seconds']:.2f} s of one core, {whole['peak_mib']:.0f} MiB"
    )
    peer = found["peer"]
    if "objective_ours" not in peer:
        console.print(peer["note"])
        return
    console.print(
        f"chinchilla {peer['version']}: objective {peer['objective_peer']:.8f} in "
        f"{peer['seconds_peer']:.2f} s; ours {peer['objective_ours']:.8f} in "
        f"{peer['seconds_ours']:.3f} s"
    )


def _console() -> Console:
    console = Console(markup=False, highlight=False)
    return Console(width=max(console.width, WIDTH), markup=False, highlight=False)


def _method(name: str, one: dict) -> tuple[str, ...]:
    cells = [name, f"{one['mae']:.3f}"]
    for which in ("raw", "calibrated"):
        if which == "calibrated":
            multipliers = list(one[which]["multipliers"].values())
            cells.append(f"{sum(multipliers) / len(multipliers):.2f}")
        figures = one[which]
        cells += [
            f"{figures['coverage']['0.95']:.3f}", f"{figures['worst_study']:.3f}",
            f"{figures['width']:.3f}", f"{figures['interval_score']:.3f}",
        ]  # fmt: skip
    return tuple(cells)


def _lines(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    table = Table(box=None, title_justify="left")
    for place, head in enumerate(heads):
        table.add_column(head, justify="right" if place else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table
