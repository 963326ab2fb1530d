"""One whole training step, ours beside others', in interleaved rounds on this machine.

A step is what training does: draw a mask, forward, backward, AdamW, gradients dropped; the images
lie ready. Every round runs each contender once, in an order that turns, so that load from outside
falls on all alike; ratios are taken within a round, then their median. Each contender has a process
of its own: a peer as it comes keeps the C library's allocator as it is, a peer tuned by hand has
our setting of it (`mae_lib.kernels.allocator`).
"""

import contextlib
import functools
import importlib.metadata
import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mae_lib.bench.apart import Step, apart
from mae_lib.errors import KernelError
from mae_lib.kernels import choose
from mae_lib.kernels.allocator import keep_freed_memory
from mae_lib.model.mae import MaskedAutoencoder, compute_dtype
from mae_lib.model.masking import keep_count, patch_order
from mae_lib.model.reference import reference_loss
from mae_lib.records.provenance import processor, versions
from mae_lib.study.definition import Recipe
from mae_lib.study.models import ModelShape, model_shape
from mae_lib.training.recipe import build_optimizer

MASK_RATIO = 0.8
WARMUP_ROUNDS = 2
DTYPES = ("fp32", "bf16")
# Model, patch, pixels and batch of the published table.
SETTINGS = (
    ("vit_small", 8, 64, 64),
    ("vit_tiny", 4, 32, 128),
    ("vit_base", 16, 224, 8),
)


