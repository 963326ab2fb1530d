"""Read one entry and decode it to a square, by the road that a recipe names."""

import hashlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mae_lib.errors import StudyError
from mae_lib.images.decode import TRANSFORM, decode_square, put, resize_square
from mae_lib.images.entries import CIFAR_RECORD, Entry, decode_raw, read_entry
from mae_lib.images.fast_decode import TRANSFORM_FAST, decode_square_fast, resize_fast

Decode = Callable[..., tuple[np.ndarray, tuple[int, int]]]


@dataclass(frozen=True)
class Decoder:
    """A road from encoded bytes to pixels, what it does, and the packages that it needs."""

    decode: Decode
    resize: Callable[[np.ndarray, int, np.ndarray | None], np.ndarray]
    transform: str
    packages: tuple[str, ...] = ()


def _resize(image: np.ndarray, size: int, out: np.ndarray | None = None) -> np.ndarray:
    return put(image if image.shape[0] == size else resize_square(image, size), out)


DECODERS: dict[str, Decoder] = {
    "pillow": Decoder(decode_square, _resize, TRANSFORM),
    "fast": Decoder(decode_square_fast, resize_fast, TRANSFORM_FAST, ("simplejpeg", "torch")),
}


@dataclass(frozen=True)
class Reader:
    """What a worker needs to make pixels of an entry: the data root and a name of `DECODERS`.

    `bounded` keeps a published native size from being larger than the file that is there: some
    copies were reduced on their way.
    """

    root: Path | None
    decoder: str = "pillow"
    bounded: bool = True

    @property
    def modules(self) -> tuple[str, ...]:
        """Name the modules that its road imports."""
        return (__name__, *DECODERS[self.decoder].packages)

    def read(
        self, entry: Entry, size: int, *, out: np.ndarray | None = None
    ) -> tuple[np.ndarray, tuple[int, int], str]:
        """Return uint8 `[size, size, 3]`, the native (width, height) and the bytes' sha256.

        The pixels are put into `out` where it is given.
        Raises: StoreError when the bytes are missing, or no image.
        """
        content = read_entry(self.root, entry)
        decoder = DECODERS[self.decoder]
        where = f"{entry.file}: {entry.name}"
        if entry.coding == CIFAR_RECORD:
            raw = decode_raw(content)
            image, native = decoder.resize(raw, size, out), (raw.shape[1], raw.shape[0])
        else:
            image, native = decoder.decode(content, size, where=where, out=out)
        if entry.native is not None:
            held = min(native) if self.bounded else max(entry.native)
            native = entry.native if min(entry.native) <= held else native
        return image, native, hashlib.sha256(content).hexdigest()


def require_decoder(name: str) -> Decoder:
    """Return a decoder whose packages are installed.

    Raises: StudyError naming what is missing.
    """
    decoder = DECODERS[name]
    for package in decoder.packages:
        if importlib.util.find_spec(package) is None:
            raise StudyError(
                f"data.decoder: {name} needs {package}, which is not installed; "
                'pip install "mae-lib[fast]", or name pillow'
            )
    return decoder
