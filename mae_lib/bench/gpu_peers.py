"""Hugging Face's ViTMAE as a user trains it: JPEG files, torchvision, a DataLoader, autocast."""

import functools
import importlib.util
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from mae_lib.bench import step as bench_step
from mae_lib.bench.gpu_plan import Setting
from mae_lib.bench.gpu_throughput import with_decoder
from mae_lib.bench.gpu_timing import device_for, time_calls, wait
from mae_lib.errors import KernelError
from mae_lib.kernels.crop import MEAN, SD
from mae_lib.model.torchvision_on_cpu import declare_missing_operators
from mae_lib.records.provenance import available_cores
from mae_lib.study.models import model_shape

WORKERS = 16
MEASURE_SECONDS = 8.0
# Long enough that batches fetched ahead are gone before the clock starts.
SETTLE_SECONDS = 3.0
_FILES, _DRY_FILES = 2048, 8
# Small images come as such (Tiny-ImageNet has 64 x 64 files), others as a camera's thumbnails.
_SMALL, _LARGE = (64, 64), (500, 375)
_QUALITY = 90


def peers(setting: dict, dry: bool, images: str | None) -> Iterator[dict]:
    """Time the peer's loop from files, then its step alone on one batch that stays on the device.

    Raises: KernelError when transformers is not installed.
    """
    if importlib.util.find_spec("transformers") is None:
        raise KernelError("peers: transformers is not installed; pip install transformers")
    declare_missing_operators()
    wanted, device = Setting(**setting), device_for(dry)
    batch = wanted.batch
    while True:
        try:
            row = _rows(wanted, batch, device, dry)
            yield {"throughput": [row("images on the device", *_on_device(wanted, batch, device))]}
            break
        except torch.OutOfMemoryError:
            batch //= 2
        torch.cuda.empty_cache()
    with _jpegs(wanted, images, dry) as (folder, about):
        workers = min(WORKERS, available_cores()) if not dry else 0
        fed = _batch_that_travels(batch, wanted.resolution, workers)
        rate = _from_files(wanted, fed, device, folder, workers=workers, dry=dry)
        found = row("JPEG loader", rate, workers=workers, files=about) | {"batch": fed}
        yield {"throughput": [found]}


def _batch_that_travels(batch: int, resolution: int, workers: int) -> int:
    """Halve a batch until two a worker fit in half of the shared memory that they go through."""
    shared = Path("/dev/shm")
    if not workers or not shared.is_dir():
        return batch
    free = shutil.disk_usage(shared).free
    image_bytes = 3 * resolution**2 * torch.float32.itemsize
    while batch > 1 and 2 * workers * batch * image_bytes > free / 2:
        batch //= 2
    return batch


def _rows(setting: Setting, batch: int, device: torch.device, dry: bool):
    def row(mode: str, rate: float, step_s: float | None = None, **more) -> dict:
        return {
            "model": setting.model,
            "patch_size": setting.patch_size,
            "resolution": setting.resolution,
            "setting": setting.name,
            "mode": f"transformers, {mode}",
            "precision": "bf16 autocast",
            "batch": batch,
            "dry": dry,
            "images_per_s": rate,
            **({"seconds": step_s} if step_s else {}),
            **more,
        }

    return row


def _trainer(setting: Setting, batch: int, device: torch.device):
    """Return a function that does one step on a batch of pixels, as transformers' examples do."""
    shape = with_decoder(model_shape(setting.model), setting.decoder)
    peer = bench_step.Setting(shape, setting.resolution, setting.patch_size, batch)
    model = bench_step.transformers_model(peer, "sdpa").to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), fused=True)

    def step(pixels: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            loss = model(pixel_values=pixels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return step


def _on_device(setting: Setting, batch: int, device: torch.device) -> tuple[float, float]:
    step = _trainer(setting, batch, device)
    pixels = torch.randn(batch, 3, setting.resolution, setting.resolution, device=device)
    seconds = time_calls(lambda: step(pixels), device)["seconds"]
    return batch / seconds, seconds


def _from_files(
    setting: Setting, batch: int, device: torch.device, folder: Path, *, workers: int, dry: bool
) -> float:
    from torch.utils.data import DataLoader, RandomSampler

    step = _trainer(setting, batch, device)
    dataset = _Files(folder, setting.resolution)
    sampler = RandomSampler(dataset, replacement=True, num_samples=10**8)
    on_cuda = device.type == "cuda"
    loader = iter(
        DataLoader(
            dataset,
            batch,
            sampler=sampler,
            num_workers=workers,
            pin_memory=on_cuda,
            drop_last=True,
        )
    )
    settle, measure = (0.0, 0.05) if dry else (SETTLE_SECONDS, MEASURE_SECONDS)
    ahead = 2 * workers + 2 if workers else 1
    started, done = time.perf_counter(), 0
    while done < 1 or (time.perf_counter() - started < settle or done < min(ahead, 40)):
        step(next(loader).to(device, non_blocking=True))
        done += 1
        if time.perf_counter() - started > 4 * settle + 0.05:
            break
    wait(device)
    started, images = time.perf_counter(), 0
    while images == 0 or time.perf_counter() - started < measure:
        step(next(loader).to(device, non_blocking=True))
        images += batch
    wait(device)
    return images / (time.perf_counter() - started)


class _Files(torch.utils.data.Dataset):
    """Image files through the transforms of transformers' example for this model."""

    def __init__(self, folder: Path, resolution: int):
        from torchvision import transforms

        self.paths = sorted(p for p in folder.iterdir() if p.suffix in (".jpg", ".jpeg", ".JPEG"))
        self.transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(
                    resolution, scale=(0.2, 1.0), interpolation=transforms.InterpolationMode.BICUBIC
                ),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(mean=MEAN, std=SD),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        from PIL import Image

        with Image.open(self.paths[index]) as image:
            return self.transform(image.convert("RGB"))


class _jpegs:
    """A folder of JPEG files: the one that was named, or generated ones that are then removed."""

    def __init__(self, setting: Setting, images: str | None, dry: bool):
        self.size = _SMALL if setting.resolution <= 64 else _LARGE
        self.count = _DRY_FILES if dry else _FILES
        named = Path(images) if images else None
        self.named = named if named and any(named.glob("*.jp*g")) else None
        self._made: tempfile.TemporaryDirectory | None = None

    def __enter__(self) -> tuple[Path, str]:
        if self.named is not None:
            return self.named, f"the {len(list(self.named.glob('*.jp*g')))} files of --images"
        self._made = tempfile.TemporaryDirectory()
        folder = Path(self._made.name)
        write = functools.partial(_write_jpeg, folder, self.size)
        with ThreadPoolExecutor(min(16, available_cores())) as pool:
            list(pool.map(write, range(self.count)))
        return folder, f"{self.count} generated, {self.size[0]} x {self.size[1]} pixels"

    def __exit__(self, *error) -> None:
        if self._made is not None:
            self._made.cleanup()


def _write_jpeg(folder: Path, size: tuple[int, int], number: int) -> None:
    """Write smooth colours with grain: about as many bytes a pixel as a photograph."""
    from PIL import Image

    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (max(4, size[1] // 24), max(4, size[0] // 24), 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), np.int16)
    grain = rng.normal(0, 6, image.shape[:2])[..., None]
    pixels = np.clip(image + grain, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(folder / f"{number:06d}.jpg", quality=_QUALITY)
