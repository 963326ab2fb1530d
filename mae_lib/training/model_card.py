"""The card of published weights: what they are, how they were made, how good, how to load them.

Every number comes from the cell's sealed files; nothing is written by hand.
"""

from collections.abc import Callable, Mapping, Sequence

from mae_lib.cost import cost_of
from mae_lib.model.described import Sizes, sizes_of
from mae_lib.model.mae import MaskedAutoencoder
from mae_lib.study.definition import Cell

_LIBRARIES = {"hf": "transformers", "timm": "timm", "mae": "pytorch"}


def card_of_cell(
    cell: Cell,
    model: MaskedAutoencoder,
    training: Mapping,
    record: Mapping,
    to: str,
    files: Sequence[str],
) -> str:
    """Return README.md for a finished cell."""
    sizes, cost = sizes_of(model), cost_of(cell)
    environment, drawn = training["environment"], cell.data.kind == "procedural"
    sources = ", ".join(f"{source.name} {source.share:.1%}" for source in cell.data.sources)
    licence = "apache-2.0" if drawn else "other"
    lines = [
        *_head(to, licence),
        f"# {cell.id}",
        "",
        f"A masked auto-encoder ({cell.model}) pretrained from random weights on "
        f"{cell.images:,} distinct {'procedural ' if drawn else ''}images of {cell.pixels} px, one "
        "cell of a scaling grid. It is evidence for a law, not a model to deploy.",
        "",
        *_table(
            ("what", "value"),
            [
                *_size_rows(sizes),
                ("parameters, encoder", f"{cost.params_encoder:,}"),
                ("parameters, with decoder", f"{cost.params_total:,}"),
                ("images seen", f"{training['images_seen']:,} in {training['steps']:,} steps"),
                ("training FLOP", f"{cost.flops_per_image * training['images_seen']:.3g}"),
                ("mask ratio, rule", f"{cell.mask_ratio:g}, {cell.recipe.keep_rule}"),
                ("precision", cell.recipe.precision),
                ("base rate, batch", f"{cell.recipe.base_lr:g}, {cell.recipe.batch_size}"),
                ("last training loss", f"{training['loss']:.4g}"),
                ("seed", f"{cell.seed}"),
            ],
        ),
        "## Pretraining images",
        "",
        f"Mixture: {sources}. "
        + (
            "All are drawn by this project's own program, so nothing of anybody's is in them."
            if drawn
            else "The photographs keep their publishers' terms, which may bind these weights."
        ),
        "",
        "## Scores",
        "",
        *_score_lines(record["rows"], cell.evaluation.neighbours),
        *_loading(to, sizes),
        "## Limits",
        "",
        *_limits(sizes, cell.mask_ratio),
        "## Provenance",
        "",
        *_table(
            ("what", "value"),
            [
                ("cell, digest", f"{cell.id}, {cell.digest}"),
                ("data digest", cell.data.digest),
                ("code", str(record["rows"][0]["commit"])),
                ("sha256 of the trained weights", training["weights_sha256"]),
                ("processor, device", f"{environment['processor']}, {environment['device']}"),
                ("threads, wall time", f"{environment['threads']}, {training['wall_s']:.0f} s"),
                ("versions", ", ".join(f"{n} {v}" for n, v in environment["versions"].items())),
            ],
        ),
        *_tail(files),
    ]
    return "\n".join(lines)


def card_of_checkpoint(
    model: MaskedAutoencoder, made: Mapping, to: str, files: Sequence[str]
) -> str:
    """Return README.md for a checkpoint made elsewhere: what is known of it is little, and said."""
    sizes = sizes_of(model)
    lines = [
        *_head(to, "other"),
        "# A converted masked auto-encoder",
        "",
        "Converted, not trained here: how it was trained, on what and under which licence is for "
        "its publisher to say.",
        "",
        *_table(
            ("what", "value"),
            [*_size_rows(sizes), ("source", str(made["source"])),
             ("sha256 of the source", str(made["source_sha256"]))],
        ),
        *_loading(to, sizes),
        *_tail(files),
    ]  # fmt: skip
    return "\n".join(lines)


def _head(to: str, licence: str) -> list[str]:
    return [
        "---",
        f"library_name: {_LIBRARIES[to]}",
        f"license: {licence}",
        "pipeline_tag: image-feature-extraction",
        "tags: [masked-autoencoder, vision-transformer, scaling-laws]",
        "---",
        "",
    ]


