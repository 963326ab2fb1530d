"""`mae bench`: speed, each figure beside a peer measured in the same run."""

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands to the main application."""
    bench = typer.Typer(help="Measure speed beside a peer.", no_args_is_help=True)
    bench.callback()(_group)
    bench.command("step")(step)
    app.add_typer(bench, name="bench")


def _group() -> None:
    """Measure speed beside a peer."""


def step(
    against: Annotated[str, typer.Option(help="The peer: transformers.")] = "transformers",
    model: Annotated[str, typer.Option(help="One of the models of the grid.")] = "vit_small",
    patch_size: int = 8,
    resolution: int = 64,
    batch: int = 64,
    dtype: Annotated[str, typer.Option(help="fp32 or bf16; the peer runs in fp32.")] = "fp32",
    rounds: Annotated[int, typer.Option(min=3)] = 9,
    threads: int = 2,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Time one training step beside Hugging Face's, interleaved, medians."""
    import json as text

    from mae_lib.bench.step import bench_step

    rows = bench_step(
        model=model, patch_size=patch_size, resolution=resolution, batch=batch, dtype=dtype,
        against=against, rounds=rounds, threads=threads,
    )  # fmt: skip
    if json:
        print(text.dumps(rows, indent=1))
        return
    for row in rows:
        print(f"{row['model']} {row['dtype']}: ours {row['ours_images_per_s']:.1f} images/s, "
              f"{row['peer']} {row['peer_images_per_s']:.1f}, ratio {row['ratio']:.2f}")
