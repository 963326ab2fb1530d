"""`mae plan`: which runs to do next, for a target and a budget."""

from pathlib import Path
from typing import Annotated

import typer

from mae_lib.cli.law import (
    ClustersOption,
    FactorsOption,
    JsonOption,
    KindOption,
    RepeatsOption,
    ResponseOption,
    RolesOption,
    TableArgument,
    UnitOption,
)


def register(app: typer.Typer) -> None:
    """Add the command to the main application."""
    app.command("plan")(plan)


def plan(
    table: TableArgument,
    at: Annotated[str, typer.Option(help="The target: factor=value, with commas between.")],
    candidates: Annotated[
        Path,
        typer.Option(help="A CSV of cells that could be run: factors, `cost`, clusters if shared."),
    ],
    budget: Annotated[float, typer.Option(help="What may be spent, in the unit of `cost`.")],
    response: ResponseOption = None,
    factors: FactorsOption = None,
    laws: Annotated[str, typer.Option(help="Laws, with commas between, or all.")] = "all",
    clusters: ClustersOption = None,
    kind: KindOption = None,
    unit: UnitOption = None,
    roles: RolesOption = None,
    allow_repeats: RepeatsOption = False,
    share: Annotated[float, typer.Option(help="Share of the budget to refute with.")] = 1 / 3,
    refute: Annotated[
        str, typer.Option(help="Refute by discrepancy (of laws) or lack_of_fit (curvature).")
    ] = "discrepancy",
    caution: Annotated[
        float, typer.Option(help="How far a law doubts its form, in spreads between laws; 0: not.")
    ] = 1.0,
    repeats: Annotated[int, typer.Option(help="How often one candidate may run.")] = 1,
    json: JsonOption = False,
) -> None:
    """Choose the next runs: they narrow the prediction at a target, and a third can refute a law."""
    import json as text

    from mae_lib.cli.law import chosen_laws, fit_each, parse_point, read
    from mae_lib.scaling.plan import plan_runs
    from mae_lib.scaling.read import read_sheet

    checked = read(
        table,
        response,
        factors,
        clusters=clusters,
        kind=kind,
        unit=unit,
        roles=roles,
        allow_repeats=allow_repeats,
    )
    sheet = read_sheet(candidates)
    names, unfit = chosen_laws(checked, laws, False)
    fits, failed = fit_each(checked, names, {"bootstrap": 0}, named=laws != "all")
    found = plan_runs(
        fits,
        parse_point(at),
        sheet.frame,
        budget,
        share=share,
        refute=refute,
        caution=caution,
        repeats=repeats,
        name=sheet.name,
        first_row=sheet.first_row,
    )
    reasons = (line.partition(": ") for line in [*unfit, *failed])
    found["left_out"] = {law: why for law, _, why in reasons} | found["left_out"]
    if json:
        print(text.dumps(found, indent=1))
    else:
        _print(found, checked)


def print_planner_bench(found: dict) -> None:
    """Print the planner's simulation: one row a truth and strategy, then one a strategy."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{found['repeats']} studies a truth, in points", box=None)
    names = ("truth", "strategy", "runs", "RMSE", "width", "coverage", "over random", "")
    for name in names:
        left = name in ("truth", "strategy", "")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for row in found["rows"]:
        low, high = (100 * value for value in row["rmse_interval"])
        ratio = row.get("rmse_over_random")
        table.add_row(
            row["truth"],
            row["strategy"],
            f"{row['runs']:.0f}",
            f"{100 * row['rmse']:.2f} [{low:.2f}, {high:.2f}]",
            f"{100 * row['width_median']:.1f}",
            f"{100 * row['coverage']:.0f} %",
            "-" if ratio is None else f"{ratio:.2f}",
            row.get("verdict", ""),
        )
    Console(width=130).print(table)
    for name, row in found["strategies"].items():
        print(
            f"{name}: RMSE {row['mean_ratio']:.2f} of random cells' (geometric mean of truths), "
            f"wins {row['wins']}, loses {row['loses']}, not settled {row['not settled']}"
        )


def _print(found: dict, table) -> None:
    from rich.console import Console
    from rich.table import Table

    console, unit = Console(soft_wrap=True), table.scale
    runs = Table(title=f"{len(found['chosen'])} runs", title_justify="left", box=None)
    columns = [*table.factors]
    if any(table.clusters in row for row in found["chosen"] if table.clusters):
        columns.append(table.clusters)
    for name in ("row", *columns, "cost", "to", "takes of the variance"):
        runs.add_column(name, justify="left" if name in ("to", table.clusters) else "right")
    for row in found["chosen"]:
        values = [row[name] for name in columns]
        shown = [f"{v:.6g}" if isinstance(v, float) else str(v) for v in values]
        runs.add_row(
            str(row["row"]),
            *shown,
            f"{row['cost']:.6g}",
            row["role"],
            f"{100 * row['share_of_variance']:.2f} %",
        )
    console.print(runs)
    widths = Table(title=f"{100 * found['level']:g} % width at the target, law taken as true")
    widths.title_justify, widths.box = "left", None
    for name in ("law", "predicts", "before", "after"):
        widths.add_column(name, justify="left" if name == "law" else "right")
    for law, width in found["expected_width"].items():
        ends = ("not bounded" if v is None else f"{unit * v:.4g}" for v in width.values())
        widths.add_row(law, f"{unit * found['predictions'][law]:.4g}", *ends)
    console.print(widths)
    print(
        f"spent {found['spent']:.6g} of {found['budget']:.6g}, "
        f"{found['spent_on_refutation']:.6g} on runs that can refute a law; the laws' answers "
        f"spread by {unit * found['between_law_sd']:.4g} (SD), which no width above contains"
    )
    for law, directions in found["aliased"].items():
        print(f"{law}: {'; '.join(directions)}")
    for law, why in found["left_out"].items():
        print(f"left out: {law}: {why.removeprefix(law + ': ')}")
    for note in found["notes"]:
        print(f"note: {note}")
