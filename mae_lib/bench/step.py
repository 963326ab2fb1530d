"""One training step of ours beside Hugging Face's masked auto-encoder, interleaved in one process."""

import importlib.metadata
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from mae_lib.errors import StudyError
from mae_lib.kernels import choose
from mae_lib.model.mae import MaskedAutoencoder, compute_dtype
from mae_lib.model.masking import keep_count, patch_order
from mae_lib.records.provenance import processor
from mae_lib.study.models import ModelShape, model_shape

MASK_RATIO = 0.8


def bench_step(
    *,
    model: str = "vit_small",
    patch_size: int = 8,
    resolution: int = 64,
    batch: int = 64,
    dtype: str = "fp32",
    against: str = "transformers",
    rounds: int = 9,
    threads: int = 2,
) -> list[dict]:
    """Return one row a peer: Hugging Face as it comes, and tuned by hand.

    A step is forward, backward and AdamW on pixels that are already cropped. Rounds alternate
    between ours and the peers; figures are medians, `ratio` the median of paired ratios.
    Raises: StudyError when the peer is not installed.
    """
    if against != "transformers":
        raise StudyError(f"--against: transformers is the peer, got {against!r}")
    try:
        import transformers
    except ImportError:
        raise StudyError(
            '--against: transformers is not installed; pip install "mae-lib[peers]"'
        ) from None
    torch.set_num_threads(threads)
    shape = model_shape(model)
    setting = {"pixels": resolution, "patch_size": patch_size}
    images = torch.randn(batch, resolution, resolution, 3)
    steps = {"ours": _our_step(shape, setting, dtype, images)}
    for name in ("transformers", "transformers, tuned"):
        steps[name] = _their_step(transformers, shape, setting, images, "tuned" in name)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 2):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if number >= 2:
                times[name].append(time.perf_counter() - started)
    rows = []
    for name in times:
        if name == "ours":
            continue
        paired = [b / a for a, b in zip(times["ours"], times[name], strict=True)]
        rows.append(
            {
                "model": model,
                "dtype": dtype,
                "ours_images_per_s": batch / statistics.median(times["ours"]),
                "peer": name,
                "peer_images_per_s": batch / statistics.median(times[name]),
                "ratio": statistics.median(paired),
                "ratio_p20_p80": np.quantile(paired, [0.2, 0.8]).tolist(),
                "batch": batch,
                "patch_size": patch_size,
                "resolution": resolution,
                "decoder": [shape.decoder_dim, shape.decoder_depth],
                "threads": threads,
                "rounds": rounds,
                "processor": processor(),
                "kernels": choose.best(),
                "versions": {p: importlib.metadata.version(p) for p in ("torch", "transformers")},
            }
        )
    return rows


def _our_step(shape: ModelShape, setting: dict, dtype: str, images: torch.Tensor) -> Callable:
    tokens = (setting["pixels"] // setting["patch_size"]) ** 2
    model = MaskedAutoencoder(
        shape, **setting, keep=keep_count(tokens, MASK_RATIO), compute_dtype=compute_dtype(dtype)
    ).initialise(0)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
    items, count = np.arange(len(images)), [0]

    def step() -> None:
        count[0] += 1
        with choose.using(choose.best()):
            model(images, patch_order(0, items, count[0], tokens)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _their_step(transformers, shape: ModelShape, setting: dict, images, tuned: bool) -> Callable:
    config = transformers.ViTMAEConfig(
        hidden_size=shape.embed_dim,
        num_hidden_layers=shape.depth,
        num_attention_heads=shape.num_heads,
        intermediate_size=4 * shape.embed_dim,
        image_size=setting["pixels"],
        patch_size=setting["patch_size"],
        decoder_hidden_size=shape.decoder_dim,
        decoder_num_hidden_layers=shape.decoder_depth,
        decoder_num_attention_heads=shape.decoder_heads,
        decoder_intermediate_size=4 * shape.decoder_dim,
        mask_ratio=MASK_RATIO,
        norm_pix_loss=True,
    )
    if tuned:
        config._attn_implementation = "eager"
    model = transformers.ViTMAEForPreTraining(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True if tuned else None)
    channels_first = images.permute(0, 3, 1, 2).contiguous()

    def step() -> None:
        before = torch.backends.mkldnn.matmul.fp32_precision
        if tuned:
            # lets oneDNN take the product; without matrix units it stays exact
            torch.backends.mkldnn.matmul.fp32_precision = "bf16"
        try:
            model(pixel_values=channels_first).loss.backward()
        finally:
            torch.backends.mkldnn.matmul.fp32_precision = before
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step
