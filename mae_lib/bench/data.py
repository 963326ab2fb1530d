"""The data path on this machine: JPEG bytes to a packed store, random batches, training with both.

Contenders run in turn within a round, so that load from outside falls on all alike; ratios are taken
within a round, then their median. Files lie in the page cache, as they do after a first pass.
"""

import importlib.metadata
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mae_lib.bench.jpegs import SIZE, encode, photographs, write_folder
from mae_lib.bench.training_data import bench_training
from mae_lib.images.blocks import Block, Making, Run, block_rows, ensure_block
from mae_lib.images.decode import decode_square
from mae_lib.images.entries import Entry
from mae_lib.images.fast_decode import decode_square_fast
from mae_lib.images.pack import Array, create
from mae_lib.images.pool import started
from mae_lib.images.reader import DECODERS, Reader, require_decoder
from mae_lib.images.store import build_store
from mae_lib.kernels.allocator import keep_freed_memory
from mae_lib.records.provenance import available_cores, processor, versions
from mae_lib.study.definition import Data, Source, Task

SIDE = 256
PAPER_IMAGES, PAPER_CORES = 200_000, 16
READ_SIDE, READ_BATCH = 64, 256
# Batches a round: workers fill their queues between rounds, and so many make that buy little.
READ_COUNT = 16


def bench_data(
    *,
    images: int = 512,
    stored: int = 12_000,
    rounds: int = 9,
    threads: int = 2,
    dtype: str = "bf16",
    parts: tuple[str, ...] = ("pack", "scale", "read", "train"),
) -> dict:
    """Measure the parts asked for; see `benchmarks/README.md` for what each says.

    Units: images per second of wall clock; `error` in grey levels.
    Raises: StudyError when the fast road is not installed.
    """
    needed = require_decoder("fast").packages if {"pack", "scale"} & set(parts) else ()
    folder = Path(tempfile.mkdtemp(prefix="mae-bench-"))
    jpegs, origin = photographs(min(images, 240))
    found: dict = {
        "processor": processor(),
        "cores": available_cores(),
        "versions": versions() | {name: importlib.metadata.version(name) for name in needed},
        "rounds": rounds,
        "jpegs": {
            "from": origin,
            "size": list(SIZE),
            "mean_bytes": round(statistics.mean(map(len, jpegs))),
        },
    }
    try:
        write_folder(folder / "jpegs", jpegs, count=images)
        if "pack" in parts:
            found["pack"] = bench_pack(folder, images, rounds=rounds)
        if "scale" in parts:
            found["scale"] = bench_scale(folder, images, rounds=rounds)
        if {"pack", "scale"} <= set(parts):
            found["projection"] = project(found["pack"], found["scale"])
        if {"read", "train"} & set(parts):
            data = _data(stored)
            store = build_store(data, folder / "store", data_root=None)
        if "read" in parts:
            found["read"] = bench_read(folder, store, rounds=rounds)
        if "train" in parts:
            paths = sorted((folder / "jpegs").rglob("*.jpg"))
            found["train"] = bench_training(
                store, data, paths, rounds=rounds, threads=threads, dtype=dtype
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return found


def bench_pack(folder: Path, images: int, *, rounds: int) -> dict:
    """Pack JPEG files at 256 pixels on one core: ours by both roads, and a plain loop of Pillow's.

    Ours hashes bytes and pixels, writes and keeps its journal; the plain loop opens, converts,
    resizes and writes its rows into a mapped array. Each is given the list of files and makes its
    array anew. `decode_ratio` compares decoding alone.
    """
    keep_freed_memory()  # as the workers of a build do; all contenders here have it
    paths = sorted((folder / "jpegs").rglob("*.jpg"))
    contenders = {
        "fast": partial(_pack, *_job(folder / "fast", folder, "fast", images)),
        "pillow": partial(_pack, *_job(folder / "pillow", folder, "pillow", images)),
        "plain loop": partial(_plain_loop, folder / "plain.npy", paths),
        "decode fast": partial(_decode_all, decode_square_fast, paths),
        "decode pillow": partial(_decode_all, decode_square, paths),
    }
    seconds = timed(contenders, rounds=rounds)
    return {
        "side": SIDE,
        "images_per_s": {name: _rate(images, took) for name, took in seconds.items()},
        "ratio": _ratio(seconds["plain loop"], seconds["fast"]),
        "ratio_same_proofs": _ratio(seconds["pillow"], seconds["fast"]),
        "decode_ratio": _ratio(seconds["decode pillow"], seconds["decode fast"]),
        "error": _error(paths[: min(len(paths), 120)]),
    }


def bench_scale(folder: Path, images: int, *, rounds: int) -> dict:
    """Pack with one and with two processes that are already started: images a second, and ratio."""
    making, array, tasks = _job(folder / "scale", folder, "fast", images)
    with started(1, making.modules) as one, started(2, making.modules) as two:
        work = {
            "1": partial(_pack, making, array, tasks, one.map),
            "2": partial(_pack, making, array, tasks, two.map),
        }
        seconds = timed(work, rounds=rounds)
    return {
        "images_per_s": {name: _rate(images, took) for name, took in seconds.items()},
        "ratio": _ratio(seconds["1"], seconds["2"]),
    }


def project(pack: dict, scale: dict) -> dict:
    """Return the seconds that the paper's images take to 256 pixels on 16 cores.

    Assumes that every doubling of the processes gains what the first one did here.
    """
    efficiency = min(1.0, scale["ratio"]["median"] / 2)
    cores = PAPER_CORES * efficiency ** np.log2(PAPER_CORES)
    rate = pack["images_per_s"]["fast"]
    return {
        "images": PAPER_IMAGES,
        "cores": PAPER_CORES,
        "seconds_by_one_core_rate": round(PAPER_IMAGES / (rate * PAPER_CORES), 1),
        "seconds_with_measured_scaling": round(PAPER_IMAGES / (rate * float(cores)), 1),
    }


def bench_read(folder: Path, store, *, rounds: int) -> dict:
    """Read random batches of 256 out of a store, and out of a JPEG folder by torch's DataLoader.

    The folder holds the same images at the same 64 pixels; its loader has two workers that stay.
    """
    from mae_lib.bench.training_data import folder_loader

    paths = write_folder(
        folder / "small",
        [encode(Image.fromarray(i)) for i in store.images],
        count=len(store.images),
    )
    rng = np.random.default_rng(0)
    batches = iter(folder_loader(paths, READ_BATCH, transform=_as_tensor))
    contenders: dict[str, Callable[[], object]] = {
        "store": lambda: torch.from_numpy(
            store.images[rng.integers(0, len(store.images), READ_BATCH)]
        ),
        "loader": lambda: next(batches),
    }
    count = READ_COUNT
    many = {name: partial(_repeat, step, count) for name, step in contenders.items()}
    seconds = timed(many, rounds=rounds)
    return {
        "side": READ_SIDE,
        "batch": READ_BATCH,
        "images_per_s": {n: _rate(READ_BATCH * count, took) for n, took in seconds.items()},
        "ratio": _ratio(seconds["loader"], seconds["store"]),
    }


def timed(contenders: dict[str, Callable[[], object]], *, rounds: int) -> dict[str, np.ndarray]:
    """Run each once to warm up, then once a round in a turning order: seconds `[rounds]` each."""
    names = list(contenders)
    for work in contenders.values():
        work()
    seconds = {name: np.empty(rounds) for name in names}
    for round_ in range(rounds):
        for turn in range(len(names)):
            name = names[(round_ + turn) % len(names)]
            start = time.perf_counter()
            contenders[name]()
            seconds[name][round_] = time.perf_counter() - start
    return seconds


def _job(out: Path, root: Path, decoder: str, images: int) -> tuple[Making, Array, list[Block]]:
    """Return what the packer is given for the JPEG folder, in blocks as a build has them."""
    paths = sorted((root / "jpegs").rglob("*.jpg"))[:images]
    entries = [Entry(path.name, 0, "train", str(path.relative_to(root)), "file") for path in paths]
    making = Making(out, SIDE, 0, reader=Reader(root, decoder))
    array = Array("images.npy", (Run("jpegs", entries),))
    step = block_rows(SIDE)
    tasks = [
        Block(
            f"images-0-{start:06d}",
            array.file,
            range(start, min(start + step, images)),
            (Run("jpegs", entries[start : start + step]),),
        )
        for start in range(0, images, step)
    ]
    return making, array, tasks


def _pack(making: Making, array: Array, tasks: list[Block], run: Callable = map) -> None:
    shutil.rmtree(making.folder, ignore_errors=True)
    create(making, array)
    for done in run(partial(ensure_block, making), tasks):
        assert not done.reused


def _plain_loop(out: Path, paths: list[Path]) -> None:
    """What one writes without this package: open, convert, resize, put into a mapped array."""
    rows = np.lib.format.open_memmap(out, "w+", np.uint8, (len(paths), SIDE, SIDE, 3))
    for row, path in enumerate(paths):
        image = Image.open(path).convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = (left, top, left + side, top + side)
        rows[row] = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box))


