"""`mae refit`: fit the public grids and the claim's numbers again, and publish what follows."""

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the main application."""
    app.command("refit")(refit)


def refit() -> None:
    """Refit all that is published: the studies' runs, the public grids, and the claim's numbers.

    Tables without a licence are read from MAE_GRIDS; without it their published fits stay.
    """
    from mae_lib.cli.publication import write_answer
    from mae_lib.report.decide import write_claim
    from mae_lib.report.public_grids import UNLICENSED, table_path, write_refits
    from mae_lib.report.results import refit_published
    from mae_lib.study.load import load_study
    from mae_lib.study.paths import root

    for runs in sorted((root() / "results").glob("*/runs.csv")):
        folder = refit_published(load_study(runs.parent.name))
        write_answer(folder)
        print(f"results/{folder.name}: fit.json, predictions.csv, answer.svg")
    for name in (name for name in UNLICENSED if table_path(name) is None):
        print(f"{name}: MAE_GRIDS does not hold it, its published fits are kept")
    print(f"results/grids/refits.json: {len(write_refits()['parts'])} refits")
    numbers = write_claim()
    held = sum(verdict["holds"] for verdict in numbers["verdicts"])
    print(f"results/claim.json: {numbers['decision']}, {held} of {len(numbers['verdicts'])} hold")
