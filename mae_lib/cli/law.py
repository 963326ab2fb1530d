"""`mae fit`: laws on any table of runs; how a command reads its table, laws and point."""

import sys
from pathlib import Path
from typing import Annotated

import typer

TableArgument = Annotated[
    Path,
    typer.Argument(
        help="A CSV or Parquet with one row a run, at most 10,000 rows and 64 MiB; runs.yaml "
        "beside runs.csv may give response, factors, clusters, cells, kind, trials, units, roles."
    ),
]
ResponseOption = Annotated[
    str | None, typer.Option(help="Column to explain: accuracy, error (percent or not) or loss.")
]
FactorsOption = Annotated[
    str | None, typer.Option(help="Columns that explain it, with commas between; logs are taken.")
]
LawOption = Annotated[str | None, typer.Option(help="Laws, with commas between; default all.")]
AllOption = Annotated[bool, typer.Option("--all", help="Every law that the table can carry.")]
ClustersOption = Annotated[str | None, typer.Option(help="Column naming runs that share data.")]
CellsOption = Annotated[
    str | None, typer.Option(help="Columns that are alike in repeats of a cell; default factors.")
]
KindOption = Annotated[str | None, typer.Option(help="accuracy, error or loss; default by name.")]
UnitOption = Annotated[str | None, typer.Option(help="percent or fraction; default by size.")]
TrialsOption = Annotated[str | None, typer.Option(help="Column of images scored, for binomial.")]
RolesOption = Annotated[
    str | None,
    typer.Option(help="Parts of columns: parameters=n_params,data=tokens,resolution=,epochs=,..."),
]
ObjectiveOption = Annotated[str, typer.Option(help="ls, log, huber (of the log) or binomial.")]
ChanceOption = Annotated[
    float, typer.Option(help="Accuracy of guessing, in the table's own unit, for logit laws.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
RepeatsOption = Annotated[
    bool, typer.Option("--allow-repeats", help="Keep rows that are equal in every column.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the main application."""
    app.command("fit")(fit)


def fit(
    table: TableArgument,
    response: ResponseOption = None,
    factors: FactorsOption = None,
    law: LawOption = None,
    every: AllOption = False,
    clusters: ClustersOption = None,
    cells: CellsOption = None,
    kind: KindOption = None,
    unit: UnitOption = None,
    trials: TrialsOption = None,
    roles: RolesOption = None,
    objective: ObjectiveOption = "ls",
    delta: Annotated[float, typer.Option(help="Huber's bend, in natural logs.")] = 1e-3,
    chance: ChanceOption = 0.0,
    resample: Annotated[
        str | None, typer.Option(help="clusters (where there are any), cells, residual or wild.")
    ] = None,
    bootstrap: Annotated[int, typer.Option(help="Refits of the bootstrap; 0: none.")] = 2000,
    at: Annotated[
        str | None, typer.Option(help="A point, factor=value,...: its rho and leverage.")
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Profile every parameter, and the point.")
    ] = False,
    report: Annotated[Path | None, typer.Option(help="Write a page of the fit to here.")] = None,
    allow_repeats: RepeatsOption = False,
    json: JsonOption = False,
) -> None:
    """Fit laws to a table of runs, and say what the table cannot tell."""
    import json as text

    from mae_lib.scaling.describe import describe_fit

    checked = read(
        table, response, factors, clusters=clusters, cells=cells, kind=kind, unit=unit,
        trials=trials, roles=roles, allow_repeats=allow_repeats,
    )  # fmt: skip
    _check_report(report, table)
    names, left_out = chosen_laws(checked, law, every)
    options = {
        "objective": objective,
        "delta": delta,
        "chance": chance / checked.scale,
        "resample": resample,
        "bootstrap": bootstrap,
    }
    fits, failed = fit_each(checked, names, options, named=law is not None)
    left_out += failed
    point = parse_point(at) if at else None
    found = [describe_fit(one, at=point, profile=profile) for one in fits]
    if report:
        from mae_lib.report.fit_report import write_report

        write_report(
            fits,
            report,
            targets={"the point asked for": point} if point else None,
            about={"command": " ".join(["mae", *sys.argv[1:]])},
        )
    if json:
        for one in found:
            one["left_out"] = left_out
        print(text.dumps(found, indent=1))
        return
    from mae_lib.cli.law_lines import print_fits

    print_fits(checked, found, left_out)
    if report:
        print(f"report: {report}")


def _check_roles(roles: dict[str, str]) -> None:
    from mae_lib.errors import FitError
    from mae_lib.scaling.roles import ROLES
    from mae_lib.study.suggest import nearest

    known = (*ROLES, "compute")
    for role, column in roles.items():
        if role not in known:
            raise FitError(f"--roles: unknown role, got {role!r}{nearest(role, known)}")
        if list(roles.values()).count(column) > 1:
            raise FitError(f"--roles: {column}: cannot play two roles")


def _check_report(report: Path | None, table: Path) -> None:
    """Refuse a report that would replace the table, or that cannot be a page, before any fit."""
    from mae_lib.errors import FitError

    if report is None:
        return
    if report.suffix not in (".html", ".htm") or report.resolve() == table.resolve():
        raise FitError(f"--report: must name a new .html file, got {str(report)!r}")
    if not report.parent.is_dir() or report.is_dir():
        raise FitError(f"--report: {report.parent}: no such folder to write {report.name} into")


def read(table: Path, response: str | None, factors: str | None, **options):
    """Read a table with the options of the command line; lists come with commas between."""
    from mae_lib.scaling.read import read_table

    for key in ("cells",):
        if options.get(key):
            options[key] = split(options[key])
    if options.get("roles"):
        options["roles"] = _pairs(options["roles"], "--roles", "role=column")
        _check_roles(options["roles"])
    return read_table(table, response=response, factors=split(factors), **options)


def chosen_laws(table, law: str | None, every: bool) -> tuple[list[str], list[str]]:
    """Return the laws to fit, and a line for each that is left out.

    Raises: FitError when both `--law` and `--all` are given.
    """
    from mae_lib.errors import FitError
    from mae_lib.scaling.laws import law_named, usable_laws

    if law and every:
        raise FitError("--law and --all: give one of them")
    if law and law != "all":
        return [law_named(name).name for name in split(law)], []
    usable, reasons = usable_laws(table)
    return list(usable), list(reasons)


def fit_each(table, names: list[str], options: dict, *, named: bool):
    """Fit each law; one that cannot be fitted stops only where it was asked for by name."""
    from mae_lib.errors import FitError
    from mae_lib.scaling.fit import fit_law

    fits, left_out = [], []
    for name in names:
        try:
            fits.append(fit_law(table, name, **options))
        except FitError as error:
            if named or len(names) == 1:
                raise
            left_out.append(str(error) if str(error).startswith(name) else f"{name}: {error}")
    if not fits:
        more = f" (+{len(left_out) - 1} more)" if len(left_out) > 1 else ""
        raise FitError(left_out[0] + more if left_out else f"{table.name}: no law applies to it")
    return fits, left_out


def split(text: str | None) -> list[str]:
    """Split at commas, dropping spaces and empty parts."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def parse_point(at: str) -> dict[str, float]:
    """Read `factor=value,...`; raises FitError for what is no number."""
    from mae_lib.errors import FitError

    point = {}
    for name, value in _pairs(at, "--at", "factor=value").items():
        try:
            point[name] = float(value)
        except ValueError:
            raise FitError(f"--at: {name}: must be a number, got {value!r}") from None
    return point


def _pairs(text: str, option: str, form: str) -> dict[str, str]:
    from mae_lib.errors import FitError

    found = {}
    for part in split(text):
        name, sign, value = part.partition("=")
        if not (sign and name.strip() and value.strip()):
            raise FitError(f"{option}: {form} was expected, got {part!r}")
        if name.strip() in found:
            raise FitError(f"{option}: {name.strip()}: given twice")
        found[name.strip()] = value.strip()
    return found
