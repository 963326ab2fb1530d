"""The fast road gives Pillow's pixels within a tenth of a grey level, or what is said where not."""

import tarfile

import numpy as np
import pytest
from photograph_folders import encoded, odd_images, picture, two_sources, write_two
from PIL import Image

from mae_lib.errors import StudyError
from mae_lib.images import fast_decode
from mae_lib.images.decode import decode_square
from mae_lib.images.fast_decode import decode_square_fast, resize_fast
from mae_lib.images.reader import require_decoder
from mae_lib.images.store import build_store


def textured(number: int, size: tuple[int, int]) -> Image.Image:
    """A picture as rough as a photograph: smooth ground, fine grain."""
    rng = np.random.default_rng(number)
    ground = np.asarray(picture(number, size), float)
    grain = np.asarray(
        Image.fromarray(rng.integers(0, 256, (size[1] // 2, size[0] // 2), np.uint8)).resize(size),
        float,
    )
    return Image.fromarray(np.clip(ground + (grain[..., None] - 128) / 6, 0, 255).astype(np.uint8))


def error(content: bytes, size: int) -> float:
    plain, native = decode_square(content, size, where="x")
    fast, fast_native = decode_square_fast(content, size, where="x")
    assert native == fast_native
    return float(np.abs(plain.astype(int) - fast).mean())


@pytest.mark.parametrize("size", [(500, 375), (400, 400), (178, 218), (64, 64)])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_the_error_on_generated_pictures_is_under_a_tenth_of_a_level(size, subsampling):
    content = encoded(textured(size[0], size), subsampling=subsampling)
    assert error(content, 64) < 0.2
    for side in (128, 224, 256):
        assert error(content, side) < 0.1


@pytest.mark.parametrize("size", [(333, 500), (375, 500)])
def test_upright_pictures_differ_by_the_order_of_the_passes_at_most(size):
    content = encoded(textured(size[0], size))
    for side in (64, 224, 256):
        assert error(content, side) < 0.3


def test_the_error_on_photographs_is_under_a_tenth_of_a_level(photographs):
    errors = []
    with tarfile.open(photographs / "ade20k.tar") as archive:
        for member in archive.getmembers()[:120:2]:
            if not member.name.endswith(".jpg"):
                continue
            small = Image.open(archive.extractfile(member))
            large = encoded(small.convert("RGB").resize((500, 375), Image.Resampling.BICUBIC))
            errors.append(error(large, 256))
    assert len(errors) > 20
    assert max(errors) < 0.1


def test_an_image_that_needs_no_resize_is_its_own_memory():
    content = encoded(picture(1, (32, 32)))
    first, _ = decode_square_fast(content, 32, where="x")
    kept = first.copy()
    decode_square_fast(encoded(picture(2, (32, 32))), 32, where="x")
    assert np.array_equal(first, kept)
    assert np.array_equal(first, decode_square(content, 32, where="x")[0])
    assert resize_fast(kept, 32) is not kept


def test_the_roads_agree_on_what_is_odd():
    for name, content in odd_images().items():
        results = []
        for decode in (decode_square, decode_square_fast):
            try:
                results.append(decode(content, 32, where=name)[0].astype(int))
            except Exception as refused:
                results.append(type(refused))
        if isinstance(results[0], type):
            assert results[0] is results[1], name
        else:
            assert np.abs(results[0] - results[1]).mean() < 0.5, name


def test_a_store_says_which_road_made_it(tmp_path):
    write_two(tmp_path, train=6, test=4)
    roads = {}
    for decoder in ("pillow", "fast"):
        data = two_sources(8, size=24, twins="keep", decoder=decoder)
        roads[decoder] = build_store(data, tmp_path / decoder, data_root=tmp_path)
    assert "simplejpeg" in roads["fast"].manifest["transform"]
    assert {"simplejpeg", "torch"} <= set(roads["fast"].manifest["versions"])
    assert "torch" not in roads["pillow"].manifest["versions"]
    plain, fast = (roads[name].images.astype(int) for name in ("pillow", "fast"))
    assert np.abs(plain - fast).mean() < 0.1
    assert list(roads["fast"].index["name"]) == list(roads["pillow"].index["name"])


@pytest.mark.parametrize("size", [(500, 375), (178, 218), (64, 64)])
def test_compiled_loops_change_no_bit_of_the_road(size, monkeypatch):
    content = encoded(textured(size[0], size))
    sides = (24, 64, 224, 256)
    here = [decode_square_fast(content, side, where="x")[0] for side in sides]
    with monkeypatch.context() as patch:
        patch.setattr(fast_decode, "_compiled", lambda: None)
        torchs = [decode_square_fast(content, side, where="x")[0] for side in sides]
    assert all(map(np.array_equal, here, torchs))


def test_a_store_is_the_same_with_and_without_compiled_loops(tmp_path, monkeypatch):
    write_two(tmp_path, train=12, test=4)
    data = two_sources(16, size=24, twins="keep", decoder="fast")
    here = build_store(data, tmp_path / "here", data_root=tmp_path)
    monkeypatch.setattr(fast_decode, "_compiled", lambda: None)
    torchs = build_store(data, tmp_path / "torchs", data_root=tmp_path)
    assert here.manifest == torchs.manifest


def test_without_the_wheel_the_fast_road_is_one_line(monkeypatch):
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "simplejpeg" else object()
    )
    with pytest.raises(StudyError, match=r"needs simplejpeg, which is not installed; pip install"):
        require_decoder("fast")
