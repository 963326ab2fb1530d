"""The fast road from JPEG to pixels: libjpeg-turbo through simplejpeg, torch's uint8 bicubic.

Ordinary JPEGs (grey or YCbCr, upright) take it; every other image is decoded by Pillow and resized
here. The decoded pixels are Pillow's; the resize differs from Pillow's by its rounding.

Error: mean absolute difference to `decode` under 0.1 grey levels on photographs
(tests/images/test_fast_decode.py).
"""

import threading

import numpy as np
from PIL import Image

from mae_lib.images.decode import open_rgb

TRANSFORM_FAST = (
    "exif-transpose, centre square, simplejpeg, torch uint8 bicubic antialiased (channels last)"
)
_ORIENTED = b"Exif\0\0"
_SOI = b"\xff\xd8\xff"
# EXIF precedes the picture; a thumbnail may follow within the same segment.
_HEAD_BYTES = 65536 + 64
_SCRATCH_BYTES = 16 * 2**20


def decode_square_fast(
    encoded: bytes, size: int, *, where: str
) -> tuple[np.ndarray, tuple[int, int]]:
    """Return what `decode.decode_square` returns, faster and within a tenth of a grey level.

    Raises: StoreError as there.
    """
    pixels = _jpeg(encoded)
    if pixels is None:
        image, native = open_rgb(encoded, where=where)
        pixels = np.asarray(image, np.uint8)
    else:
        native = (pixels.shape[1], pixels.shape[0])
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return resize_fast(pixels[top : top + side, left : left + side], size), native


def resize_fast(image: np.ndarray, size: int) -> np.ndarray:
    """Resize uint8 `[h, w, 3]` to `[size, size, 3]`, antialiased bicubic as Pillow's."""
    if image.shape[:2] == (size, size):
        return np.array(image)
    import torch  # heavy, and only needed on this road

    # Whole channels-last planes are what torch resizes without a copy of its own.
    planes = torch.from_numpy(np.ascontiguousarray(image))[None].permute(0, 3, 1, 2)
    planes = torch.nn.functional.interpolate(planes, (size, size), mode="bicubic", antialias=True)
    return planes[0].permute(1, 2, 0).numpy()


class _Scratch(threading.local):
    """Memory of a thread that decoded pixels pass through: fresh pages would cost a fifth more."""

    def __init__(self) -> None:
        self.buffer = bytearray()

    def of(self, size: int) -> bytearray | None:
        if size > _SCRATCH_BYTES:
            return None
        if len(self.buffer) < size:
            self.buffer = bytearray(size)
        return self.buffer


_scratch = _Scratch()


def _jpeg(encoded: bytes) -> np.ndarray | None:
    """Decode an ordinary JPEG; None leaves it to Pillow, which also says what is wrong with it.

    The pixels lie in the thread's scratch memory, until its next call.
    """
    import simplejpeg

    if not encoded.startswith(_SOI) or _ORIENTED in encoded[:_HEAD_BYTES]:
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(encoded)
        if colours not in ("Gray", "YCbCr") or height * width > Image.MAX_IMAGE_PIXELS:
            return None
        buffer = _scratch.of(3 * height * width)
        return simplejpeg.decode_jpeg(encoded, "RGB", strict=True, buffer=buffer)
    except ValueError:
        return None
