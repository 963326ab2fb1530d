"""Measure the next cells of a study that fit into some minutes, on a machine with torch alone."""

import argparse
import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from mae_lib.errors import BusyError, StudyError
from mae_lib.records.locks import locked
from mae_lib.records.provenance import commit
from mae_lib.study.definition import Cell, Study
from mae_lib.study.paths import RunPaths, data_root, results_folder
from mae_lib.study.plain import read_study
from mae_lib.study.suggest import nearest
from mae_lib.study.yaml_file import study_path

# Reading out is work for the processor, so more cells than the device trains at its best.
AT_ONCE = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("study", help="a study's name, or its YAML file")
    parser.add_argument("--minutes", type=float, default=9.0, help="time for all of it (9)")
    parser.add_argument("--out", type=Path, required=True, help="folder of what is given back")
    parser.add_argument("--images", type=Path, nargs="+", default=[],
                        help="files of `mae data travel`; without, MAE_DATA is read")  # fmt: skip
    parser.add_argument("--done", type=Path, nargs="+", default=[],
                        help="folders of earlier pieces that are not merged yet")  # fmt: skip
    parser.add_argument("--cells", default="", help="only these cell ids, with commas between")
    parser.add_argument("--together", type=int, help=f"cells at once ({AT_ONCE}; 1 without a GPU)")
    parser.add_argument("--commit", help="the checkout's commit, where there is no git")
    parser.add_argument("--list", action="store_true", help="say what is left, and measure nothing")


def run(arguments: argparse.Namespace) -> None:
    """Measure a piece. Raises: MaeError in one line for what cannot be done."""
    started = time.monotonic()
    _check(arguments)
    study = read_study(arguments.study)
    if arguments.list:
        cells, planned = _left(study, arguments)
        for cell in cells:
            print(f"{cell.id} {planned[cell.id]:.0f} s")
        total = sum(planned[cell.id] for cell in cells)
        print(f"{study.name}: {len(cells)} cells are left, {total:.0f} s planned one at a time")
        return
    with _alone(study, arguments.out):
        cells, _ = _left(study, arguments)
        if not cells:
            print(f"{study.name}: no cell is left to measure")
            return
        # One commit a piece, whatever happens to the checkout while its workers run.
        os.environ["MAE_COMMIT"] = arguments.commit or commit()
        _measure(study, cells, arguments, started)


@contextlib.contextmanager
def _alone(study: Study, out: Path) -> Iterator[None]:
    """Two pieces in one folder would each write piece.json without the other's cells.

    The lock lies with the runs: everything in `out` travels back. Raises: BusyError.
    """
    key = hashlib.sha256(os.fsencode(out.resolve())).hexdigest()[:16]
    lock = locked(RunPaths.of(study.name).folder / f".piece-{key}.lock", wait=False)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock)
        except BusyError:
            raise BusyError(
                f"--out: {out}: another `mae study piece` writes to it; wait for it, or name "
                "another folder"
            ) from None
        yield


def _check(arguments: argparse.Namespace) -> None:
    if not 0 < arguments.minutes <= 24 * 60:
        raise StudyError(f"--minutes: must lie between 0 and 1440, got {arguments.minutes:g}")
    if arguments.together is not None and not 1 <= arguments.together <= 64:
        raise StudyError(f"--together: must lie between 1 and 64, got {arguments.together}")


def _left(study: Study, arguments: argparse.Namespace) -> tuple[list[Cell], dict[str, float]]:
    """Return the cells that are not done, in the plan's order, and every cell's planned seconds."""
    from mae_lib.records.plan_file import read_plan
    from mae_lib.training.piece_files import cells_in, published_cells, require_registered

    folder = results_folder(study.name)
    plan = read_plan(folder / "plan.json", study)
    planned = {cell.id: cell.seconds for cell in plan.cells}
    wanted = [name for name in arguments.cells.split(",") if name]
    for name in wanted:
        if name not in planned:
            raise StudyError(
                f"--cells: {study.name} has no such cell, got {name!r}{nearest(name, planned)}"
            )
    done = published_cells(folder)
    for earlier in arguments.done:
        done |= cells_in(earlier)
    if arguments.out.is_dir():
        done |= cells_in(arguments.out)
    registered = (folder / "registered.json").exists()
    if registered or set(wanted) & set(plan.largest):
        require_registered(folder, study)
    chosen = [
        cell
        for cell in plan.cells
        if cell.id not in done
        and (not wanted or cell.id in wanted)
        and (registered or not cell.largest)
    ]
    return [study.cell(cell.id) for cell in chosen], planned


