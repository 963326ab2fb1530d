"""Read checkpoints made elsewhere: tensors only, never an object, and every fault in one line."""

import json
import pickle
import warnings
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mae_lib.errors import RecordError
from mae_lib.records.atomic import sha256_of
from mae_lib.records.sealed import read_sealed

# Written last into an exported folder: it holds the hash of every other file.
PROVENANCE = "provenance.json"
_SAFE, _TORCH = (".safetensors",), (".pth", ".pt", ".bin")
# In the order of preference; the decoder is a second file where timm's names are used.
_IN_FOLDER = ("model.safetensors", "weights.safetensors", "pytorch_model.bin")
_NESTED = ("model", "state_dict")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a checkpoint: a safetensors file, a `.pth` of tensors, or a folder that holds one.

    Raises: RecordError in one line; exit code 2 for what is no checkpoint of tensors, 4 for a file
    that is cut or changed.
    """
    path = Path(path)
    files = _files_in(path) if path.is_dir() else (path,)
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors |= _read_file(file)
    return tensors


def read_config(path: Path) -> dict:
    """Return the config.json of a checkpoint's folder; empty when there is none."""
    path = Path(path)
    config = (path if path.is_dir() else path.parent) / "config.json"
    if not config.exists():
        return {}
    try:
        value = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{config}: cut or changed, it is no JSON, got {error}") from None
    if not isinstance(value, dict):
        raise RecordError(f"{config}: a mapping is wanted, got {type(value).__name__}", exit_code=2)
    return value


def check_folder(folder: Path) -> None:
    """Compare every file of an exported folder with the hash in its provenance, where it has one.

    Raises: RecordError naming the file.
    """
    if not (folder / PROVENANCE).exists():
        return
    for name, sha256 in read_sealed(folder / PROVENANCE)["files"].items():
        if not (folder / name).exists():
            raise RecordError(f"{folder / name}: missing, export it again")
        if sha256_of(folder / name) != sha256:
            raise RecordError(
                f"{folder / name}: changed after it was written, its hash differs; export it again"
            )


def _files_in(folder: Path) -> tuple[Path, ...]:
    check_folder(folder)
    found = [folder / name for name in _IN_FOLDER if (folder / name).exists()]
    if not found:
        raise RecordError(f"{folder}: holds none of {', '.join(_IN_FOLDER)}", exit_code=2)
    decoder = folder / "decoder.safetensors"
    return (found[0], decoder) if decoder.exists() else (found[0],)


def _read_file(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise RecordError(f"{path}: no such file", exit_code=2)
    readers = dict.fromkeys(_SAFE, _read_safetensors) | dict.fromkeys(_TORCH, _read_torch)
    if path.suffix not in readers:
        raise RecordError(
            f"{path}: one of {', '.join(readers)} is read, got {path.suffix or 'no ending'!r}",
            exit_code=2,
        )
    tensors = readers[path.suffix](path)
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
            raise RecordError(f"{path}: {name}: cut or changed, not all its values are numbers")
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise RecordError(
            f"{path}: cut or changed, or no safetensors file, got {error}; fetch it again"
        ) from None


def _read_torch(path: Path) -> dict[str, Tensor]:
    """Read a `.pth` without ever building an object: torch.load(weights_only=True), CRCs first."""
    try:
        if path.read_bytes()[:2] == b"PK":
            with zipfile.ZipFile(path) as archive:
                if damaged := archive.testzip():
                    raise zipfile.BadZipFile(f"a wrong checksum in {damaged}")
        with warnings.catch_warnings():
            # A warning about a pickle's protocol says nothing that the refusal does not.
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0].partition(". ")[0]
        raise RecordError(
            f"{path}: holds more than tensors, and objects are never unpickled ({reason}); "
            "save its tensors alone, best as safetensors",
            exit_code=2,
        ) from None
    except (zipfile.BadZipFile, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RecordError(f"{path}: cut or changed, got {reason}; fetch it again") from None
    for key in _NESTED:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(t, Tensor) for t in content.values()):
        raise RecordError(f"{path}: names with tensors are wanted, got other values", exit_code=2)
    return content
