"""From encoded bytes to a square of RGB pixels: Pillow decodes, crops and resizes."""

import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mae_lib.errors import StoreError

# Names the definition in a store's manifest; change it when the pixels change.
TRANSFORM = "exif-transpose, centre square, Pillow bicubic antialiased"


def decode_square(encoded: bytes, size: int, *, where: str) -> tuple[np.ndarray, tuple[int, int]]:
    """Return uint8 `[size, size, 3]` and the native (width, height) of an encoded image.

    Greyscale, palette, CMYK, 16-bit and transparent images become RGB; EXIF rotation is applied;
    the largest centred square is kept.
    Raises: StoreError naming `where` when the bytes are no image, cut, or a bomb.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(encoded))
            native = image.size
            image = to_rgb(ImageOps.exif_transpose(image))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise StoreError(f"{where}: no image can be read from it, got {error}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise StoreError(f"{where}: refused, got {error}") from None
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    if (side, side) != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
    else:
        image = image.crop(box)
    return np.asarray(image, np.uint8), native


def to_rgb(image: Image.Image) -> Image.Image:
    """Turn any mode into RGB: 16 bits are scaled to 8, transparency is laid on white."""
    if image.mode.startswith("I;16") or image.mode == "I":
        levels = np.asarray(image, np.float64) / 257.0
        return Image.fromarray(np.clip(levels + 0.5, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
