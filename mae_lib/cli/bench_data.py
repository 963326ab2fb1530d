"""`mae bench data`: JPEG bytes to a packed store, random batches, and training with either."""

from typing import Annotated

import typer

PARTS = ("pack", "scale", "read", "train")


def register(bench: typer.Typer) -> None:
    """Add the command to `mae bench`."""
    bench.command("data")(data)


def data(
    images: Annotated[int, typer.Option(min=8, help="JPEG files of 500 x 375.")] = 512,
    stored: Annotated[int, typer.Option(min=64, help="Images in the store that is read.")] = 12_000,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; medians are printed.")] = 9,
    threads: Annotated[int, typer.Option(min=1, help="Threads of training.")] = 2,
    dtype: Annotated[str, typer.Option(help="fp32 or bf16, of training.")] = "bf16",
    part: Annotated[
        list[str] | None, typer.Option(help="pack, scale, read or train; may be given twice.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """Time the data path beside plain Pillow, a JPEG-folder DataLoader and a peer's whole loop."""
    from mae_lib.bench.data import bench_data
    from mae_lib.study.known import require_known

    parts = tuple(part or PARTS)
    require_known("part", parts, PARTS)
    require_known("dtype", [dtype], ("fp32", "bf16"))
    found = bench_data(
        images=images, stored=stored, rounds=rounds, threads=threads, dtype=dtype, parts=parts
    )
    if json:
        import json as as_json

        print(as_json.dumps(found, indent=1))
    else:
        _print(found)


def _print(found: dict) -> None:
    jpegs = found["jpegs"]
    size = " x ".join(map(str, jpegs["size"]))
    print(f"{found['processor']}; JPEGs of {size}, {jpegs['mean_bytes']:,} bytes, {jpegs['from']}")
    if pack := found.get("pack"):
        for name, rate in pack["images_per_s"].items():
            print(f"  {name:14} {rate:9,.0f} images/s a core, to {pack['side']} pixels")
        print(f"  packing, ours over the plain loop    {_times(pack['ratio'])}")
        print(f"  packing, fast road over Pillow's     {_times(pack['ratio_same_proofs'])}")
        print(f"  decoding alone                       {_times(pack['decode_ratio'])}")
        error = pack["error"]
        print(f"  error in grey levels: mean {error['mean']}, worst image {error['worst_image']}")
    if scale := found.get("scale"):
        print(f"  two processes over one               {_times(scale['ratio'])}")
    if there := found.get("projection"):
        print(
            f"  {there['images']:,} images on {there['cores']} cores: "
            f"{there['seconds_by_one_core_rate']:g} s by the rate of one core, "
            f"{there['seconds_with_measured_scaling']:g} s with the scaling measured here"
        )
    if read := found.get("read"):
        for name, rate in read["images_per_s"].items():
            print(f"  {name:14} {rate:9,.0f} images/s, batches of {read['batch']}")
        print(f"  store over DataLoader                {_times(read['ratio'])}")
    for row in found.get("train", ()):
        print(
            f"  training {row['ours_images_per_s']:,.0f} images/s, {row['peer']} "
            f"{row['peer_images_per_s']:,.0f}: {row['ratio']:.2f}x "
            f"({row['ratio_p20']:.2f} to {row['ratio_p80']:.2f})"
        )


def _times(ratio: dict) -> str:
    return f"{ratio['median']:.2f}x ({ratio['p20']:.2f} to {ratio['p80']:.2f})"
