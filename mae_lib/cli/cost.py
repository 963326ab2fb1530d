"""`mae cost`: parameters, FLOPs, memory and hours of any cell on any device, before anything runs."""

import json as as_json
import math
from dataclasses import asdict
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the main application."""
    app.command("cost")(cost)


def cost(
    model: Annotated[str, typer.Option(help="A model of the grid.")] = "vit_large",
    resolution: Annotated[int, typer.Option(help="Side of an image, pixels.")] = 256,
    patch_size: Annotated[int, typer.Option(help="Side of a patch, pixels.")] = 16,
    mask_ratio: Annotated[float, typer.Option(help="Share of patches removed.")] = 0.8,
    images_seen: Annotated[float, typer.Option(help="Passes x distinct images.")] = 1e8,
    device: Annotated[str, typer.Option(help="h200, h100, a100, a6000, v100 or cpu.")] = "h200",
    decoder_dim: Annotated[int | None, typer.Option(help="Default: the model's own.")] = None,
    decoder_depth: Annotated[int | None, typer.Option(help="Default: the model's own.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """Print what a cell would take."""
    from mae_lib.cost import cost_of_sizes
    from mae_lib.devices import device_named, devices_for, hours, spread

    _check(model, resolution, patch_size, mask_ratio, images_seen, decoder_dim, decoder_depth)
    machine = device_named(device)
    counted = cost_of_sizes(
        model,
        pixels=resolution,
        patch_size=patch_size,
        mask_ratio=mask_ratio,
        decoder_dim=decoder_dim,
        decoder_depth=decoder_depth,
    )
    plan, total = spread(counted, machine), hours(counted, machine, images_seen)
    values = {
        "format": 1,
        "model": model,
        "resolution": resolution,
        "pixels": resolution - resolution % patch_size,
        "patch_size": patch_size,
        "mask_ratio": mask_ratio,
        "images_seen": images_seen,
        **asdict(counted),
        "train_flops": counted.flops_per_image * images_seen,
        "weight_bytes_16_bit": 2 * counted.params_total,
        "device": asdict(machine),
        "devices_for_weights": devices_for(2 * counted.params_total, machine),
        "devices_for_states": devices_for(counted.state_bytes, machine),
        "parallelism": asdict(plan) | {"spread": str(plan)},
        "device_hours": total,
        "days": total / plan.devices / 24,
        "images_per_s_per_device": images_seen / total / 3600,
    }
    print(as_json.dumps(values, indent=1) if json else _lines(values))


def _check(
    model, resolution, patch_size, mask_ratio, images_seen, decoder_dim, decoder_depth
) -> None:
    from mae_lib.errors import StudyError
    from mae_lib.study.models import require_decoder

    sizes = {"resolution": resolution, "patch_size": patch_size}
    sizes |= {"decoder_dim": decoder_dim, "decoder_depth": decoder_depth}
    for name, value in sizes.items():
        if value is not None and not 1 <= value <= 1_000_000:
            raise StudyError(f"{name}: from 1 to 1,000,000, got {value}")
    if not (math.isfinite(images_seen) and images_seen > 0):
        raise StudyError(f"images_seen: more than 0, got {images_seen:g}")
    if patch_size > resolution:
        raise StudyError(
            f"patch_size: at most the resolution of {resolution} pixels, got {patch_size}"
        )
    require_decoder(model, decoder_dim)
    tokens = (resolution // patch_size) ** 2
    if not 0 < mask_ratio < 1 or not 0 < int(tokens * (1 - mask_ratio)) < tokens:
        raise StudyError(
            f"mask_ratio: at least one of {tokens:,} patches must be visible and one masked, "
            f"got {mask_ratio:g} at {resolution} px, patch {patch_size}"
        )


def _lines(v: dict) -> str:
    device, plan = v["device"], v["parallelism"]
    dropped = "" if v["pixels"] == v["resolution"] else f" ({v['pixels']} px reach the encoder)"
    share = v["flops_attention"] / v["flops_per_image"]
    decoder = v["flops_decoder"] / v["flops_per_image"]
    rows = {
        "model": f"{v['model']}, {_count(v['params_encoder'])} parameters, "
        f"{_count(v['params_total'])} with its decoder",
        "image": f"{v['resolution']} px, patch {v['patch_size']}{dropped}: {v['kept']:,} of "
        f"{v['tokens']:,} patches visible",
        "training": f"{v['flops_per_image']:.3g} FLOP an image (encoder attention {share:.1%}, "
        f"decoder {decoder:.1%}); {v['train_flops']:.3g} for {v['images_seen']:,.0f} images",
        "features": f"{v['flops_forward_full']:.3g} FLOP for an unmasked image",
        "memory": f"weights in 16 bits {_bytes(v['weight_bytes_16_bit'])} "
        f"({v['devices_for_weights']} x {device['name']}), AdamW states "
        f"{_bytes(v['state_bytes'])} ({v['devices_for_states']})",
        "activations": f"{_bytes(v['activation_bytes_per_image'])} an image in 16 bits, "
        f"{_bytes(v['checkpointed_bytes_per_image'])} when recomputed",
        "spread": f"{plan['spread']}; {plan['micro_batch']:,} images at a time, "
        f"{_bytes(plan['bytes_per_device'])} a device",
        "time": f"{v['device_hours']:,.3g} device-hours, {v['days']:,.3g} days on {plan['devices']} "
        f"({v['images_per_s_per_device']:,.3g} images/s a device)",
        "assumes": f"{device['utilisation']:.0%} of {device['peak_flops'] / 1e12:,.3g} TFLOP/s: "
        f"{device['source']}",
    }
    return "\n".join(f"{name:<12}{value}" for name, value in rows.items())


def _count(number: int) -> str:
    for limit, word in ((1e9, "billion"), (1e6, "million")):
        if number >= limit:
            return f"{number / limit:.4g} {word}"
    return f"{number:,}"


def _bytes(number: float) -> str:
    for limit, word in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if number >= limit:
            return f"{number / limit:.3g} {word}"
    return f"{number / 1e3:.3g} kB"
