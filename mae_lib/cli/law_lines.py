"""Fitted laws as a person reads them: one row a law, its parameters, then every note once."""

from collections.abc import Sequence

WIDTH = 132
# A law of more parameters than this (cell means) shows them in JSON only.
MOST_PARAMETERS = 12


def print_fits(table, found: Sequence[dict], left_out: Sequence[str]) -> None:
    """Print described fits, in the table's own unit, with notes and what was left out."""
    from rich.console import Console

    from mae_lib.scaling.describe import law_notes

    console = Console(highlight=False)
    # A narrow terminal wraps lines; cut columns would hide the numbers.
    console = Console(width=max(console.width, WIDTH), soft_wrap=True, highlight=False)
    first = found[0]
    unit = {"percent": "points", "fraction": "fraction", "native": "as in the table"}
    in_logs = first["objective"] in ("log", "huber")
    called = "log" if in_logs else unit[first["unit"]["response"]]
    print(
        f"{table.name}: {table.response} by {', '.join(table.factors)}; {first['n']} runs, "
        f"{int(table.cell_codes.max()) + 1} cells"
        + (f", {int(table.cluster_codes.max()) + 1} clusters" if table.clusters else "")
    )
    scale = 1.0 if in_logs else table.scale
    console.print(_laws(found, called, scale))
    if table.scale == 100 and not in_logs:
        print("parameters, their intervals and errors are of the fraction (1 = 100 percent)")
    for one in found:
        if one["k"] <= MOST_PARAMETERS:
            console.print(_parameters(one))
        else:
            print(f"{one['law']}: {one['formula']}; its {one['k']} parameters are in --json")
    _print_shared(first)
    if "target" in first:
        _print_target(table, found)
    for line in left_out:
        print(f"left out: {line}")
    for note in law_notes(found):
        print(f"note: {note}")


def _laws(found: Sequence[dict], called: str, scale: float):
    from rich.table import Table

    shown = Table(title="laws", title_justify="left")
    names = ("law", "k", f"RMSE ({called})", "AICc", "lack of fit p", "starts", "rank", "condition")
    for name in names:
        shown.add_column(name, justify="left" if name == "law" else "right", no_wrap=True)
    for one in found:
        block, starts, lack = one["identifiability"], one["starts"], one["lack_of_fit"]
        shown.add_row(
            one["law"], str(one["k"]), f"{scale * one['rmse']:.4g}",
            _number(one["aicc"], ".2f"), _number(lack and lack["p"], ".2g"),
            f"{starts['agreeing']} of {starts['tried']} agree",
            f"{block['effective_rank']} of {block['parameters']}",
            _number(block["condition"], ".3g"),
        )  # fmt: skip
    return shown


def _parameters(one: dict):
    from rich.table import Table

    about, errors = one["bootstrap"], one["standard_errors"] or {}
    clustered = errors.get("cr1") is not None
    title = f"{one['law']}: {one['formula']}"
    shown = Table(title=title, title_justify="left", box=None)
    level = f"{100 * about.get('level', 0.95):g} %"
    columns = ["parameter", "value", f"{level} ({about['unit']})", "SE"]
    columns += ["cluster SE"] * clustered + [f"{level} profile"] * ("profiles" in one)
    for name in columns:
        shown.add_column(name, justify="left" if name == "parameter" else "right")
    for name, value in one["params"].items():
        low, high = one["intervals"][name]
        row = [name, f"{value:.5g}", f"{_number(low)} to {_number(high)}"]
        row.append(_number((errors.get("ols") or {}).get(name)))
        if clustered:
            row.append(_number(errors["cr1"][name]))
        if "profiles" in one:
            row.append(one["profiles"][name]["words"].removeprefix(f"{name}: "))
        shown.add_row(*row)
    if about["failed"]:
        shown.caption = f"{about['failed']} of {about['refits']} refits failed and are left out"
    return shown


def _print_shared(one: dict) -> None:
    """Print what belongs to the table and not to a law."""
    table_scale = one["unit"]["scale"]
    if pure := one["pure_error"]:
        print(
            f"pure error: SD {table_scale * pure['sd']:.4g} on {pure['df']} degrees of freedom, "
            f"{pure['cells']} cells"
        )
    if effect := one["cluster_effect"]:
        print(
            f"clusters: F({effect['df'][0]}, {effect['df'][1]}) = {effect['f']:.3g}, "
            f"p = {effect['p']:.2g}, intraclass correlation {effect['icc']:.3f}"
        )


def _print_target(table, found: Sequence[dict]) -> None:
    at = ", ".join(f"{k}={v:.6g}" for k, v in found[0]["target"]["at"].items())
    rho = ", ".join(f"{k} {v:.2f}" for k, v in found[0]["target"]["rho"].items())
    print(f"at {at}: rho {rho}")
    for one in found:
        target = one["target"]
        if target["value"] is None:
            print(f"  {one['law']:18} says nothing there")
            continue
        line = f"  {one['law']:18} {table.scale * target['value']:.5g}, leverage "
        line += _number(target["leverage"])
        if profile := target.get("profile"):
            ends = [
                "not bounded by the data" if profile[side] is None
                else f"{table.scale * profile[side]:.5g}"
                for side in ("low", "high")
            ]  # fmt: skip
            line += f", profile {ends[0]} to {ends[1]}"
        print(line)


def _number(value: float | None, form: str = ".4g") -> str:
    return "-" if value is None else f"{value:{form}}"
