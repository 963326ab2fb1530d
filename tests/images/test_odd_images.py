"""Odd images are decoded rightly or set aside with their name and why; nothing else happens."""

import dataclasses
import zipfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photograph_folders import encoded, odd_images, picture, two_sources, write_two
from PIL import Image

from mae_lib.errors import StoreError, StudyError
from mae_lib.images.decode import decode_square
from mae_lib.images.fast_decode import decode_square_fast
from mae_lib.images.reader import DECODERS
from mae_lib.images.store import build_store
from mae_lib.images.verify import verify_store

ODD = odd_images()
# What each is refused for; all others are decoded.
REFUSED = {
    "truncated.jpg": "truncated",
    "truncated.png": "no image can be read",
    "header-only.jpg": "no image can be read",
    "claims-50000-pixels.png": "refused",
    "claims-50000-pixels.jpg": "refused",
    "floating-point.tiff.png": "floating-point",
    "text.jpg": "bytes that begin b'This is no p'",
    "page.jpg": "bytes that begin b'<!DOCTYPE ht'",
    "postscript.jpg": "bytes that begin b'%!PS-Adobe-3'",
    "empty.jpg": "it is empty",
}


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", ODD)
def test_an_odd_image_is_decoded_or_refused_in_one_line(name, decoder):
    decode = DECODERS[decoder].decode
    if name in REFUSED:
        with pytest.raises(StoreError, match=REFUSED[name]) as caught:
            decode(ODD[name], 32, where=f"set: {name}")
        assert str(caught.value).startswith(f"set: {name}: ")
        assert "\n" not in str(caught.value)
        return
    pixels, native = decode(ODD[name], 32, where=name)
    assert pixels.shape == (32, 32, 3)
    expected = {"one-pixel.png": (1, 1), "wide.jpg": (400, 3)}.get(name, (60, 40))
    assert native == expected


@pytest.mark.parametrize("decode", [decode_square, decode_square_fast])
def test_odd_images_show_what_they_should(decode):
    def pixels(name):
        return decode(ODD[name], 32, where=name)[0].astype(int)

    plain = pixels("ordinary.jpg")
    for name, most in (
        ("cmyk.jpg", 4), ("transparent.png", 4), ("png-named.jpg", 4), ("progressive.jpg", 1),
        ("odd-exif.jpg", 0.1), ("palette.png", 12),
    ):  # fmt: skip
        assert np.abs(pixels(name) - plain).mean() < most, name
    grey = pixels("greyscale.jpg")
    assert (grey == grey[..., :1]).all()
    assert np.abs(grey[..., 0] - plain @ [0.299, 0.587, 0.114]).mean() < 2
    # 6 says: the camera's right side is the picture's top
    assert np.abs(pixels("rotated.jpg") - np.rot90(plain, -1)).mean() < 2
    assert pixels("sixteen-bit.png").max() > 230
    first = decode(encoded(picture(0, (60, 40)), "PNG"), 32, where="first")[0].astype(int)
    assert np.abs(pixels("animated.png") - first).mean() < 1
    assert (pixels("one-pixel.png") == pixels("one-pixel.png")[0, 0]).all()


@given(data=st.data(), name=st.sampled_from(["ordinary.jpg", "palette.png", "animated.png"]))
@settings(deadline=None, max_examples=60)
def test_bytes_changed_anywhere_give_pixels_or_one_line(data, name):
    content = bytearray(ODD[name])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    for decode in (decode_square, decode_square_fast):
        try:
            pixels, _ = decode(bytes(content), 16, where="x")
        except StoreError as error:
            line = str(error)
        else:
            line = f"x: {pixels.shape}"
            assert pixels.shape == (16, 16, 3)
        assert line.startswith("x: ")


def test_bad_images_are_set_aside_named_and_replaced_by_the_next_of_their_source(tmp_path):
    write_two(tmp_path)
    bad = sorted((tmp_path / "two" / "train").rglob("*.jpg"))[:3]
    for path, content in zip(bad, (b"", b"text", ODD["truncated.jpg"]), strict=True):
        path.write_bytes(content)
    (tmp_path / "one" / "test" / "c0" / "0002.jpg").write_bytes(b"no picture")
    store = build_store(two_sources(54), tmp_path / "store", data_root=tmp_path)
    assert store.manifest["counts"] == {"one": 27, "two": 27}
    assert store.images.any((1, 2, 3)).all()
    aside = pd.read_csv(store.folder / "set_aside.csv")
    damaged = aside[aside["kind"] == "damaged"]
    names = {str(path.relative_to(tmp_path / "two")) for path in bad}
    assert set(damaged["name"]) <= names | {"test/c0/0002.jpg"}
    assert "test/c0/0002.jpg" in set(damaged["name"])
    assert len(damaged) >= 3
    of_two = set(store.index.query("source == 'two'")["name"])
    assert not of_two & set(damaged[damaged["source"] == "two"]["name"])
    assert len(set(zip(store.index["source"], store.index["name"], strict=True))) == 54
    assert len(store.task("one").test_labels) == len(store.task("one").test_images) == 7
    assert store.manifest["set_aside"]["damaged"] == len(damaged)
    assert verify_store(store.folder) == []


