"""Whole training with its data: the packed store and our step, against a JPEG folder and others' loops.

The peers are what a user writes from the documentation: torch's DataLoader with two workers over a
folder of JPEGs, torchvision's random resized crop and flip, Hugging Face's ViTMAE (or the plain
reference where transformers is not installed) and AdamW as it comes.
"""

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mae_lib.bench.step import Setting, _autocast, transformers_model
from mae_lib.images.store import Store
from mae_lib.kernels import choose
from mae_lib.kernels.crop import MEAN, SD
from mae_lib.model.reference import reference_loss
from mae_lib.study.definition import Cell, Data, Evaluation, Recipe
from mae_lib.study.models import model_shape
from mae_lib.training.batches import batches
from mae_lib.training.loop import build_model
from mae_lib.training.recipe import build_optimizer
from mae_lib.training.step import Step

MODEL, PATCH, PIXELS, BATCH = "vit_small", 8, 64, 64
MASK_RATIO = 0.8
WORKERS = 2
# Steps a turn: a loader's workers fill their queue while others take theirs, and that many batches of
# it are soon used up.
STEPS = 12
_ENDLESS = 2**31


def bench_training(
    store: Store, data: Data, paths: Sequence[Path], *, rounds: int, threads: int, dtype: str
) -> list[dict]:
    """Time turns of `STEPS` whole steps, data included, at S/8@64: one row a peer.

    Units: images per second of wall clock; `ratio` is the median over rounds of theirs / ours.
    """
    from mae_lib.bench.data import timed

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with choose.using(choose.best()):
            peers = _peers(paths, dtype)
            work = {"ours": _our_loop(store, data, dtype), **peers}
            turns = {name: partial(_turn, step) for name, step in work.items()}
            seconds = {n: took / STEPS for n, took in timed(turns, rounds=rounds).items()}
    finally:
        torch.set_num_threads(before)
    rows = []
    for name in peers:
        low, middle, high = np.quantile(seconds[name] / seconds["ours"], (0.2, 0.5, 0.8))
        rows.append(
            {
                "model": MODEL,
                "patch_size": PATCH,
                "resolution": PIXELS,
                "batch": BATCH,
                "dtype": dtype,
                "threads": threads,
                "ours_images_per_s": round(BATCH / float(np.median(seconds["ours"])), 1),
                "peer": name,
                "peer_images_per_s": round(BATCH / float(np.median(seconds[name])), 1),
                "ratio": round(float(middle), 3),
                "ratio_p20": round(float(low), 3),
                "ratio_p80": round(float(high), 3),
            }
        )
    return rows


def _turn(step: Callable[[], object]) -> None:
    for _ in range(STEPS):
        step()


class JpegFolder(torch.utils.data.Dataset):
    """Images of a folder, opened and converted one by one, as torchvision's ImageFolder does."""

    def __init__(self, paths: Sequence[Path], transform: Callable[[Image.Image], torch.Tensor]):
        self.paths, self.transform = list(paths), transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.paths[index]) as image:
            return self.transform(image.convert("RGB"))


def folder_loader(
    paths: Sequence[Path], batch: int, *, transform: Callable[[Image.Image], torch.Tensor]
) -> torch.utils.data.DataLoader:
    """Return an endless DataLoader of two workers over a folder, in random order."""
    folder = JpegFolder(paths, transform)
    return torch.utils.data.DataLoader(
        folder, batch, sampler=_Endless(len(folder)), num_workers=WORKERS, drop_last=True
    )


class _Endless(torch.utils.data.Sampler):
    """Random indices without a list of them all."""

    def __init__(self, count: int):
        self.count = count

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng(0)
        while True:
            yield from rng.integers(0, self.count, 1024).tolist()


def _our_loop(store: Store, data: Data, dtype: str) -> Callable[[], object]:
    recipe = Recipe(batch_size=BATCH, precision=dtype)
    cell = Cell(MODEL, data.total, PIXELS, PATCH, MASK_RATIO, 0, recipe, Evaluation(), data)
    model = build_model(cell).train()
    step = Step(model, build_optimizer(model, recipe))
    cpu = torch.device("cpu")
    source = batches(cell, store, start=0, stop=_ENDLESS, device=cpu, dtype=torch.float32)
    return lambda: step(next(source))


def _peers(paths: Sequence[Path], dtype: str) -> dict[str, Callable[[], object]]:
    setting = Setting(model_shape(MODEL), PIXELS, PATCH, BATCH)
    if importlib.util.find_spec("transformers") is None:
        return {"textbook, JPEG folder": _reference_loop(setting, paths)}
    found = {"transformers, JPEG folder": _transformers_loop(setting, paths, tuned=False)}
    if dtype == "bf16":
        name = "transformers, eager, fused AdamW, autocast, JPEG folder"
        found[name] = _transformers_loop(setting, paths, tuned=True)
    return found


def _transformers_loop(setting: Setting, paths, *, tuned: bool) -> Callable[[], object]:
    model = transformers_model(setting, "eager" if tuned else "sdpa")
    optimizer = torch.optim.AdamW(model.parameters(), fused=tuned or None)
    source = iter(folder_loader(paths, BATCH, transform=_augmented()))

    def step() -> None:
        pixels = next(source)
        if tuned:
            with _autocast():
                loss = model(pixel_values=pixels).loss
        else:
            loss = model(pixel_values=pixels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _reference_loop(setting: Setting, paths) -> Callable[[], object]:
    from mae_lib.bench.step import _our_model

    model = _our_model(setting, None)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    source = iter(folder_loader(paths, BATCH, transform=_augmented()))

    def step() -> None:
        pixels = next(source).permute(0, 2, 3, 1)
        order = torch.rand(BATCH, setting.tokens).argsort(1)
        reference_loss(model, pixels, order).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _augmented() -> Callable[[Image.Image], torch.Tensor]:
    """Return torchvision's usual crop, flip and normalisation."""
    from mae_lib.model.torchvision_on_cpu import declare_missing_operators

    declare_missing_operators()
    from torchvision import transforms

    return transforms.Compose(
        [
            transforms.RandomResizedCrop(
                PIXELS, scale=(0.2, 1.0), interpolation=transforms.InterpolationMode.BICUBIC
            ),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, SD),
        ]
    )