def _decode_all(decode: Callable, paths: list[Path]) -> None:
    for path in paths:
        decode(path.read_bytes(), SIDE, where=path.name)


def _error(paths: list[Path]) -> dict:
    """Return how far the fast road is from Pillow's, in grey levels: mean and worst image, maximum."""
    means, most = [], 0
    for path in paths:
        plain, fast = (
            DECODERS[name].decode(path.read_bytes(), SIDE, where=path.name)[0].astype(np.int16)
            for name in ("pillow", "fast")
        )
        apart = np.abs(plain - fast)
        means.append(float(apart.mean()))
        most = max(most, int(apart.max()))
    return {
        "mean": round(statistics.mean(means), 5),
        "worst_image": round(max(means), 5),
        "max": most,
    }


def _data(images: int) -> Data:
    task = Task("shapes", train_images=50, test_images=50)
    return Data("procedural", images, READ_SIDE, 0, (Source("objects", 1.0),), (task,))


def _as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image))


def _repeat(step: Callable[[], object], count: int) -> None:
    for _ in range(count):
        step()


def _rate(images: int, seconds: np.ndarray) -> float:
    return round(images / float(np.median(seconds)), 1)


def _ratio(slow: np.ndarray, quick: np.ndarray) -> dict:
    low, middle, high = np.quantile(slow / quick, (0.2, 0.5, 0.8))
    return {
        "median": round(float(middle), 3),
        "p20": round(float(low), 3),
        "p80": round(float(high), 3),
    }
