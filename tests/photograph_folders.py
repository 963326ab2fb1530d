"""Small sets of pictures in folders, good and bad, for tests of the packer: drawn, of nobody."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from mae_lib.study.definition import Data, Source, Task


def picture(number: int, size: tuple[int, int] = (40, 32)) -> Image.Image:
    """A smooth picture that differs from every other number's."""
    rng = np.random.default_rng(number)
    small = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 92} if kind == "JPEG" else {}), **options)
    return buffer.getvalue()


def write_set(folder: Path, counts: dict[str, int], *, first: int = 0) -> None:
    """Write `<split>/<class>/NAME.jpg`, two classes, so many pictures a split."""
    for split, count in counts.items():
        for i in range(count):
            path = folder / split / f"c{i % 2}" / f"{i:04d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(picture(first + i)))
        first += count


def two_sources(total: int, size: int = 16, **fields) -> Data:
    """A mixture of two such sets, half of each, with the first set's test part as the task."""
    return Data(
        "sources",
        total,
        size,
        0,
        (
            Source("one", 0.5, layout="folder", path="one"),
            Source("two", 0.5, layout="folder", path="two"),
        ),
        (Task("one", source="one"),),
        twins=fields.pop("twins", "drop"),
        set_aside_limit=fields.pop("set_aside_limit", 0.25),
        **fields,
    )


def write_two(root: Path, *, train: int = 30, test: int = 8) -> None:
    write_set(root / "one", {"train": train, "test": test})
    write_set(root / "two", {"train": train}, first=1000)


def odd_images() -> dict[str, bytes]:
    """Every kind of image that a public set has surprised someone with, by name."""
    colour = picture(7, (60, 40))
    turned = Image.Exif()
    turned[274] = 6
    sixteen = Image.fromarray((np.arange(2400).reshape(40, 60) * 27).astype(np.uint16))
    frames = [picture(i, (60, 40)) for i in range(3)]
    whole = encoded(colour)
    return {
        "ordinary.jpg": whole,
        "greyscale.jpg": encoded(colour.convert("L")),
        "cmyk.jpg": encoded(colour.convert("CMYK")),
        "palette.png": encoded(colour.convert("P"), "PNG"),
        "palette-transparent.png": encoded(colour.convert("P"), "PNG", transparency=3),
        "transparent.png": encoded(colour.convert("RGBA"), "PNG"),
        "grey-alpha.png": encoded(colour.convert("LA"), "PNG"),
        "one-bit.png": encoded(colour.convert("1"), "PNG"),
        "sixteen-bit.png": encoded(sixteen, "PNG"),
        "animated.gif.png": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "animated.png": encoded(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        "rotated.jpg": encoded(colour, exif=turned),
        "progressive.jpg": encoded(colour, progressive=True),
        "png-named.jpg": encoded(colour, "PNG"),
        "one-pixel.png": encoded(picture(8, (1, 1)), "PNG"),
        "wide.jpg": encoded(picture(9, (400, 3))),
        "odd-exif.jpg": whole[:2] + b"\xff\xe1\x00\x10Exif\x00\x00MM\x00*\xff\xff" + whole[2:],
        "truncated.jpg": whole[: len(whole) // 2],
        "truncated.png": encoded(colour, "PNG")[:900],
        "header-only.jpg": whole[:200],
        "claims-50000-pixels.png": _claim(encoded(colour, "PNG"), 50_000),
        "claims-50000-pixels.jpg": _claim_jpeg(whole, 50_000),
        "floating-point.tiff.png": encoded(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF"),
        "text.jpg": b"This is no picture, whatever its name says.\n" * 4,
        "page.jpg": b"<!DOCTYPE html><html><body>Please log in</body></html>",
        "postscript.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        "empty.jpg": b"",
    }


def _claim(png: bytes, side: int) -> bytes:
    """Say another size in a PNG's header, its checksum made right."""
    header = b"IHDR" + struct.pack(">II", side, side) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


def _claim_jpeg(jpeg: bytes, side: int) -> bytes:
    place = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:place] + struct.pack(">HH", side, side) + jpeg[place + 4 :]