@dataclass(frozen=True)
class Setting:
    """What every contender computes: a model on a batch of square images."""

    shape: ModelShape
    pixels: int
    patch_size: int
    batch: int

    @property
    def tokens(self) -> int:
        """Patches an image."""
        return (self.pixels // self.patch_size) ** 2


@dataclass(frozen=True)
class Contender:
    """A name, what was chosen by hand (none: as it comes), and what builds its step, picklable."""

    name: str
    settings: str
    build: Callable[[], Step]


def bench_step(
    model: str = "vit_small",
    patch_size: int = 8,
    resolution: int = 64,
    batch: int = 64,
    dtype: str = "fp32",
    *,
    against: str = "transformers",
    rounds: int = 9,
    threads: int = 2,
) -> list[dict]:
    """Time a training step of ours against each form of a peer: one row a form.

    `ratio` is the median over rounds of peer time / our time; `ratio_p20`, `ratio_p80` its band.
    Units: images per second of wall clock.
    Raises: KernelError for a dtype, peer or size that cannot be run, or a peer not installed.
    """
    if dtype not in DTYPES:
        raise KernelError(f"dtype: one of {', '.join(DTYPES)}, got {dtype!r}", exit_code=2)
    if against not in PEERS:
        raise KernelError(f"against: one of {', '.join(PEERS)}, got {against!r}", exit_code=2)
    if min(batch, rounds, threads, patch_size, resolution) < 1 or resolution % patch_size:
        raise KernelError(
            f"bench step: batch, rounds and threads from 1, a patch that divides the resolution, "
            f"got {batch}, {rounds}, {threads} and {patch_size} in {resolution}",
            exit_code=2,
        )
    setting = Setting(model_shape(model), resolution, patch_size, batch)
    kernels = choose.best()
    contenders = [our_step(setting, dtype, kernels), *PEERS[against](setting, dtype)]
    with apart([contender.build for contender in contenders], threads=threads) as steps:
        seconds = interleave(steps, rounds=rounds)
    common = {
        "model": model,
        "patch_size": patch_size,
        "resolution": resolution,
        "batch": batch,
        "dtype": dtype,
        "threads": threads,
        "rounds": rounds,
        "processor": processor(),
        "kernels": kernels,
        "versions": versions() | _peer_version(against),
    }
    ours, *peers = seconds
    return [
        common | _compare(batch, contender, ours, theirs)
        for contender, theirs in zip(contenders[1:], peers, strict=True)
    ]


def interleave(steps: Sequence[Step], *, rounds: int) -> np.ndarray:
    """Run each step once a round, beginning with another one each time: seconds [steps, rounds]."""
    for step in steps:
        for _ in range(WARMUP_ROUNDS):
            step()
    seconds = np.empty((len(steps), rounds))
    for round_ in range(rounds):
        for turn in range(len(steps)):
            which = (round_ + turn) % len(steps)
            start = time.perf_counter()
            steps[which]()
            seconds[which, round_] = time.perf_counter() - start
    return seconds


def our_step(setting: Setting, dtype: str, kernels: dict[str, str]) -> Contender:
    """Return our training step, optimiser and mask drawing as in training."""
    return Contender("ours", dtype, functools.partial(_build_ours, setting, dtype, kernels))


def _build_ours(setting: Setting, dtype: str, kernels: dict[str, str]) -> Step:
    model = _our_model(setting, compute_dtype(dtype))
    optimizer = build_optimizer(model, Recipe())
    images = _images(setting)
    items = np.arange(setting.batch)
    draws = iter(range(2**31))

    def step() -> None:
        with choose.using(kernels):
            order = patch_order(0, items, next(draws), setting.tokens)
            model(images, order).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def textbook_steps(setting: Setting, dtype: str) -> list[Contender]:
    """Return the plain reference with torch's AdamW as it comes: what the rearranging gains."""
    return [Contender("textbook", "fp32", functools.partial(_build_textbook, setting))]


def _build_textbook(setting: Setting) -> Step:
    model = _our_model(setting, None)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    images = _images(setting)

    def step() -> None:
        order = torch.rand(setting.batch, setting.tokens).argsort(1)
        reference_loss(model, images, order).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def transformers_steps(setting: Setting, dtype: str) -> list[Contender]:
    """Return Hugging Face's ViTMAE as it comes (fp32), and tuned by hand.

    By hand means eager attention and fused AdamW, with autocast in bf16. `medium` lets fp32
    products run in bf16 where the processor has matrix units, so in fp32 it is a row of its own.
    Raises: KernelError when transformers is not installed.
    """
    if importlib.util.find_spec("transformers") is None:
        raise KernelError(
            'against: transformers is not installed; pip install "mae-lib[peers]"', exit_code=2
        )
    build = functools.partial(functools.partial, _build_transformers, setting)
    forms = {"transformers": build("sdpa", None)}
    if dtype == "bf16":
        forms["transformers, eager, fused AdamW, autocast"] = build("eager", "autocast")
    else:
        forms["transformers, eager, fused AdamW"] = build("eager", "plain")
        forms["transformers, eager, fused AdamW, medium"] = build("eager", "medium")
    return [
        Contender(name, name.partition(", ")[2] or "as it comes", form)
        for name, form in forms.items()
    ]


PEERS: dict[str, Callable[[Setting, str], list[Contender]]] = {
    "transformers": transformers_steps,
    "textbook": textbook_steps,
}


def transformers_model(setting: Setting, attention: str):
    """Build Hugging Face's ViTMAE of a setting, with our epsilon and heads."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    shape = setting.shape
    config = ViTMAEConfig(
        hidden_size=shape.embed_dim,
        num_hidden_layers=shape.depth,
        num_attention_heads=shape.num_heads,
        intermediate_size=4 * shape.embed_dim,
        image_size=setting.pixels,
        patch_size=setting.patch_size,
        decoder_hidden_size=shape.decoder_dim,
        decoder_num_hidden_layers=shape.decoder_depth,
        decoder_num_attention_heads=shape.decoder_heads,
        decoder_intermediate_size=4 * shape.decoder_dim,
        mask_ratio=MASK_RATIO,
        norm_pix_loss=True,
        layer_norm_eps=1e-6,
    )
    config._attn_implementation = attention
    return ViTMAEForPreTraining(config).train()


def _build_transformers(setting: Setting, attention: str, tuned: str | None) -> Step:
    """Build a step of the peer: `tuned` None is as it comes, else plain, medium or autocast."""
    if tuned is not None:
        keep_freed_memory()
    around = {"autocast": _autocast, "medium": _medium}.get(tuned, contextlib.nullcontext)
    model = transformers_model(setting, attention)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True if tuned else None)
    pixels = _images(setting).permute(0, 3, 1, 2).contiguous()

    def step() -> None:
        with around():
            loss = model(pixel_values=pixels).loss
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _our_model(setting: Setting, dtype: torch.dtype | None) -> MaskedAutoencoder:
    return MaskedAutoencoder(
        setting.shape,
        pixels=setting.pixels,
        patch_size=setting.patch_size,
        keep=keep_count(setting.tokens, MASK_RATIO),
        compute_dtype=dtype,
    ).initialise(0)


def _images(setting: Setting) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(setting.batch, setting.pixels, setting.pixels, 3, generator=generator)


def _compare(batch: int, contender: Contender, ours: np.ndarray, theirs: np.ndarray) -> dict:
    low, middle, high = np.quantile(theirs / ours, (0.2, 0.5, 0.8))
    return {
        "ours_images_per_s": round(batch / float(np.median(ours)), 2),
        "peer": contender.name,
        "peer_settings": contender.settings,
        "peer_images_per_s": round(batch / float(np.median(theirs)), 2),
        "ratio": round(float(middle), 4),
        "ratio_p20": round(float(low), 4),
        "ratio_p80": round(float(high), 4),
    }


def _peer_version(against: str) -> dict[str, str]:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return {against: importlib.metadata.version(against)}
    return {}


def _autocast():
    return torch.autocast("cpu", torch.bfloat16)


@contextlib.contextmanager
def _medium() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