def _size_rows(sizes: Sizes) -> list[tuple[str, str]]:
    shape = sizes.shape
    return [
        ("encoder", f"width {shape.embed_dim}, depth {shape.depth}, {shape.num_heads} heads"),
        ("stem", (shape.stem or "patch embedding") + (", in tiles" if shape.stem_tiles else "")),
        (
            "decoder",
            f"width {shape.decoder_dim}, depth {shape.decoder_depth}, {shape.decoder_heads} heads",
        ),
        ("image, patch", f"{sizes.pixels} px, {sizes.patch_size} px"),
        ("visible patches", f"{sizes.keep} of {(sizes.pixels // sizes.patch_size) ** 2}"),
        ("targets", "pixels scaled by each patch's mean and SD" if sizes.norm_pix else "pixels"),
    ]


def _score_lines(rows: Sequence[Mapping], neighbours: int) -> list[str]:
    scored = [row for row in rows if row.get("top1") is not None]
    if not scored:
        return ["None were recorded.", ""]
    body = [
        (
            f"{row['task']}, {row['protocol']}",
            f"{100 * row['top1']:.1f} ({100 * row['top1_low']:.1f} to {100 * row['top1_high']:.1f})",
            f"{row['n_eval']:,}",
            f"{100 * row['chance']:.1f}",
            f"{100 * row['pixels_top1']:.1f}",
            f"{100 * max(v for k, v in row.items() if k.startswith('random')):.1f}",
        )
        for row in scored
    ]
    head = ("task, protocol", "top-1 %, 95 % interval", "test images", "chance", "raw pixels",
            "best random weights")  # fmt: skip
    return [
        "Frozen features of unmasked images; `linear` is ridge on the mean of patch tokens, `knn` "
        f"{neighbours} cosine neighbours on four pooled quadrants. One training run, so the "
        "interval is that of the test images alone.",
        "",
        *_table(head, body),
    ]


def _limits(sizes: Sizes, mask_ratio: float) -> list[str]:
    lines = [
        f"- Images must be {sizes.pixels} px a side, normalised by ImageNet's mean and SD.",
        "- Labels were used for the scores only; the features have no head.",
        f"- One seed and one mask ratio ({mask_ratio:g}); the loss depends on both and on the "
        "patch, so compare losses only between equal patches and ratios.",
    ]
    if sizes.shape.stem_tiles:
        lines.append(
            "- The stem saw each patch as an image of its own. timm's model runs it on the whole "
            "image: the weights load, the features differ; use `model_from(...).encode`."
        )
    elif sizes.shape.stem:
        lines.append("- Training filled masked pixels with the mean before the stem.")
    return [*lines, ""]


def _load_hf(sizes: Sizes) -> str:
    return """from transformers import ViTMAEForPreTraining

model = ViTMAEForPreTraining.from_pretrained("FOLDER")
model(pixel_values=images, noise=noise).loss  # noise fixes the mask, [batch, patches]"""


def _load_timm(sizes: Sizes) -> str:
    return """import timm

encoder = timm.create_model("local-dir:FOLDER", pretrained=True)
encoder.forward_features(images)  # class token first; the decoder lies in decoder.safetensors"""


def _load_mae(sizes: Sizes) -> str:
    return """from safetensors.torch import load_file

tensors = load_file("FOLDER/model.safetensors")  # the names of facebookresearch/mae"""


_LOADING: dict[str, Callable[[Sizes], str]] = {
    "hf": _load_hf,
    "timm": _load_timm,
    "mae": _load_mae,
}


def _loading(to: str, sizes: Sizes) -> list[str]:
    ours = """from mae_lib.model.described import model_from

model = model_from("FOLDER")  # this project's own, decoder included"""
    return ["## Loading", "", "```python", _LOADING[to](sizes), "", ours, "```", ""]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    # A bar in a value would open a column, a line break would end the table.
    clean = [[" ".join(str(v).replace("|", "/").split()) for v in line] for line in lines]
    return [*(f"| {' | '.join(line)} |" for line in clean), ""]


def _tail(files: Sequence[str]) -> list[str]:
    return [f"Hashes of {', '.join(files)} and this card lie in `provenance.json`.", ""]
