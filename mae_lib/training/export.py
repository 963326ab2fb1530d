"""Publish a finished cell's weights: another project's names and config, and a model card."""

import os
import re
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from mae_lib.errors import RecordError, StudyError
from mae_lib.model.described import CONFIGS, hf_preprocessor, model_from, own_section, sizes_of
from mae_lib.model.interchange import exported
from mae_lib.model.mae import MaskedAutoencoder
from mae_lib.model.weight_files import PROVENANCE, read_weights
from mae_lib.records.atomic import replacing, sha256_of, write_json, write_text
from mae_lib.records.provenance import commit, versions
from mae_lib.records.sealed import read_sealed, write_sealed
from mae_lib.study.definition import settings_of
from mae_lib.study.recorded import cell_from_settings
from mae_lib.study.suggest import nearest
from mae_lib.training.loop import build_model
from mae_lib.training.model_card import card_of_cell, card_of_checkpoint

FORMATS = tuple(CONFIGS)
_CELL_ID = re.compile(r"[a-z0-9_-]+")


def find_cell(cell_id: str, runs: Path, *, out: str | None = None) -> Path:
    """Return the folder of a cell in one run folder, or in the only one below `runs` that has it.

    Raises: StudyError naming the nearest known cell, or the run folders to choose from.
    """
    folders = [runs / out] if out else sorted(p for p in runs.glob("*") if p.is_dir())
    cells = [p for folder in folders for p in sorted(folder.glob("cells/*/")) if p.is_dir()]
    found = [p for p in cells if p.name == cell_id] if _CELL_ID.fullmatch(cell_id) else []
    if not found:
        hint = nearest(cell_id, {p.name for p in cells}) if cells else ""
        where = f"{runs / out}" if out else f"{runs}"
        raise StudyError(
            f"cell: no such cell in {where}, and no such file, got {cell_id!r}"
            f"{hint or '; it holds no cells yet, run a study first'}"
        )
    if len(found) > 1:
        names = ", ".join(p.parents[1].name for p in found)
        raise StudyError(f"--out: several run folders hold {cell_id}; name one of {names}")
    return found[0]


def export_cell(folder: Path, to: str, target: Path) -> Path:
    """Write a finished cell's model into `target`: config, safetensors, card, provenance last.

    Raises: StudyError when the cell is not complete or `target` cannot be used; RecordError when a
    file of the cell is damaged.
    """
    begun, training, record = _finished(folder)
    _require_target(target, to)
    cell = cell_from_settings(begun["settings"], begun["digest"])
    weights = folder / "weights.safetensors"
    if not weights.exists() or sha256_of(weights) != training["weights_sha256"]:
        raise RecordError(
            f"{weights}: cut or changed, its hash differs; delete it and run the study again"
        )
    model = build_model(cell)
    model.load_state_dict(read_weights(weights))
    made = {
        "cell": cell.id,
        "digest": cell.digest,
        "settings": settings_of(cell),
        "weights_sha256": training["weights_sha256"],
        "environment": training["environment"],
        "rows": record["rows"],
    }
    files = _write_model(model, to, target)
    write_text(target / "README.md", card_of_cell(cell, model, training, record, to, files))
    return _seal(target, [*files, "README.md"], to, model, made)


def convert_checkpoint(source: Path, to: str, target: Path, *, model: str | None = None) -> Path:
    """Write a checkpoint made elsewhere (or exported before) in another project's names.

    `model` names its shape where no config.json and no width and depth tell it.
    Raises: RecordError in one line for anything that is no such checkpoint.
    """
    built = model_from(source, model=model, decoder=True)
    _require_target(target, to)
    file = source if source.is_file() else source / "model.safetensors"
    made = {"source": source.name, "source_sha256": sha256_of(file) if file.exists() else None}
    files = _write_model(built, to, target)
    write_text(target / "README.md", card_of_checkpoint(built, made, to, files))
    return _seal(target, [*files, "README.md"], to, built, made)


def _finished(folder: Path) -> tuple[dict, dict, dict]:
    """Read the three sealed files of a complete cell; its record is written last."""
    if not (folder / "record.json").exists():
        state = "trained and not evaluated" if (folder / "training.json").exists() else "begun"
        raise StudyError(
            f"{folder.name}: not complete, only {state}; run its study, the same command goes on"
        )
    begun, training, record = (
        read_sealed(folder / name) for name in ("cell.json", "training.json", "record.json")
    )
    if record["status"] != "complete":
        raise StudyError(f"{folder.name}: {record['status']}, there are no weights to export")
    if not begun["digest"] == training["digest"] == record["digest"]:
        raise RecordError(f"{folder}: its files are of several cells; run the study again")
    return begun, training, record


def _require_target(target: Path, to: str) -> None:
    """Refuse, before any work, a folder that cannot be written or holds something else."""
    if to not in FORMATS:
        raise StudyError(f"--to: one of {', '.join(FORMATS)}, got {to!r}{nearest(to, FORMATS)}")
    parent = next((p for p in (target, *target.absolute().parents) if p.exists()), Path("/"))
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise StudyError(f"{target}: cannot be written: {parent} is no folder that you may write")
    if target.is_dir() and any(target.iterdir()) and not (target / PROVENANCE).exists():
        raise StudyError(f"{target}: holds files of something else; name a new or empty folder")


def _write_model(model: MaskedAutoencoder, to: str, target: Path) -> list[str]:
    """Write config and tensors; return the names of the files."""
    sizes = sizes_of(model)
    tensors = _files_of(model, to)
    (target / PROVENANCE).unlink(missing_ok=True)
    for name, content in tensors.items():
        with replacing(target / name) as temporary:
            save_file(content, temporary, metadata={"format": "pt"})
    write_json(target / "config.json", CONFIGS[to](sizes))
    files = [*tensors, "config.json"]
    if to == "hf":
        write_json(target / "preprocessor_config.json", hf_preprocessor(sizes))
        files.append("preprocessor_config.json")
    return files


def _files_of(model: MaskedAutoencoder, to: str) -> dict[str, dict[str, Tensor]]:
    """timm has no decoder: it lies in a file of its own, so that the encoder loads strictly."""
    if to != "timm":
        return {"model.safetensors": exported(model, to)}
    encoder = model.encoder.state_dict()
    whole = {**model.state_dict(), "decoder_pos_embed": model.decoder_pos_embed[None]}
    decoder = {name: t for name, t in whole.items() if not name.startswith("encoder.")}
    return {
        "model.safetensors": {name: t.contiguous() for name, t in encoder.items()},
        "decoder.safetensors": {name: t.contiguous() for name, t in decoder.items()},
    }


def _seal(target: Path, files: list[str], to: str, model: MaskedAutoencoder, made: dict) -> Path:
    """Write provenance.json last: with it, the folder is whole."""
    write_sealed(
        target / PROVENANCE,
        {
            **made,
            "to": to,
            "model": own_section(sizes_of(model)),
            "files": {name: sha256_of(target / name) for name in files},
            "exported_from": commit(),
            "versions": versions(),
        },
    )
    return target
