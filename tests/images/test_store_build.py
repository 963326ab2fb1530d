"""A store has the same bytes for any number of workers and after any number of kills."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from photograph_folders import two_sources, write_two
from PIL import Image

from mae_lib.errors import StoreError
from mae_lib.images import blocks
from mae_lib.images.build import build
from mae_lib.images.card import describe, tasks_frame
from mae_lib.images.duplicates import PHOTOGRAPHS, Prints, pairs_across
from mae_lib.images.hygiene import prints
from mae_lib.images.pool import run_all
from mae_lib.images.store import build_store
from mae_lib.images.verify import verify_store
from mae_lib.records.sealed import read_sealed
from mae_lib.study.definition import Data, Source, Task
from mae_lib.study.load import load_study
from mae_lib.study.paths import root

FAMILIES = (
    Source("objects", 0.5), Source("faces", 0.315), Source("tiny", 0.05), Source("scenes", 0.135)
)  # fmt: skip
# Six blocks of the mixture and three of the task.
DRAWN = Data(
    "procedural", 5600, 8, 0, FAMILIES, (Task("shapes", train_images=1100, test_images=60),)
)


def hashes(folder: Path) -> dict:
    return read_sealed(folder / "manifest.json")["files"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("store") / "one"
    build_store(DRAWN, folder, data_root=None, workers=1)
    return folder


def test_the_published_stores_keep_their_bytes(tmp_path):
    data = load_study("pocket").data
    published = read_sealed(root() / "results" / "pocket" / "manifest.json")
    store = build_store(data, tmp_path / "store", data_root=None, workers=1)
    assert store.manifest["digest"] == published["digest"]
    assert hashes(store.folder) == published["files"]


def test_two_workers_give_the_bytes_of_one_and_report_their_progress(undisturbed, tmp_path):
    seen = []
    build_store(
        DRAWN,
        tmp_path / "two",
        data_root=None,
        workers=2,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert (tmp_path / "two" / "manifest.json").read_bytes() == (
        undisturbed / "manifest.json"
    ).read_bytes()
    assert seen[-1] == (6760, 6760)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert not (tmp_path / "two" / blocks.JOURNAL).exists()


_KILLED = """
import json, os, sys
from pathlib import Path
import numpy as np
from mae_lib.images import blocks, build, store
from mae_lib.study.definition import Data, Source, Task
from images_data import DRAWN
folder = Path(sys.argv[1])
made = blocks._make
log = open(folder.with_name("made.txt"), "a", buffering=1)
def counted(making, block):
    log.write(block.key + "\\n")
    return made(making, block)
