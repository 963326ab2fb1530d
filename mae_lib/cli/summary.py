"""What a run ends with: the table of cells, the fitted laws, and where the book is."""

import pandas as pd
from rich.console import Console
from rich.table import Table

from mae_lib.records.sidecar import read_list, read_table
from mae_lib.report.book_step import book_output
from mae_lib.study.definition import Study
from mae_lib.study.paths import RunPaths

WIDTH = 132


def print_summary(study: Study, paths: RunPaths) -> None:
    """Print the cells, each beside its baselines, the laws, and the path of the book."""
    console = wide_console()
    if paths.runs_csv.exists():
        runs = read_table(paths.runs_csv)
        console.print(cells_table(runs))
    if paths.fit_json.exists():
        console.print(laws_table(read_list(paths.fit_json)))
    if (index := book_output(paths)).exists():
        print(f"book: {index}")


def wide_console() -> Console:
    """Return a console that never cuts a column: a narrow terminal wraps its lines instead."""
    return Console(width=max(Console().width, WIDTH))


def cells_table(runs: pd.DataFrame) -> Table:
    """Lay the rows of runs.csv out for a terminal: top-1 in percent, with its 95 % interval."""
    table = Table(title="cells: top-1 in %, 95 % interval, baselines", title_justify="left")
    for name in ("cell", "task", "protocol", "top-1", "interval", "chance", "pixels", "random"):
        justify = "left" if name in ("cell", "task", "protocol") else "right"
        table.add_column(name, justify=justify, no_wrap=True)
    random = [name for name in runs.columns if name.startswith("random")]
    for row in runs.itertuples():
        if row.status != "complete":
            table.add_row(row.cell, "-", "-", row.status, "-", "-", "-", "-")
            continue
        best_random = max(getattr(row, name) for name in random)
        table.add_row(
            row.cell, row.task, row.protocol, _percent(row.top1),
            f"{_percent(row.top1_low)} to {_percent(row.top1_high)}", _percent(row.chance),
            _percent(row.pixels_top1), _percent(best_random),
        )  # fmt: skip
    return table


def laws_table(fits: list[dict]) -> Table:
    """Lay the fitted laws out: residual, criterion and parameters."""
    table = Table(title="laws", title_justify="left")
    for name in ("law", "n", "RMSE (points)", "AICc", "parameters"):
        table.add_column(name, justify="left" if name in ("law", "parameters") else "right")
    for fit in fits:
        parameters = ", ".join(
            f"{k.removeprefix('per_ln_')} {v:.3g}" for k, v in fit["params"].items()
        )
        aicc = "-" if fit["aicc"] is None else f"{fit['aicc']:.1f}"
        table.add_row(fit["law"], str(fit["n"]), f"{100 * fit['rmse']:.2f}", aicc, parameters)
    return table


def print_status(study: Study, paths: RunPaths) -> None:
    """Print one line a cell: complete, diverged, failed, training (how far, how fast), or not begun;
    beside a cell that trains, the speeds that others have published of its like."""
    from mae_lib.report.anchors import anchors_of
    from mae_lib.report.book_step import book_is_current
    from mae_lib.report.progress import cell_state

    states = [(cell.id, cell_state(paths.cell(cell.id))) for cell in study.cells]
    for cell, (cell_id, state) in zip(study.cells, states, strict=True):
        print(f"{cell_id}  {state}")
        for anchor in anchors_of(cell) if state.startswith("training") else ():
            print(
                f"    published: {anchor.images_per_s:,.0f} images/s on one {anchor.device}, "
                f"mask ratio 0.75 ({anchor.source})"
            )
    done = sum(state.startswith("complete") for _, state in states)
    book = "built" if book_is_current(study, paths) else "not built from these cells"
    print(f"{study.name}: {done} of {len(states)} cells complete; book {book}")


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"
