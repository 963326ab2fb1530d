"""CIFAR-10 as its authors give it: the binary batches, in their folder or in their .tar.gz.

A record is one label byte, then 1,024 red, 1,024 green and 1,024 blue values, row by row.
Source: https://www.cs.toronto.edu/~kriz/cifar.html
"""

from collections.abc import Iterator
from pathlib import Path

from mae_lib.errors import StoreError
from mae_lib.images.layouts.entry import CIFAR_RECORD, FILE, SLICE, Entry
from mae_lib.images.layouts.reading import read_bytes
from mae_lib.images.layouts.tree import members_of

NAME = "cifar10"
CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
RECORD_BYTES = 1 + 3 * 32 * 32
BATCHES = {f"data_batch_{i}": "train" for i in range(1, 6)} | {"test_batch": "test"}
BINARY = ("cifar-10-batches-bin", "cifar-10-binary.tar.gz")
PICKLED = ("cifar-10-batches-py", "cifar-10-python.tar.gz")


def matches(place: Path) -> bool:
    """Say whether this is CIFAR-10: binary, or the pickled kind that `read` refuses by name."""
    if place.name in (*BINARY, *PICKLED):
        return True
    return any((place / name).is_file() for name in ("data_batch_1.bin", "data_batch_1"))


def read(place: Path) -> Iterator[Entry]:
    """Yield the records of all six batches: train, then test."""
    if place.name in PICKLED or (place / "data_batch_1").is_file():
        raise StoreError(
            f"{place}: the pickled version, which is never unpickled; fetch the binary one: "
            "mae data fetch cifar10"
        )
    found = {Path(m.path).stem: m for m in members_of(place) if m.path.endswith(".bin")}
    for batch, split in BATCHES.items():
        member = found.get(batch)
        if member is None:
            raise StoreError(f"{place}: no {batch}.bin in it; fetch it again")
        size = Path(member.file).stat().st_size if member.kind == FILE else member.size
        if size == 0 or size % RECORD_BYTES:
            raise StoreError(
                f"{place}: {batch}.bin: {size:,} bytes are no whole records of {RECORD_BYTES:,}; "
                "fetch it again"
            )
        whole = read_bytes(Path(member.file), member, member.path)
        for index in range(size // RECORD_BYTES):
            start = index * RECORD_BYTES
            if (label := whole[start]) >= len(CLASSES):
                raise StoreError(f"{place}: {batch}.bin: record {index} has label {label}, not 0-9")
            yield Entry(
                name=f"{batch}[{index:04d}]",
                label=label,
                split=split,
                file=member.file,
                kind=SLICE if member.kind == FILE else member.kind,
                offset=member.offset + start,
                size=RECORD_BYTES,
                coding=CIFAR_RECORD,
                native=(32, 32),
            )


def classes(place: Path) -> tuple[str, ...]:
    """The class names in label order."""
    return CLASSES