blocks._make = counted
deaths = 0
for point in [int(p) for p in sys.argv[2].split(",")] + [0]:
    child = os.fork()
    if child == 0:
        if point:
            os.environ["MAE_FAULT_AT"] = f"kill:{point}"
        store.build_store(DRAWN, folder, data_root=None, workers=1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    deaths += os.WIFSIGNALED(status)
print(deaths)
"""


def test_a_build_killed_many_times_goes_on_and_ends_with_the_same_bytes(undisturbed, tmp_path):
    # One prepared process forks the builds, so that each kill costs milliseconds.
    code = _KILLED.replace(
        "from images_data import DRAWN",
        f"import sys; sys.path.insert(0, {str(root() / 'tests' / 'images')!r}); "
        f"sys.path.insert(0, {str(root() / 'tests')!r})\nfrom test_store_build import DRAWN",
    )
    points = [1, 2, 3, 4, 5, 6, 2, 4, 6, 3, 5, 1, 4, 6, 2, 5, 7, 3]
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "store"), ",".join(map(str, points))],
        capture_output=True,
        text=True,
        check=False,
        cwd=root(),
    )
    assert found.returncode == 0, found.stderr
    assert int(found.stdout) >= 10
    assert (tmp_path / "store" / "manifest.json").read_bytes() == (
        undisturbed / "manifest.json"
    ).read_bytes()
    assert verify_store(tmp_path / "store") == []
    made = (tmp_path / "made.txt").read_text().split()
    # Each of the nine blocks is made once, or once more for the kill between pixels and journal.
    assert len(set(made)) == 9
    assert len(made) <= 9 + int(found.stdout)
    assert max(made.count(key) for key in made) <= 4


def test_a_torn_or_changed_block_is_made_again_and_a_whole_one_is_not(tmp_path, monkeypatch):
    folder = tmp_path / "store"
    stopped = []

    def stop(*_):
        stopped.append(True)
        raise KeyboardInterrupt

    monkeypatch.setattr("mae_lib.images.build._complete", stop)
    with pytest.raises(KeyboardInterrupt):
        build(DRAWN, folder, data_root=None, workers=1)
    part = blocks.part_path(folder, "images.npy")
    with open(part, "r+b") as file:
        file.seek(blocks.HEADER_BYTES + 1500 * 8 * 8 * 3)
        file.write(b"\x00\x01\x02")
    entry = blocks.journal_path(folder, "images-0-000004")
    entry.write_text(entry.read_text()[:-40])
    monkeypatch.undo()
    made, make = [], blocks._make
    monkeypatch.setattr(blocks, "_make", lambda m, b: made.append(b.key) or make(m, b))
    store = build_store(DRAWN, folder, data_root=None, workers=1)
    assert made == ["images-0-000001", "images-0-000004"]
    assert verify_store(store.folder) == []


@pytest.mark.parametrize("row", [0, 1023, 1024, 5599])
def test_one_flipped_bit_is_found_and_its_block_named(undisturbed, row):
    path = undisturbed / "images.npy"
    place = blocks.HEADER_BYTES + row * 8 * 8 * 3 + 77
    whole = path.read_bytes()
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
    try:
        (line,) = verify_store(undisturbed)
    finally:
        path.write_bytes(whole)
    first = row // 1024 * 1024
    assert f"{path}: rows {first:,} to {min(first + 1023, 5599):,}" in line
    assert verify_store(undisturbed) == []


def test_a_cut_array_a_changed_header_and_a_missing_file_are_each_one_line(undisturbed):
    path = undisturbed / "images.npy"
    whole = path.read_bytes()
    try:
        for content, says in (
            (whole[:-5000], "cut or grown"),
            (whole[:20] + b"X" + whole[21:], "header changed"),
        ):
            path.write_bytes(content)
            assert says in verify_store(undisturbed)[0]
        path.unlink()
        assert "missing" in verify_store(undisturbed)[0]
    finally:
        path.write_bytes(whole)


def test_a_full_disk_is_one_line_and_the_next_build_goes_on(tmp_path, monkeypatch, undisturbed):
    from mae_lib.errors import MaeError

    monkeypatch.setenv("MAE_FAULT_AT", "enospc:9")
    monkeypatch.setattr("mae_lib.records.faults._count", iter(range(1, 10**6)))
    with pytest.raises(MaeError, match="No space left on device; free space") as caught:
        build_store(DRAWN, tmp_path / "store", data_root=None, workers=1)
    assert caught.value.exit_code == 1
    monkeypatch.delenv("MAE_FAULT_AT")
    store = build_store(DRAWN, tmp_path / "store", data_root=None, workers=1)
    assert hashes(store.folder) == hashes(undisturbed)


def test_a_smaller_side_is_one_antialiased_filter_of_the_larger(tmp_path):
    write_two(tmp_path, train=10, test=4)
    data = two_sources(16, size=32, smaller=(16, 8), twins="keep")
    store = build_store(data, tmp_path / "store", data_root=tmp_path)
    assert store.sides == (32, 16, 8)
    for side in (16, 8):
        small = store.at(side)
        assert small.shape == (16, side, side, 3)
        by_hand = Image.fromarray(store.images[5]).resize((side, side), Image.Resampling.BICUBIC)
        assert np.array_equal(small[5], np.asarray(by_hand))
        assert store.manifest["blocks"][f"images-{side}.npy"]["side"] == side
    assert "bicubic antialiased of the stored pixels" in store.manifest["smaller"]
    assert verify_store(store.folder) == []


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    # Anonymous memory of the builder itself: blocks are bounded, and so are the groups of rows in
    # which the index is written, here shortened so that few images show it.
    code = (
        "import sys; from pathlib import Path; import dataclasses\n"
        f"sys.path[:0] = [{str(root() / 'tests' / 'images')!r}, {str(root() / 'tests')!r}]\n"
        "from test_store_build import DRAWN\n"
        "from mae_lib.images.store import build_store\n"
        "import mae_lib.images.index as index; index.GROUP_ROWS = 1024\n"
        "data = dataclasses.replace(DRAWN, total=int(sys.argv[2]), size=32)\n"
        "build_store(data, Path(sys.argv[1]), data_root=None, workers=1)\n"
        "lines = open('/proc/self/status').read().splitlines()\n"
        "print(next(l.split()[1] for l in lines if l.startswith('RssAnon')))\n"
    )
    anonymous = []
    for total in (4000, 16000):
        found = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / str(total)), str(total)],
            capture_output=True,
            text=True,
            check=True,
            cwd=root(),
        )
        anonymous.append(int(found.stdout) * 1024)
    # What more images hold is far above what an allocator keeps by chance, some megabytes.
    pixels = 12_000 * 32 * 32 * 3
    assert anonymous[1] - anonymous[0] < pixels
    assert anonymous[1] < 400 * 2**20


def test_real_photographs_keep_their_published_bytes_and_have_known_twins(photographs, tmp_path):
    data = load_study("real-small").data
    published = read_sealed(root() / "results" / "real-small" / "manifest.json")
    store = build_store(data, tmp_path / "store", data_root=photographs)
    files = hashes(store.folder)
    assert {name: files[name] for name in published["files"]} == published["files"]
    assert store.manifest["versions"] == published["versions"]
    assert store.manifest["digest"] == "382c515acb57"
    assert describe(store).images.tolist() == [6000, 3780, 600, 1620]
    tasks = tasks_frame(store).set_index("task")
    assert tasks.loc["tiny_imagenet", ["train", "test", "classes"]].tolist() == [6000, 2000, 200]
    assert tasks.loc["cifar10", ["train", "test", "classes"]].tolist() == [2000, 600, 10]
    # Looked at: of the whole mixture these two are what evaluation shows too.
    made = store.index.query("source == 'cifar10'").index
    part = _only(prints(store, "images.npy"), slice(made[0], made[-1] + 1))
    twins = pairs_across(part, prints(store, "tasks/cifar10-test.npy"), PHOTOGRAPHS)
    assert sorted(zip(twins["kind"], twins["name_1"], twins["name_2"], strict=True)) == [
        ("near", "cifar-train-000818", "cifar-test-000312"),
        ("near", "cifar-train-001596", "cifar-test-000219"),
    ]


def _only(whole: Prints, rows: slice) -> Prints:
    values = {field.name: getattr(whole, field.name) for field in dataclasses.fields(whole)}
    return Prints(**{n: v if n == "array" else v[rows] for n, v in values.items()})


def test_a_worker_that_is_killed_is_one_line(capfd):
    with pytest.raises(StoreError, match="packing: a worker was killed") as caught:
        list(run_all(os._exit, [9, 9], workers=2))
    assert "goes on from the blocks that are finished" in str(caught.value)
    assert caught.value.exit_code == 1