def _measure(
    study: Study, cells: list[Cell], arguments: argparse.Namespace, started: float
) -> None:
    from mae_lib.images.store import build_store
    from mae_lib.images.travel import read_travel, require_pixels, unpack_travel
    from mae_lib.records.provenance import available_cores
    from mae_lib.training.piece import Piece, prepare_threads, stop_on_signal
    from mae_lib.training.piece_files import resume_files
    from mae_lib.training.piece_time import Expected

    stop_on_signal()
    paths = RunPaths.of(study.name)
    travelling = [read_travel(path) for path in arguments.images]
    own = next((t for t in travelling if t.data_digest == study.data.digest), None)
    if travelling and own is None:
        raise StudyError(f"--images: none of the files is of {study.name}'s images; pack them anew")
    if own is not None:
        os.environ["MAE_DATA"] = str(unpack_travel(own, paths.folder / "images"))
    gpu, memory = _accelerator()
    together = arguments.together or (AT_ONCE if gpu else 1)
    prepare_threads(together, available_cores())
    store = build_store(study.data, paths.store(study.data.digest), data_root=data_root())
    if own is not None:
        require_pixels(store, own)
    extras = _extras(study, store, own, paths)
    about = _about(arguments, own, together, gpu)
    _seed_baselines(study, paths)
    piece = Piece(
        study=study,
        study_file=str(study_path(arguments.study).resolve()),
        files=resume_files(arguments.out, study, {"study": study.name} | about),
        expected=Expected(None if gpu else max(1, available_cores() // together)),
        ends=started + 60 * arguments.minutes,
        together=together,
        memory_bytes=memory,
        extras=extras,
        say=lambda line: print(f"{time.monotonic() - started:5.0f} s {line}", flush=True),
    )
    piece.say(f"{study.name}: {len(store.images):,} images ready; {len(cells)} cells are left")
    piece.run(cells)
    done = len(piece.files.records)
    piece.say(f"{arguments.out}: {done} cells, {len(piece.files.failed)} failed")


def _extras(study: Study, store, travelling, paths: RunPaths) -> dict[str, str]:
    """Decode what is read out for later questions: the mixture's faces, and tars that travel along."""
    from mae_lib.images.travel import decode_tar
    from mae_lib.training.piece_worker import save_extra

    folder, found = paths.folder / "extras", {}
    size = study.data.size
    sources = (store.index["source"] == "celeba").to_numpy()
    if sources.any():
        found["celeba"] = folder / f"celeba-{size}-{study.data.digest}.npy"
        save_extra(found["celeba"], store.images[sources.nonzero()[0]])
    for part in travelling.extras if travelling else ():
        name = part.name.rpartition(".")[0]
        found[name] = folder / f"{name}-{size}-{part.sha256[:12]}.npy"
        save_extra(found[name], decode_tar(data_root() / part.name, size))
    return {name: str(path) for name, path in found.items()}


def _about(arguments: argparse.Namespace, travelling, together: int, gpu: str | None) -> dict:
    from mae_lib.records.provenance import available_cores, processor, versions
    from mae_lib.training.piece_files import code_digest, piece_name, utc_now

    about = {
        "started": utc_now(),
        "minutes": arguments.minutes,
        "together": together,
        "device": gpu or "cpu",
        "processor": processor(),
        "cores": available_cores(),
        "versions": versions(),
        "commit": commit(),
        "code_sha256": code_digest(),
        "images_sha256": travelling.sha256 if travelling else None,
        "pixels_digest": travelling.pixels_digest if travelling else None,
    }
    return {"name": piece_name(about["started"], about)} | about


def _seed_baselines(study: Study, paths: RunPaths) -> None:
    """Baselines that earlier pieces have measured are read, not measured again."""
    from mae_lib.records.sealed import read_sealed, write_sealed

    known = results_folder(study.name) / "baselines.json"
    for name, value in read_sealed(known)["files"].items() if known.exists() else ():
        if not (paths.baselines / name).exists():
            write_sealed(paths.baselines / name, {k: v for k, v in value.items() if k != "format"})


def _accelerator() -> tuple[str | None, float | None]:
    """Return the accelerator's name and memory in bytes, or None twice."""
    import torch

    from mae_lib.training.loop import device

    if device().type != "cuda":
        return None, None
    properties = torch.cuda.get_device_properties(device())
    return properties.name, float(properties.total_memory)
