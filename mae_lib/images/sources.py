"""Read a source in its own layout, one image after the other, without unpacking it.

Now: WebDataset tars, `KEY.jpg` or `KEY.png` beside `KEY.json` with a `label` (-1 = none). An archive
that tries to write elsewhere, or hides something, is refused whole.
"""

import hashlib
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mae_lib.errors import StoreError, StudyError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
# No image of the public sets comes near this; a bomb does.
MAX_MEMBER_BYTES = 64 * 2**20


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
    pending: dict[str, tuple[str, bytes]] = {}
    seen: set[str] = set()
    last = "its beginning"
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                _require_plain(path, member, seen)
                seen.add(member.name)
                content = archive.extractfile(member).read()
                if len(content) < member.size:
                    raise tarfile.ReadError("unexpected end of data")
                last = member.name
                stem, _, suffix = member.name.rpartition(".")
                if stem in pending:
                    other_suffix, other = pending.pop(stem)
                    yield _pair(path, stem, (suffix, content), (other_suffix, other))
                else:
                    pending[stem] = (suffix, content)
            _require_closed(path)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise StoreError(
            f"{path}: cut or damaged after {last}, got {error}; fetch the file again"
        ) from None
    if pending:
        stem = sorted(pending)[0]
        raise StoreError(
            f"{path}: {stem}: an image without its JSON, or the reverse (+{len(pending) - 1} more)"
        )


def _require_plain(path: Path, member: tarfile.TarInfo, seen: set[str]) -> None:
    """Refuse what no list of images needs: links, devices, paths that leave, doubles, bombs."""
    pure = PurePosixPath(member.name)
    problem = None
    if not member.isfile():
        problem = "is no plain file"
    elif pure.is_absolute() or ".." in pure.parts:
        problem = "leaves the archive's folder"
    elif member.name in seen:
        problem = "is there twice"
    elif member.size > MAX_MEMBER_BYTES:
        problem = f"holds {member.size:,} bytes, more than {MAX_MEMBER_BYTES:,}"
    if problem:
        raise StoreError(f"{path}: {member.name}: {problem}; the archive is refused")


def _pair(path: Path, stem: str, *parts: tuple[str, bytes]) -> Photograph:
    by_suffix = dict(parts)
    image = next((v for k, v in by_suffix.items() if f".{k.lower()}" in IMAGE_SUFFIXES), None)
    if image is None or "json" not in by_suffix:
        raise StoreError(
            f"{path}: {stem}: an image and a JSON were expected, "
            f"got .{' and .'.join(sorted(by_suffix))}"
        )
    try:
        about = json.loads(by_suffix["json"])
        label = int(about["label"])
        native = tuple(int(side) for side in about["native"]) if about.get("native") else None
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: {stem}.json: label: cannot be read, got {error!r}") from None
    return Photograph(name=stem, label=label, encoded=image, native=native)


def _require_closed(path: Path) -> None:
    """A tar ends with two empty blocks; one that was cut between members has none."""
    with open(path, "rb") as file:
        file.seek(-1024, 2)
        if any(file.read()):
            raise tarfile.ReadError("no end mark")


def _find_damage(path: Path) -> None:
    """Read a file with a wrong hash to its end, so that a cut one is called cut."""
    for _ in read_tar(path):
        pass
