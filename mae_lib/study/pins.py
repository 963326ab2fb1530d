"""Tie a study to the very bytes of its files, so that a cell's id is known before any job runs."""

import dataclasses
import hashlib

from mae_lib.errors import StudyError
from mae_lib.study.definition import Data
from mae_lib.study.paths import data_root


def pinned(data: Data) -> Data:
    """Fill in the sha256 of every tar that the study names without one.

    Raises: StudyError when such a file cannot be read (MAE_DATA not set, or no such file).
    """
    if data.kind != "tars":
        return data
    sources = tuple(
        dataclasses.replace(s, sha256=s.sha256 or _sha256(s.file)) for s in data.sources
    )
    tasks = tuple(
        dataclasses.replace(
            t,
            train_sha256=t.train_sha256 or _sha256(t.train),
            test_sha256=t.test_sha256 or _sha256(t.test),
        )
        for t in data.tasks
    )
    return dataclasses.replace(data, sources=sources, tasks=tasks)


def _sha256(name: str) -> str:
    folder = data_root()
    if folder is None:
        raise StudyError(
            f"MAE_DATA: not set, but the study names {name} without its sha256; "
            "set MAE_DATA to the folder that holds it"
        )
    try:
        with open(folder / name, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StudyError(f"{folder / name}: cannot be read, got {error.strerror}") from None
