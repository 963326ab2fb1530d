"""What a piece gives back: a few files of bounded size, each whole at any moment.

piece.json (sealed) has all that is evidence: records, loss curves, baselines, what it ran on.
pictures-1.zip and features-<k>.zip are made of photographs and stay out of any repository.
"""

import hashlib
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from mae_lib.errors import RecordError, StudyError
from mae_lib.evaluation.saved_features import Archives
from mae_lib.records.sealed import read_sealed, write_sealed
from mae_lib.study.definition import Cell, Study
from mae_lib.study.paths import root

PIECE = "piece.json"
# With piece.json and the pictures these are six files of at most 63 MiB together.
FEATURE_BYTES, FEATURE_FILES = 14 * 2**20, 4
PICTURE_BYTES = 5 * 2**20


@dataclass
class PieceFiles:
    """The growing files of one piece in `folder`."""

    folder: Path
    about: dict
    records: dict = field(default_factory=dict)
    curves: dict = field(default_factory=dict)
    seconds: dict = field(default_factory=dict)
    features: dict = field(default_factory=dict)
    failed: dict = field(default_factory=dict)
    baselines: dict = field(default_factory=dict)

    def __post_init__(self):
        self._features = Archives.open(self.folder, "features", FEATURE_BYTES, FEATURE_FILES)
        self._pictures = Archives.open(self.folder, "pictures", PICTURE_BYTES, 1)

    def add(self, cell: Cell, folder: Path, baselines: Path, seconds: dict) -> dict:
        """Take a finished cell from its folder; return its record. Written when this returns."""
        record = read_sealed(folder / "record.json")
        self.records[cell.id] = record
        self.curves[cell.id] = (folder / "metrics.jsonl").read_text(encoding="utf-8")
        self.seconds[cell.id] = seconds
        self.baselines = {p.name: read_sealed(p) for p in sorted(baselines.glob("*.json"))}
        saved, picture = folder / "features.safetensors", folder / "reconstruction.png"
        if saved.exists():
            name = self._features.add(f"{cell.id}.safetensors", saved.read_bytes())
            self.features[cell.id] = name
        if picture.exists():
            self._pictures.add(f"{cell.id}.png", picture.read_bytes())
        self.write()
        return record

    def fail(self, cell: Cell, message: str) -> None:
        """Keep what a cell ended with instead of a record."""
        self.failed[cell.id] = message
        self.write()

    def write(self) -> None:
        """Write piece.json with all that is known so far."""
        parts = ("records", "curves", "seconds", "features", "failed", "baselines")
        self.about["ended"] = utc_now()
        write_sealed(
            self.folder / PIECE, self.about | {name: getattr(self, name) for name in parts}
        )


def resume_files(folder: Path, study: Study, about: dict) -> PieceFiles:
    """Open a piece's folder, new or with the cells of the same study that are there.

    Raises: StudyError when it holds a piece of another study; RecordError when it is damaged.
    """
    path = folder / PIECE
    if not path.exists():
        return PieceFiles(folder, about)
    before = read_sealed(path)
    if before["study"] != study.name:
        raise StudyError(
            f"--out: {folder}: holds a piece of {before['study']}; name another folder"
        )
    parts = ("records", "curves", "seconds", "features", "failed", "baselines")
    kept = about | {"started": before["started"], "name": before["name"]}
    return PieceFiles(folder, kept, **{name: before[name] for name in parts if name != "failed"})


def cells_in(folder: Path) -> set[str]:
    """Return the cells of the pieces in `folder` and in the folders below it.

    Raises: RecordError when a piece is damaged; StudyError when there is no such folder.
    """
    if not folder.is_dir():
        raise StudyError(f"--done: {folder}: no such folder")
    paths = sorted({*folder.glob(PIECE), *folder.glob(f"*/{PIECE}")})
    return {name for path in paths for name in read_sealed(path)["records"]}


def published_cells(folder: Path) -> set[str]:
    """Return the cells of the pieces that are merged into a results folder."""
    return {
        name for path in (folder / "pieces").glob("*.json") for name in read_sealed(path)["records"]
    }


def code_digest() -> str:
    """Return the sha256 of the package's source files: which code ran, where there is no git."""
    found = hashlib.sha256()
    for path in sorted((root() / "mae_lib").rglob("*.py")):
        found.update(path.relative_to(root()).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def piece_name(started: str, about: dict) -> str:
    """Return a name that no other piece has: its start, and four digits of what it is."""
    stamp = started.translate(str.maketrans("", "", "-:TZ"))
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    return f"{stamp}-{digest[:4]}"


def utc_now() -> str:
    """Return the time as `2026-01-31T12:00:00Z`: it explains results and decides none."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def require_registered(folder: Path, study: Study) -> None:
    """Refuse to measure the largest cells before they are predicted.

    Raises: RecordError.
    """
    path = folder / "registered.json"
    if not path.exists():
        raise RecordError(
            f"{path}: missing; the largest cells are predicted before they are measured: "
            f"mae study register {study.name}, commit it, then measure",
            exit_code=2,
        )
    read_sealed(path)
