import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from mae_lib.errors import MaeError, StoreError, StudyError
from mae_lib.images import travel
from mae_lib.images.store import build_store
from mae_lib.images.travel import pack_travel, read_travel, require_pixels, unpack_travel
from mae_lib.study.definition import Data, Source, Task
from mae_lib.study.pins import pinned


def write_tar(path, count, seed):
    rng = np.random.default_rng(seed)
    with tarfile.open(path, "w") as archive:
        for number in range(count):
            pixels = rng.integers(0, 255, (20, 24, 3), np.uint8)
            image, kind = io.BytesIO(), "PNG" if number % 2 else "JPEG"
            Image.fromarray(pixels).save(image, kind)
            about = json.dumps({"label": number % 3, "native": [24, 20]}).encode()
            for suffix, content in ((kind.lower()[:4], image.getvalue()), ("json", about)):
                member = tarfile.TarInfo(f"i{number:03d}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Tars, their study's data and its store, as on the machine that packs."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name, count, seed in (("a", 12, 0), ("b", 8, 1), ("test", 6, 2), ("cue", 5, 3)):
        write_tar(folder / f"{name}.tar", count, seed)
    monkeypatch.setenv("MAE_DATA", str(folder))
    data = pinned(
        Data(
            kind="tars", total=16, size=16, seed=0,
            sources=(Source("a", 0.6, "a.tar"), Source("b", 0.4, "b.tar")),
            tasks=(Task("t", "a.tar", "test.tar"),),
        )
    )  # fmt: skip
    return data, folder, build_store(data, tmp_path / "store", data_root=folder)


def test_what_arrives_is_the_same_tars_and_the_same_store(here, tmp_path):
    data, folder, store = here
    packed = pack_travel(data, store, folder, tmp_path / "x.images", also=["cue.tar"])
    assert [part.name for part in packed.extras] == ["cue.tar"]
    there = unpack_travel(read_travel(tmp_path / "x.images"), tmp_path / "there")
    for path in folder.iterdir():
        assert (there / path.name).read_bytes() == path.read_bytes()
    again = build_store(data, tmp_path / "store2", data_root=there)
    np.testing.assert_array_equal(again.images, store.images)
    require_pixels(again, packed)
    before = {p.name: p.stat().st_mtime_ns for p in there.iterdir()}
    unpack_travel(packed, there)
    assert before == {p.name: p.stat().st_mtime_ns for p in there.iterdir()}


def test_other_pixels_are_found_out_before_any_training(here, tmp_path):
    data, folder, store = here
    packed = pack_travel(data, store, folder, tmp_path / "x.images")
    other = store.index.assign(sha256="0" * 64)
    changed = type(store)(store.folder, store.manifest, store.images, other)
    with pytest.raises(StoreError, match=r"pixels: other than where x\.images was packed"):
        require_pixels(changed, packed)


def test_a_damaged_file_is_refused_in_one_line(here, tmp_path):
    data, folder, store = here
    path = tmp_path / "x.images"
    pack_travel(data, store, folder, path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(whole), 12):
        flipped = bytearray(whole)
        flipped[place] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(MaeError, match=r"copy it again|name one") as found:
            unpack_travel(read_travel(path), tmp_path / f"t{place}")
        assert "\n" not in str(found.value)
    path.write_bytes(whole[: len(whole) - 10])
    with pytest.raises(StoreError, match="cut or changed"):
        unpack_travel(read_travel(path), tmp_path / "cut")
    path.write_bytes(b"PK\x03\x04" + whole)
    with pytest.raises(StoreError, match="is no file of `mae data travel`"):
        read_travel(path)
    with pytest.raises(StudyError, match="cannot be read"):
        read_travel(tmp_path / "none")


def test_more_than_may_travel_is_refused_and_nothing_is_written(here, tmp_path, monkeypatch):
    data, folder, store = here
    monkeypatch.setattr(travel, "LIMIT_BYTES", 1000)
    with pytest.raises(StudyError, match="more than the 0 MiB that may travel; the largest part"):
        pack_travel(data, store, folder, tmp_path / "x.images")
    assert not (tmp_path / "x.images").exists()
