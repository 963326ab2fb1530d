"""Compare a store with its manifest: every file, and of large arrays every block, in threads."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from mae_lib.errors import RecordError, StoreError
from mae_lib.images.blocks import HEADER_BYTES, block_hash, image_hashes, read_rows
from mae_lib.records.atomic import sha256_of
from mae_lib.records.provenance import available_cores
from mae_lib.records.sealed import read_sealed

REMEDY = "delete {folder}, it is built anew"


def verify_store(folder: Path) -> list[str]:
    """Compare every file with its hash; return one line for each that differs.

    Of an array whose blocks are in the manifest the line names the rows of each damaged block.
    """
    try:
        manifest = read_sealed(folder / "manifest.json")
    except RecordError as error:
        return [str(error)]
    blocks = manifest.get("blocks", {})
    checks = []
    for name, sha256 in manifest["files"].items():
        if name in blocks:
            checks += _block_checks(folder / name, blocks[name])
        else:
            checks.append(partial(_check_file, folder / name, sha256))
    # hashlib lets go of the interpreter, so threads are enough.
    with ThreadPoolExecutor(available_cores()) as pool:
        found = pool.map(lambda check: check(), checks)
        return [f"{p}; {REMEDY.format(folder=folder)}" for p in found if p]


def header_hash(path: Path) -> str:
    """Return the sha256 of an array's header, which says its shape and type."""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read(HEADER_BYTES)).hexdigest()


def _block_checks(path: Path, sealed: dict) -> Iterator:
    yield partial(_check_header, path, sealed)
    rows, total = sealed["block_rows"], sealed["rows"]
    for number, sha256 in enumerate(sealed["sha256"]):
        span = range(number * rows, min((number + 1) * rows, total))
        yield partial(_check_block, path, sealed["side"], span, sha256)


def _check_file(path: Path, sha256: str) -> str | None:
    if not path.exists():
        return f"{path}: missing"
    if sha256_of(path) != sha256:
        return f"{path}: changed after it was written, its hash differs"
    return None


def _check_header(path: Path, sealed: dict) -> str | None:
    if not path.exists():
        return f"{path}: missing"
    wanted = HEADER_BYTES + sealed["rows"] * sealed["side"] ** 2 * 3
    if (got := path.stat().st_size) != wanted:
        return f"{path}: cut or grown, got {got:,} bytes, wanted {wanted:,}"
    if header_hash(path) != sealed["header"]:
        return f"{path}: its header changed after it was written, its hash differs"
    return None


def _check_block(path: Path, side: int, rows: range, sha256: str) -> str | None:
    try:
        images = read_rows(path, side, rows)
    except (StoreError, OSError):
        return None  # missing or cut: the header's line says so
    if block_hash(image_hashes(images)) != sha256:
        return (
            f"{path}: rows {rows.start:,} to {rows.stop - 1:,} (block {rows.start // len(rows)}) "
            "changed after they were written, their hash differs"
        )
    return None
