"""Pictures for the benchmarks of the data path: as large and as rough as photographs, as JPEG files."""

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

QUALITY = 90
# The commonest size in ImageNet.
SIZE = (500, 375)


def photographs(count: int, size: tuple[int, int] = SIZE) -> tuple[list[bytes], str]:
    """Return `count` JPEGs and where they come from.

    Scenes of MAE_DATA (ade20k.tar), enlarged, where it is set; else drawn ones of like roughness.
    Real files of this size are somewhat larger and decode more slowly.
    """
    scenes = list(_scenes(count))
    if scenes:
        made = [
            scenes[i % len(scenes)].resize(size, Image.Resampling.BICUBIC) for i in range(count)
        ]
        return [encode(image) for image in made], "scenes of MAE_DATA, enlarged"
    return [encode(drawn(number, size)) for number in range(count)], "drawn"


def drawn(number: int, size: tuple[int, int]) -> Image.Image:
    """Draw a picture with smooth ground, edges and fine grain, different for every number."""
    rng = np.random.default_rng(number)
    width, height = size
    ground = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize(size, 3)
    edges = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).resize(size, 0)
    grain = rng.integers(-24, 25, (height // 2, width // 2, 1), np.int16).repeat(2, 0).repeat(2, 1)
    whole = np.asarray(Image.blend(ground, edges, 0.35), np.int16)
    whole = whole.copy()
    whole[: grain.shape[0], : grain.shape[1]] += grain
    return Image.fromarray(np.clip(whole, 0, 255).astype(np.uint8))


def encode(image: Image.Image) -> bytes:
    """Encode as JPEG of quality 90."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def write_folder(folder: Path, encoded: list[bytes], *, count: int) -> list[Path]:
    """Write `count` files, the JPEGs in turn, into one class folder; return their paths."""
    paths = []
    for number in range(count):
        path = folder / "train" / "c0" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded[number % len(encoded)])
        paths.append(path)
    return paths


def _scenes(most: int) -> Iterator[Image.Image]:
    folder = os.environ.get("MAE_DATA")
    if not folder or not (path := Path(folder) / "ade20k.tar").is_file():
        return
    found = 0
    with tarfile.open(path) as archive:
        for member in archive:
            if member.name.endswith(".jpg"):
                yield Image.open(archive.extractfile(member)).convert("RGB")
                found += 1
                if found == most:
                    return
