"""Features kept for later questions: the leading components of a cell's mean tokens, in 16 bits.

A component's direction is learnt on one set (the training part of the first task) and used for all
of a cell's sets, so that a probe trained later on one set may be asked about another. Components
rather than channels, because what a machine gives back is bounded; the file says which share of the
variance they hold. Files of cells are gathered into zip archives of bounded size.
"""

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from mae_lib.errors import RecordError
from mae_lib.records.atomic import write_bytes

COMPONENTS = 48


@dataclass(frozen=True)
class SavedFeatures:
    """A cell's components by set `[n, k]`, and the way back: `mean + components @ basis.T`.

    `mean` `[D]`, `basis` `[D, k]`, `explained` the share of the first set's variance that is held.
    """

    cell: str
    digest: str
    sets: dict[str, np.ndarray]
    mean: np.ndarray
    basis: np.ndarray
    explained: float


def reduce_features(
    cell: str, digest: str, features: Mapping[str, np.ndarray], *, components: int = COMPONENTS
) -> SavedFeatures:
    """Project features `[n, D]` on the leading components of the first set, in float64."""
    first = next(iter(features.values())).astype(np.float64)
    mean = first.mean(0)
    covariance = np.cov(first - mean, rowvar=False, bias=True)
    values, vectors = np.linalg.eigh(np.atleast_2d(covariance))
    kept = min(components, len(values))
    basis = vectors[:, ::-1][:, :kept]
    total = float(values.sum())
    return SavedFeatures(
        cell=cell,
        digest=digest,
        sets={name: _half((x.astype(np.float64) - mean) @ basis) for name, x in features.items()},
        mean=mean.astype(np.float32),
        basis=basis.astype(np.float32),
        explained=float(values[::-1][:kept].sum()) / total if total > 0 else 1.0,
    )


def to_bytes(saved: SavedFeatures) -> bytes:
    """Return the safetensors bytes of a cell's features."""
    about = {"cell": saved.cell, "digest": saved.digest, "explained": repr(saved.explained)}
    sets = {f"set.{name}": x for name, x in saved.sets.items()}
    return save(sets | {"mean": saved.mean, "basis": saved.basis}, metadata=about)


def from_bytes(content: bytes) -> SavedFeatures:
    """Read the features of a cell from safetensors bytes."""
    tensors = load(content)
    length = int.from_bytes(content[:8], "little")
    about = json.loads(content[8 : 8 + length])["__metadata__"]
    return SavedFeatures(
        cell=about["cell"],
        digest=about["digest"],
        sets={k.removeprefix("set."): v for k, v in tensors.items() if k.startswith("set.")},
        mean=tensors["mean"],
        basis=tensors["basis"],
        explained=float(about["explained"]),
    )


@dataclass
class Archives:
    """Zip files `<stem>-1.zip`, ... of at most `limit` bytes each and `most` of them.

    An archive is written anew, whole, with each member: a cut run leaves the one before it.
    """

    folder: Path
    stem: str
    limit: int
    most: int
    number: int = 1
    _members: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, stem: str, limit: int, most: int) -> "Archives":
        """Open a folder's archives, going on with the last one that is there."""
        numbers = [n for n in range(1, most + 1) if (folder / f"{stem}-{n}.zip").exists()]
        if not numbers:
            return cls(folder, stem, limit, most)
        with zipfile.ZipFile(folder / f"{stem}-{numbers[-1]}.zip") as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        return cls(folder, stem, limit, most, numbers[-1], members)

    def add(self, name: str, content: bytes) -> str | None:
        """Add a member; return its archive's name, or None when all archives are full."""
        while self.number <= self.most:
            packed = _zip(self._members | {name: content})
            if len(packed) <= self.limit:
                self._members[name] = content
                path = self.folder / f"{self.stem}-{self.number}.zip"
                write_bytes(path, packed)
                return path.name
            if not self._members:
                return None
            self.number, self._members = self.number + 1, {}
        return None


def read_archive(path: Path) -> dict[str, SavedFeatures]:
    """Read every cell's features from an archive.

    Raises: RecordError when it is cut or changed.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            saved = [from_bytes(archive.read(name)) for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError, KeyError, ValueError) as error:
        raise RecordError(f"{path}: cut or changed, got {error}; copy it again") from None
    return {features.cell: features for features in saved}


def _zip(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in members.items():
            # A fixed time stamp: equal members give equal bytes.
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content,
                             compress_type=zipfile.ZIP_DEFLATED, compresslevel=1)  # fmt: skip
    return buffer.getvalue()


def _half(x: np.ndarray) -> np.ndarray:
    """Round to 16 bits; what does not fit there is held at its largest value."""
    most = float(np.finfo(np.float16).max)
    return np.clip(x, -most, most).astype(np.float16)
