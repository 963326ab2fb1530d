"""`mae predict`, `mae require`, `mae holdout`: what laws say beyond the runs, and how they did there."""

import sys
from typing import Annotated

import typer

from mae_lib.cli.law import (
    AllOption,
    CellsOption,
    ChanceOption,
    ClustersOption,
    FactorsOption,
    JsonOption,
    KindOption,
    LawOption,
    ObjectiveOption,
    RepeatsOption,
    ResponseOption,
    RolesOption,
    TableArgument,
    UnitOption,
)

LevelOption = Annotated[float, typer.Option(help="Level of intervals, between 0 and 1.")]
BootstrapOption = Annotated[int, typer.Option(help="Refits of the bootstrap; 0: none.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the main application."""
    app.command("predict")(predict)
    app.command("require")(require)
    app.command("holdout")(holdout)


def predict(
    table: TableArgument,
    at: Annotated[str, typer.Option(help="The point: factor=value, with commas between.")],
    response: ResponseOption = None,
    factors: FactorsOption = None,
    law: LawOption = None,
    every: AllOption = False,
    clusters: ClustersOption = None,
    cells: CellsOption = None,
    kind: KindOption = None,
    unit: UnitOption = None,
    roles: RolesOption = None,
    objective: ObjectiveOption = "ls",
    chance: ChanceOption = 0.0,
    bootstrap: BootstrapOption = 2000,
    level: LevelOption = 0.95,
    stack: Annotated[str | None, typer.Option(help="Laws to average, with commas.")] = None,
    uncalibrated: Annotated[
        bool, typer.Option("--uncalibrated", help="Give an interval beyond rho = 1 too.")
    ] = False,
    allow_repeats: RepeatsOption = False,
    json: JsonOption = False,
) -> None:
    """Ask every law about a point, and their stack; say how far it lies beyond the data."""
    import json as text

    from mae_lib.cli.law import chosen_laws, fit_each, parse_point, read, split
    from mae_lib.scaling.predict import predict as answer

    checked = read(
        table, response, factors, clusters=clusters, cells=cells, kind=kind, unit=unit,
        roles=roles, allow_repeats=allow_repeats,
    )  # fmt: skip
    point = parse_point(at)
    names, left_out = chosen_laws(checked, law, every)
    options = {"objective": objective, "chance": chance / checked.scale, "bootstrap": bootstrap}
    fits, failed = fit_each(checked, names, options, named=law is not None)
    from mae_lib.scaling.laws import law_named

    stacked = [law_named(name).name for name in split(stack)]
    found = answer(
        checked, point, fits=fits, level=level, uncalibrated=uncalibrated,
        stack=stacked or None,
    )  # fmt: skip
    found["left_out"] += left_out + failed
    found["table_notes"] = list(checked.notes)
    if json:
        print(text.dumps(found, indent=1))
    else:
        _print_prediction(found)


def require(
    table: TableArgument,
    target: Annotated[float, typer.Option(help="The response to reach, in the table's unit.")],
    solve: Annotated[str, typer.Option(help="The factor to solve for.")],
    at: Annotated[str, typer.Option(help="The other factors: factor=value, with commas.")],
    response: ResponseOption = None,
    factors: FactorsOption = None,
    law: LawOption = None,
    every: AllOption = False,
    clusters: ClustersOption = None,
    kind: KindOption = None,
    unit: UnitOption = None,
    roles: RolesOption = None,
    objective: ObjectiveOption = "ls",
    bootstrap: BootstrapOption = 500,
    level: LevelOption = 0.95,
    allow_repeats: RepeatsOption = False,
    json: JsonOption = False,
) -> None:
    """Say by law what one factor must be for a target, or "never" where a ceiling forbids it."""
    import json as text

    from mae_lib.cli.law import chosen_laws, fit_each, parse_point, read
    from mae_lib.scaling.require import require as answer

    checked = read(
        table, response, factors, clusters=clusters, kind=kind, unit=unit, roles=roles,
        allow_repeats=allow_repeats,
    )  # fmt: skip
    # A share below 1 on a table in percent is meant as a share: no accuracy of 0.9 % is a target.
    if checked.kind != "loss" and checked.scale == 100 and 0 < target < 1:
        print(
            f"note: target {target:g} is taken as a share, {100 * target:g} percent",
            file=sys.stderr,
        )
        target *= 100
    names, left_out = chosen_laws(checked, law, every)
    options = {"objective": objective, "bootstrap": bootstrap}
    fits, failed = fit_each(checked, names, options, named=law is not None)
    found = answer(checked, fits, target, solve, parse_point(at), level=level)
    found["left_out"] = left_out + failed
    if json:
        print(text.dumps(found, indent=1))
        return
    print(f"{solve} for {checked.response} {target:g}:")
    for one in found["laws"]:
        note = "" if one["value"] is None or one["calibrated"] else "  outside the calibrated range"
        reach = "" if one["rho_max"] is None else f"  rho {one['rho_max']:.2f}"
        ends = f"  [{_end(one['low'])}, {_end(one['high'])}]" if one["value"] else ""
        print(f"{one['law']:18} {one['answer']}{ends}{reach}{note}")


def holdout(
    table: TableArgument,
    response: ResponseOption = None,
    factors: FactorsOption = None,
    law: LawOption = None,
    every: AllOption = False,
    clusters: ClustersOption = None,
    cells: CellsOption = None,
    kind: KindOption = None,
    unit: UnitOption = None,
    roles: RolesOption = None,
    objective: ObjectiveOption = "ls",
    share: Annotated[
        list[float] | None, typer.Option(help="Share left out; may be repeated. Default: 0.25.")
    ] = None,
    allow_repeats: RepeatsOption = False,
    json: JsonOption = False,
) -> None:
    """Leave out the top cells by each factor, by compute and by the corner, and predict them."""
    import json as text

    from mae_lib.cli.law import chosen_laws, fit_each, read
    from mae_lib.scaling.holdout import SHARES, hold_out

    checked = read(
        table, response, factors, clusters=clusters, cells=cells, kind=kind, unit=unit,
        roles=roles, allow_repeats=allow_repeats,
    )  # fmt: skip
    names, left_out = chosen_laws(checked, law, every)
    options = {"objective": objective, "bootstrap": 0}
    fits, failed = fit_each(checked, names, options, named=law is not None)
    found = hold_out(checked, fits, shares=share or SHARES)
    found["left_out"] = left_out + failed
    if json:
        print(text.dumps(found, indent=1))
    else:
        _print_holdout(found)


def _print_prediction(found: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    title = f"{found['response']} ({found['unit']}), {found['level']:.0%} intervals"
    lines = Table(title=title, title_justify="left", box=None)
    for name in ("law", "value", "low", "high", "rho", "leverage", ""):
        lines.add_column(name, justify="left" if name in ("law", "") else "right")
    for law in found["laws"]:
        note = "" if law["inside_unit_interval"] else "impossible: leaves 0 to 1"
        lines.add_row(
            law["law"], f"{law['value']:.4g}", _end(law["low"]), _end(law["high"]),
            f"{law['rho_max']:.2f}",
            "-" if law["leverage"] is None else f"{law['leverage']:.3g}", note,
        )  # fmt: skip
    Console(soft_wrap=True).print(lines)
    stacked = found["stacked"]
    if stacked["value"] is not None:
        ends = (
            f" [{stacked['low']:.4g}, {stacked['high']:.4g}]" if stacked["low"] is not None else ""
        )
        print(f"stacked: {stacked['value']:.4g}{ends}")
    if stacked["parts"]:
        parts = ", ".join(f"{k.replace('_', ' ')} {v:.3g}" for k, v in stacked["parts"].items())
        print(f"  half-width: {parts} (in quadrature)")
    if stacked["weights"]:
        weights = ", ".join(f"{k} {v:.2f}" for k, v in stacked["weights"].items())
        print(f"  weights by own held-out error: {weights}")
    if stacked["spread"]:
        print(f"  laws lie between {stacked['spread'][0]:.4g} and {stacked['spread'][1]:.4g}")
    if stacked["dropped"]:
        print(f"  dropped, they leave 0 to 1 here: {', '.join(stacked['dropped'])}")
    for note in stacked["notes"]:
        print(f"  {note}")
    for note in found["table_notes"]:
        print(f"note: {note}")


def _print_holdout(found: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    for split in found["splits"]:
        counted = f"{split['test']} of {split['rows']} runs, rho up to {split['rho_max']:.2f}"
        print(f"left out: top {split['share']:.0%} by {split['by']}: {counted}")
    lines = Table(title=f"held out ({found['unit']})", title_justify="left", box=None)
    for name in ("method", "splits", "RMSE", "bias", "50 %", "80 %", "95 %", "score"):
        lines.add_column(name, justify="left" if name == "method" else "right")
    for name, one in found["summary"].items():
        if not one["splits"]:
            lines.add_row(name, "0", *["-"] * 6)
            continue
        coverage = [f"{one['coverage'][k]:.2f}" for k in ("0.5", "0.8", "0.95")]
        lines.add_row(
            name, str(one["splits"]), f"{one['rmse']:.3g}", f"{one['bias']:+.3g}", *coverage,
            f"{one['interval_score']:.3g}",
        )  # fmt: skip
    Console(soft_wrap=True).print(lines)
    for line in found["skipped"]:
        print(f"not split: {line}")


def _end(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
