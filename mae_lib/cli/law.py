"""`mae fit` and `mae predict`: laws on any table of runs."""

from pathlib import Path
from typing import Annotated

import typer

TableArgument = Annotated[Path, typer.Argument(help="A CSV with one row a run.")]
ResponseOption = Annotated[str, typer.Option(help="Column of the accuracy, percent or fraction.")]
FactorsOption = Annotated[str, typer.Option(help="Columns of the factors, with commas between.")]
LawOption = Annotated[str, typer.Option(help="One law, or all.")]
ClustersOption = Annotated[str | None, typer.Option(help="Column naming runs that share data.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the main application."""
    app.command("fit")(fit)
    app.command("predict")(predict)


def fit(
    table: TableArgument,
    response: ResponseOption,
    factors: FactorsOption,
    law: LawOption = "all",
    clusters: ClustersOption = None,
    json: JsonOption = False,
) -> None:
    """Fit laws to a table of runs."""
    import json as text

    from rich.console import Console

    from mae_lib.cli.summary import laws_table

    fits = [found.to_json() for found in _fits(table, response, factors, law, clusters)]
    if json:
        print(text.dumps(fits, indent=1))
    else:
        Console(soft_wrap=True).print(laws_table(fits))


def predict(
    table: TableArgument,
    response: ResponseOption,
    factors: FactorsOption,
    at: Annotated[str, typer.Option(help="The point: factor=value, with commas between.")],
    law: LawOption = "all",
    clusters: ClustersOption = None,
    json: JsonOption = False,
) -> None:
    """Ask every law about a point, and say how far it lies beyond the data."""
    import json as text

    from mae_lib.scaling.predict import predict_law

    fits = _fits(table, response, factors, law, clusters)
    point = _point(at)
    answers = [predict_law(found, point) for found in fits]
    if json:
        print(text.dumps({"format": 1, "laws": answers}, indent=1))
        return
    scale = fits[0].table.scale
    for answer in answers:
        low, high = (
            "-" if answer[k] is None else f"{scale * answer[k]:.4g}" for k in ("low", "high")
        )
        rho = max(answer["rho"].values())
        note = "" if answer["calibrated"] else "  outside the calibrated range"
        print(
            f"{answer['law']:16} {scale * answer['value']:.4g} [{low}, {high}] rho {rho:.2f}{note}"
        )


def _fits(table: Path, response: str, factors: str, law: str, clusters: str | None):
    from mae_lib.scaling.fit import fit_laws
    from mae_lib.scaling.laws import LAWS
    from mae_lib.scaling.table import check_table

    frame = _read(table)
    names = tuple(name.strip() for name in factors.split(",") if name.strip())
    checked = check_table(frame, response=response, factors=names, clusters=clusters)
    # `all` leaves out a law that asks for factors this table does not have.
    usable = [k for k, v in LAWS.items() if v.factors is None or set(v.factors) <= set(names)]
    return fit_laws(checked, usable if law == "all" else [law])


def _read(table: Path):
    import pandas as pd

    from mae_lib.errors import FitError

    try:
        return pd.read_csv(table)
    except (OSError, ValueError) as error:
        raise FitError(f"{table}: cannot be read as CSV, got {error}") from None


def _point(at: str) -> dict[str, float]:
    from mae_lib.errors import FitError

    point = {}
    for part in at.split(","):
        name, _, value = part.partition("=")
        try:
            point[name.strip()] = float(value)
        except ValueError:
            raise FitError(f"--at: factor=value was expected, got {part!r}") from None
    return point
