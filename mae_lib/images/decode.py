"""From encoded bytes to a square of RGB pixels: Pillow decodes, crops and resizes.

What cannot be read, or claims more pixels than any photograph has, ends in one line. Only formats of
photographs are tried: Pillow would hand others to programs outside.
"""

import io
import warnings

import numpy as np
from PIL import Image, ImageOps

from mae_lib.errors import StoreError

# Names the definition in a store's manifest; change it when the pixels change.
TRANSFORM = "exif-transpose, centre square, Pillow bicubic antialiased"
SMALLER = "Pillow bicubic antialiased of the stored pixels"
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM")


def decode_square(
    encoded: bytes, size: int, *, where: str, out: np.ndarray | None = None
) -> tuple[np.ndarray, tuple[int, int]]:
    """Return uint8 `[size, size, 3]` and the native (width, height) of an encoded image.

    Greyscale, palette, CMYK, 16-bit and transparent images become RGB, of an animation the first
    picture is taken; EXIF rotation is applied; the largest centred square is kept. The pixels are
    put into `out` where it is given.
    Raises: StoreError naming `where` when the bytes are no image, cut, or a bomb.
    """
    image, native = open_rgb(encoded, where=where)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    if (side, side) != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
    else:
        image = image.crop(box)
    return put(np.asarray(image, np.uint8), out), native


def put(image: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """Return an image where it is, or put into `out`."""
    if out is None:
        return image
    out[...] = image
    return out


def open_rgb(encoded: bytes, *, where: str) -> tuple[Image.Image, tuple[int, int]]:
    """Decode a whole image to upright RGB, and return it with its native (width, height).

    Raises: StoreError naming `where`.
    """
    if not encoded:
        raise StoreError(f"{where}: no image can be read from it, it is empty")
    try:
        with warnings.catch_warnings():
            # Odd EXIF blocks and palettes only warn; the pixels are whole.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(encoded), formats=FORMATS)
            native = image.size
            return to_rgb(ImageOps.exif_transpose(image)), native
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise StoreError(f"{where}: refused, got {error}") from None
    except Image.UnidentifiedImageError:
        raise StoreError(f"{where}: no image can be read from it, got {_begin(encoded)}") from None
    except MemoryError:
        raise
    # Pillow's readers meet damaged bytes with errors of every class, from struct's to KeyError.
    except Exception as error:
        raise StoreError(f"{where}: no image can be read from it, got {error!r}") from None


def resize_square(image: np.ndarray, size: int) -> np.ndarray:
    """Return a stored square at a smaller side: uint8 `[size, size, 3]`, one antialiased filter."""
    small = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(small, np.uint8)


def to_rgb(image: Image.Image) -> Image.Image:
    """Turn any mode into RGB: 16 bits are scaled to 8, transparency is laid on white.

    Raises: ValueError for floating-point grey levels, whose range is not known.
    """
    if image.mode == "F":
        raise ValueError("floating-point grey levels without a stated range")
    if image.mode.startswith("I;16") or image.mode == "I":
        levels = np.asarray(image, np.float64) / 257.0
        return Image.fromarray(np.clip(levels + 0.5, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _begin(encoded: bytes) -> str:
    return f"bytes that begin {encoded[:12]!r}"