def test_too_many_bad_images_fail_the_build_and_a_source_used_up_says_so(tmp_path):
    write_two(tmp_path)
    for path in sorted((tmp_path / "two" / "train").rglob("*.jpg"))[:6]:
        path.write_bytes(b"text")
    with pytest.raises(StoreError, match=r"set_aside_limit allows a share of 0\.05") as caught:
        build_store(two_sources(40, set_aside_limit=0.05), tmp_path / "store", data_root=tmp_path)
    assert "no image can be read from it" in str(caught.value)
    with pytest.raises(StoreError, match="no image can be read from it") as caught:
        build_store(two_sources(40, set_aside_limit=0.0), tmp_path / "store", data_root=tmp_path)
    with pytest.raises(StudyError, match=r"data\.sources\.two: 6 images were set aside and none"):
        build_store(two_sources(60), tmp_path / "store", data_root=tmp_path)
    rescaled = two_sources(60, shortfall="rescale")
    store = build_store(rescaled, tmp_path / "rescaled", data_root=tmp_path)
    assert store.manifest["counts"] == {"one": 24, "two": 24}
    assert store.manifest["mixture"]["asked"] == 60
    repeated = two_sources(60, shortfall="repeat")
    store = build_store(repeated, tmp_path / "repeated", data_root=tmp_path)
    assert store.manifest["mixture"]["repeats"] == {"two": 6}
    assert store.index["name"].str.contains("#1").sum() == 6


def test_an_image_that_cannot_be_had_now_ends_the_build_and_is_not_set_aside(tmp_path):
    write_two(tmp_path)
    missing = sorted((tmp_path / "two" / "train").rglob("*.jpg"))[3]
    content = missing.read_bytes()
    missing.unlink()
    missing.symlink_to("nowhere")
    with pytest.raises(StoreError, match="or a link to nothing; put it back") as caught:
        build_store(two_sources(60), tmp_path / "store", data_root=tmp_path)
    assert caught.value.exit_code == 2
    missing.unlink()
    missing.write_bytes(content)
    store = build_store(two_sources(60), tmp_path / "store", data_root=tmp_path)
    assert "set_aside" not in store.manifest


def test_a_manifest_does_not_depend_on_where_the_sets_lie(tmp_path):
    seals = set()
    for place in ("here", "and there"):
        root = tmp_path / place
        write_two(root)
        with zipfile.ZipFile(root / "two.zip", "w") as archive:
            for path in sorted((root / "two").rglob("*.jpg")):
                archive.write(path, path.relative_to(root))
        raw = bytearray((root / "two.zip").read_bytes())
        raw[200] ^= 1
        (root / "two.zip").write_bytes(raw)
        data = two_sources(40)
        zipped = dataclasses.replace(data.sources[1], path="two.zip")
        data = dataclasses.replace(
            data, total=60, shortfall="rescale", sources=(data.sources[0], zipped)
        )
        store = build_store(data, root / "store", data_root=root)
        assert "two.zip: train/c0/0000.jpg: damaged" in (store.folder / "set_aside.csv").read_text()
        seals.add((store.folder / "manifest.json").read_bytes())
    assert len(seals) == 1


def test_twins_of_evaluation_leave_pretraining_by_default(tmp_path):
    write_two(tmp_path)
    tests = sorted((tmp_path / "one" / "test").rglob("*.jpg"))
    trains = sorted((tmp_path / "two" / "train").rglob("*.jpg"))
    trains[0].write_bytes(tests[0].read_bytes())
    again = Image.open(tests[1]).resize((52, 41), Image.Resampling.BICUBIC)
    trains[1].write_bytes(encoded(again))
    dropped = build_store(two_sources(56), tmp_path / "dropped", data_root=tmp_path)
    names = {str(path.relative_to(tmp_path / "two")) for path in trains[:2]}
    assert not names & set(dropped.index.query("source == 'two'")["name"])
    aside = pd.read_csv(dropped.folder / "set_aside.csv").set_index("name")
    assert set(aside["kind"]) == {"twin"}
    reasons = " ".join(aside["reason"])
    assert "the same bytes" in reasons
    assert "pHash" in reasons
    kept = build_store(two_sources(60, twins="keep"), tmp_path / "kept", data_root=tmp_path)
    assert names <= set(kept.index.query("source == 'two'")["name"])
