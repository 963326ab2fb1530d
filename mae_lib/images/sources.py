"""The tars that a study of kind "tars" names: found under MAE_DATA, compared by hash, and read."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mae_lib.errors import StoreError, StudyError
from mae_lib.images.layouts import webdataset
from mae_lib.images.layouts.reading import read_bytes


@dataclass(frozen=True)
class Photograph:
    """One image as its publisher gave it: still encoded, with its name and label."""

    name: str
    label: int
    encoded: bytes
    native: tuple[int, int] | None


def require_file(folder: Path | None, name: str, sha256: str | None) -> Path:
    """Find a file below MAE_DATA and compare its hash.

    Raises: StudyError when it is not there; StoreError when it is another file.
    """
    if folder is None:
        raise StudyError(f"MAE_DATA: not set; set it to the folder that holds {name}")
    if not folder.is_dir():
        raise StudyError(f"MAE_DATA: {folder}: no such folder")
    path = folder / name
    if not path.is_file():
        held = sum(1 for _ in folder.iterdir())
        raise StudyError(f"MAE_DATA: {folder}: no file {name} among the {held} entries there")
    if sha256 is not None:
        with open(path, "rb") as file:
            got = hashlib.file_digest(file, "sha256").hexdigest()
        if got != sha256:
            _find_damage(path)
            raise StoreError(
                f"{path}: sha256: not the file that the study names, got {got}, wanted {sha256}; "
                "fetch it again, or name its hash in a copy of the study"
            )
    return path


def read_tar(path: Path) -> Iterator[Photograph]:
    """Yield the images of a WebDataset tar in its own order.

    Raises: StoreError when the archive is cut, refused, or pairs no JSON with an image.
    """
    for entry in webdataset.read(path):
        encoded = read_bytes(path, entry, entry.name)
        yield Photograph(entry.name, entry.label, encoded, entry.native)


def _find_damage(path: Path) -> None:
    """List a file with a wrong hash to its end, so that a cut one is called cut."""
    for _ in webdataset.read(path):
        pass
