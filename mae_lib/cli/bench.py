"""`mae bench`: how fast the pieces are on this machine, beside others'."""

from pathlib import Path
from typing import Annotated

import typer

from mae_lib.cli import bench_data, bench_gpu


def register(app: typer.Typer) -> None:
    """Add the commands to the main application."""
    bench = typer.Typer(help="Measure speed on this machine.", no_args_is_help=True)
    bench.command("step")(step)
    bench.command("calibrate")(calibrate)
    bench.command("planner")(planner)
    bench.command("coverage")(coverage)
    bench.command("law")(law)
    bench_gpu.register(bench)
    bench_data.register(bench)
    app.add_typer(bench, name="bench")


def step(
    against: Annotated[str, typer.Option(help="transformers or textbook.")] = "transformers",
    model: Annotated[
        str | None, typer.Option(help="A model of the grid. Default: S/8@64, Ti/4@32, B/16@224.")
    ] = None,
    patch_size: Annotated[int, typer.Option(help="Side of a patch, pixels.")] = 8,
    resolution: Annotated[int, typer.Option(help="Side of an image, pixels.")] = 64,
    batch: Annotated[int, typer.Option(help="Images a step.")] = 64,
    dtype: Annotated[
        list[str] | None, typer.Option(help="fp32 or bf16; may be given twice. Default: both.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Interleaved rounds; medians are printed.")] = 9,
    threads: Annotated[int, typer.Option(help="Threads of the processor.")] = 2,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Time a whole training step of ours against a peer's, as it comes and tuned by hand.

    Patch size, resolution and batch go with --model; without it the three settings of the
    published table are run.
    """
    from mae_lib.bench.step import SETTINGS, bench_step

    settings = [(model, patch_size, resolution, batch)] if model else SETTINGS
    rows = []
    for setting in settings:
        for each in dtype or ["fp32", "bf16"]:
            found = bench_step(*setting, each, against=against, rounds=rounds, threads=threads)
            rows += found
            if not json:
                _print_table(found)
    if json:
        import json as as_json

        print(as_json.dumps(rows, indent=1))


def calibrate(
    threads: Annotated[
        int | None, typer.Option(help="Threads of the processor; default: all.", min=1)
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Measure, whatever is cached.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show which of several equal ways pays on this processor, and what is taken."""
    import json as as_json
    from dataclasses import asdict

    from mae_lib.kernels import calibrate
    from mae_lib.records.provenance import available_cores, processor

    threads = threads or available_cores()
    path = calibrate.cache_path(threads)
    if again:
        path.unlink(missing_ok=True)
    trials = calibrate.calibration(threads)
    if json:
        rows = [asdict(trial) for trial in trials]
        print(
            as_json.dumps({"processor": processor(), "threads": threads, "trials": rows}, indent=1)
        )
    else:
        _print_trials(trials, f"{processor()}, {threads} threads; kept in {path}")


def planner(
    repeats: Annotated[int, typer.Option(help="Simulated studies a truth.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the simulation.")] = 0,
    answer: Annotated[
        str, typer.Option(help="batched, or engine: the stack of `mae predict`, 0.1 s each.")
    ] = "batched",
    truth: Annotated[
        list[str] | None, typer.Option(help="Only this truth; may be given twice. Default: all.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Simulate studies planned in several ways at equal cost, and score their predictions."""
    from mae_lib.bench.planner import bench_planner

    options = {"truths": truth} if truth else {}
    found = bench_planner(repeats=repeats, seed=seed, answer=answer, **options)
    if json:
        import json as as_json

        print(as_json.dumps(found, indent=1))
    else:
        from mae_lib.cli.plan_law import print_planner_bench

        print_planner_bench(found)


def coverage(
    folder: Annotated[
        Path | None, typer.Argument(help="Tables of runs; default: the folder MAE_GRIDS names.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Measure how often intervals hold what was left out of real grids, one study left out."""
    import json as as_json

    from mae_lib.bench.coverage import bench_coverage
    from mae_lib.bench.grids import load_grids
    from mae_lib.cli.bench_law import print_coverage

    found = bench_coverage(load_grids(_folder(folder)))
    if json:
        print(as_json.dumps(found, indent=1))
    else:
        print_coverage(found)


def law(
    folder: Annotated[
        Path | None, typer.Argument(help="Tables of runs; default: the folder MAE_GRIDS names.")
    ] = None,
    bootstrap: Annotated[int, typer.Option(help="Refits of the bootstrap.")] = 2000,
    rounds: Annotated[int, typer.Option(help="Interleaved rounds; medians are printed.")] = 3,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Time our fits beside a loop of scipy's, and beside the chinchilla package where installed."""
    import json as as_json

    from mae_lib.bench.law import bench_law
    from mae_lib.cli.bench_law import print_law

    found = bench_law(_folder(folder), bootstrap=bootstrap, rounds=rounds)
    if json:
        print(as_json.dumps(found, indent=1))
    else:
        print_law(found)


def _folder(folder: Path | None) -> Path:
    import os

    from mae_lib.errors import FitError

    if folder is None and not os.environ.get("MAE_GRIDS"):
        raise FitError("folder: not given, and MAE_GRIDS is not set; name the folder of the grids")
    found = folder or Path(os.environ["MAE_GRIDS"])
    if not found.is_dir():
        raise FitError(f"{found}: is no folder")
    return found


def _print_table(rows: list[dict]) -> None:
    from rich.console import Console
    from rich.table import Table

    first = rows[0]
    table = Table(
        title=f"{first['model']}/{first['patch_size']} at {first['resolution']} px, batch "
        f"{first['batch']}, {first['threads']} threads, median of {first['rounds']}",
        box=None,
        title_justify="left",
    )
    for name in ("dtype", "ours, images/s", "peer", "peer, images/s", "ratio", "p20 to p80"):
        table.add_column(name, justify="left" if name in ("dtype", "peer") else "right")
    for row in rows:
        table.add_row(
            row["dtype"],
            f"{row['ours_images_per_s']:,.0f}",
            row["peer"],
            f"{row['peer_images_per_s']:,.0f}",
            f"{row['ratio']:.2f}",
            f"{row['ratio_p20']:.2f} to {row['ratio_p80']:.2f}",
        )
    Console().print(table)


def _print_trials(trials, title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None)
    for name in ("choice", "default", "rival", "gain", "p20 to p80", "taken"):
        table.add_column(name, justify="right" if name in ("gain", "p20 to p80") else "left")
    for trial in trials:
        table.add_row(
            trial.choice,
            trial.default,
            trial.rival,
            f"{trial.ratio:.2f}",
            f"{trial.low:.2f} to {trial.high:.2f}",
            f"{trial.taken} (advice)" if trial.advice else trial.taken,
        )
    print(title)
    Console().print(table)
