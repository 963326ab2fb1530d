"""One file that carries a mixture's images to a machine without them: the tars, packed, and proof.

The tars themselves travel, byte for byte, so that what is decoded there is what is decoded here:
a study's sha256 holds for them, and so do the digests of its cells. They are packed by deflate
because hundreds of small JPEGs repeat the same tables. The header also keeps the hash of the pixels
that this machine decodes: another decoder is found out before any training.

Layout: a line of magic, 8 bytes of header length, the header as JSON, the packed tars in its order.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mae_lib.errors import StoreError, StudyError
from mae_lib.images.decode import decode_square
from mae_lib.images.sources import Photograph, read_tar, require_file
from mae_lib.images.store import Store
from mae_lib.records.atomic import replacing, write_bytes
from mae_lib.records.provenance import available_cores
from mae_lib.study.definition import Data, canonical_json

MAGIC = b"mae travelling images 1\n"
LIMIT_BYTES = 44 * 2**20
# A header lists some tens of files; more is no header of ours.
_MOST_HEADER = 2**20


@dataclass(frozen=True)
class Part:
    """One tar: its name, sha256 and size, its size when packed, and whether it is read out only."""

    name: str
    sha256: str
    size: int
    packed: int
    extra: bool = False


@dataclass(frozen=True)
class Travelling:
    """What a travelling file says of itself, and the sha256 of all of it."""

    path: Path
    data_digest: str
    pixels_digest: str
    parts: tuple[Part, ...]
    sha256: str

    @property
    def extras(self) -> tuple[Part, ...]:
        """The tars that are in no mixture and no task: they are read out for later questions."""
        return tuple(part for part in self.parts if part.extra)


def tars_of(data: Data) -> dict[str, str]:
    """Return the sha256 of every tar that a study reads, by name."""
    named = {source.file: source.sha256 for source in data.sources}
    for task in data.tasks:
        named |= {task.train: task.train_sha256, task.test: task.test_sha256}
    return {name: sha256 for name, sha256 in named.items() if name}


def require_tars(data: Data) -> None:
    """Refuse a study whose images are not in tars named by file: a file of none would be written.

    Raises: StudyError.
    """
    if data.kind != "tars":
        why = (
            "drawn where they are used"
            if data.kind == "procedural"
            else "read from their own files"
        )
        raise StudyError(
            f"data.kind: {data.kind}, only the files of kind tars travel; these images are {why}"
        )


def pixels_digest(store: Store) -> str:
    """Return the sha256 of everything that was decoded: mixture, and both parts of every task."""
    found = hashlib.sha256("".join(store.index["sha256"]).encode())
    for task in store.manifest["recipe"]["tasks"]:
        images = store.task(task["name"])
        for array in (images.train_images, images.test_images):
            found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def pack_travel(
    data: Data, store: Store, data_root: Path | None, out: Path, *, also: Sequence[str] = ()
) -> Travelling:
    """Pack the tars of a study, and those named in `also`, into one file of at most 44 MiB.

    Raises: StudyError when a tar is missing or the file would be larger; StoreError when one is
    not what the study names.
    """
    wanted = tars_of(data)
    wanted |= {name: None for name in also if name not in wanted}
    contents = [require_file(data_root, n, sha256).read_bytes() for n, sha256 in wanted.items()]
    with ThreadPoolExecutor(min(available_cores(), 8)) as pool:
        packed = list(pool.map(lambda content: zlib.compress(content, 9), contents))
    parts = tuple(
        Part(name, hashlib.sha256(c).hexdigest(), len(c), len(p), extra=name in also)
        for name, c, p in zip(wanted, contents, packed, strict=True)
    )
    about = {
        "data_digest": data.digest,
        "pixels_digest": pixels_digest(store),
        "parts": [asdict(part) for part in parts],
    }
    header = canonical_json(about | {"seal": _seal(about)}).encode()
    whole = b"".join((MAGIC, len(header).to_bytes(8, "big"), header, *packed))
    if len(whole) > LIMIT_BYTES:
        raise StudyError(
            f"{out}: {len(whole) / 2**20:.1f} MiB, more than the {LIMIT_BYTES / 2**20:.0f} MiB that "
            f"may travel; the largest part is {max(parts, key=lambda p: p.packed).name}"
        )
    write_bytes(out, whole)
    return read_travel(out)


def read_travel(path: Path) -> Travelling:
    """Read the header of a travelling file, and hash the file.

    Raises: StudyError when there is no such file; StoreError when it is cut, changed, or no
    travelling file.
    """
    try:
        with open(path, "rb") as file:
            about, _ = _header(path, file)
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StudyError(f"{path}: cannot be read, got {error.strerror}") from None
    parts = tuple(Part(**part) for part in about["parts"])
    return Travelling(path, about["data_digest"], about["pixels_digest"], parts, sha256)


def unpack_travel(travelling: Travelling, folder: Path) -> Path:
    """Unpack the tars into `folder`, in threads; one that is there and whole is kept.

    Returns the folder, which serves as MAE_DATA.
    Raises: StoreError when a part is cut or changed.
    """
    with ThreadPoolExecutor(min(available_cores(), 8)) as pool:
        list(pool.map(lambda item: _unpack(travelling.path, folder, *item), _places(travelling)))
    return folder


def require_pixels(store: Store, travelling: Travelling) -> None:
    """Compare the pixels decoded here with those decoded where the file was packed.

    Raises: StoreError when they differ: another version of the image library resizes differently.
    """
    if pixels_digest(store) != travelling.pixels_digest:
        made = store.manifest["versions"].get("pillow", "unknown")
        raise StoreError(
            f"{store.folder}: pixels: other than where {travelling.path.name} was packed, with "
            f"Pillow {made} here; install the version of requirements.lock and delete the folder"
        )


def decode_tar(path: Path, size: int) -> np.ndarray:
    """Decode every image of a tar, in its order and in threads: uint8 `[n, size, size, 3]`."""

    def decode(photograph: Photograph) -> np.ndarray:
        return decode_square(photograph.encoded, size, where=f"{path}: {photograph.name}")[0]

    with ThreadPoolExecutor(min(available_cores(), 16)) as pool:
        return np.stack(list(pool.map(decode, read_tar(path))))


def _places(travelling: Travelling) -> Iterator[tuple[Part, int]]:
    with open(travelling.path, "rb") as file:
        _, place = _header(travelling.path, file)
    for part in travelling.parts:
        yield part, place
        place += part.packed


def _unpack(path: Path, folder: Path, part: Part, place: int) -> None:
    if os.sep in part.name or part.name.startswith("."):
        raise StoreError(f"{path}: {part.name}: leaves its folder; the file is refused")
    target = folder / part.name
    if target.exists() and target.stat().st_size == part.size and _is(target, part.sha256):
        return
    with open(path, "rb") as file:
        file.seek(place)
        packed = file.read(part.packed)
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(packed, part.size)
    except zlib.error as error:
        raise StoreError(
            f"{path}: {part.name}: cut or changed, got {error}; copy it again"
        ) from None
    if hashlib.sha256(content).hexdigest() != part.sha256:
        raise StoreError(f"{path}: {part.name}: cut or changed, its hash differs; copy it again")
    with replacing(target) as temporary:
        temporary.write_bytes(content)


def _is(path: Path, sha256: str) -> bool:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def _header(path: Path, file) -> tuple[dict, int]:
    """Return the header and where the parts begin."""
    if file.read(len(MAGIC)) != MAGIC:
        raise StoreError(f"{path}: is no file of `mae data travel`; name one", exit_code=2)
    length = int.from_bytes(file.read(8), "big")
    try:
        about = json.loads(file.read(min(length, _MOST_HEADER)))
        seal = about.pop("seal")
    except (ValueError, KeyError, AttributeError):
        raise StoreError(
            f"{path}: cut or changed, its header is unreadable; copy it again"
        ) from None
    if seal != _seal(about):
        raise StoreError(f"{path}: changed after it was packed, its seal differs; copy it again")
    return about, len(MAGIC) + 8 + length


def _seal(about: dict) -> str:
    return hashlib.sha256(canonical_json(about).encode()).hexdigest()
