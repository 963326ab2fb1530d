"""Copies are found, all of them, and what only looks alike is not called one."""

import io
import time

import numpy as np
import pandas as pd
import pytest
from photograph_folders import encoded, picture, two_sources, write_two
from PIL import Image

from mae_lib.images.duplicates import PHOTOGRAPHS, pairs_across, pairs_within, summary
from mae_lib.images.hygiene import duplicates, prints, shared_with_training
from mae_lib.images.perceptual import close_pairs, perceptual_hashes
from mae_lib.images.store import build_store
from mae_lib.images.structure import edge_correlation, edges
from mae_lib.records.sidecar import seal_path


def scene(number: int) -> Image.Image:
    """A picture with edges: blocks and a disc of its own."""
    rng = np.random.default_rng(number)
    blocks = Image.fromarray(rng.integers(0, 256, (7, 7, 3), np.uint8)).resize((64, 64), 0)
    return Image.blend(blocks, picture(number, (64, 64)), 0.4)


def altered(image: Image.Image, how: str) -> Image.Image:
    if how == "recompressed":
        return Image.open(io.BytesIO(encoded(image.convert("RGB")))).convert("RGB")
    if how == "rescaled":
        return image.resize((41, 41), 3).resize((64, 64), 3)
    if how == "shifted":
        return image.crop((3, 2, 64, 63)).resize((64, 64), 3)
    return image.point(lambda level: int(level * 0.85 + 12))


def random_hashes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return tuple(rng.integers(0, 2**64, count, np.uint64) for _ in range(2))


def test_close_pairs_are_those_of_a_plain_loop():
    one, two = random_hashes(300, 0), random_hashes(200, 1)
    for i in range(0, 60, 3):
        two[0][i] = one[0][i] ^ np.uint64(2**i | 2 ** (i + 1))
        two[1][i] = one[1][i] ^ np.uint64(1)
    for other in (two, None):
        found = close_pairs(one, other, phash_bits=22, dhash_bits=24)
        right = other or one
        plain = [
            (i, j, bits, more)
            for i in range(300)
            for j in range(i + 1 if other is None else 0, len(right[0]))
            if (bits := int(one[0][i] ^ right[0][j]).bit_count()) <= 22
            and (more := int(one[1][i] ^ right[1][j]).bit_count()) <= 24
        ]
        assert sorted(map(tuple, found.tolist())) == plain
        assert len(plain) > 5


def test_twelve_thousand_against_ten_thousand_take_seconds():
    started = time.process_time()
    close_pairs(random_hashes(12_000, 0), random_hashes(10_000, 1), phash_bits=14, dhash_bits=20)
    assert time.process_time() - started < 6


def test_hashes_are_those_of_the_kept_package():
    import imagehash

    image = scene(3)
    (phash,), (dhash,) = perceptual_hashes(np.asarray(image)[None])
    assert f"{phash:016x}" == str(imagehash.phash(image))
    assert f"{dhash:016x}" == str(imagehash.dhash(image))


@pytest.mark.parametrize("how", ["recompressed", "rescaled", "shifted", "darker"])
def test_an_altered_copy_correlates_and_another_picture_does_not(how):
    images = np.stack([np.asarray(scene(number)) for number in range(12)])
    copies = np.stack([np.asarray(altered(scene(number), how)) for number in range(12)])
    one, two = edges(images), edges(copies)
    same = edge_correlation(one, two, np.array([(i, i) for i in range(12)]))
    other = edge_correlation(one, two, np.array([(i, (i + 1) % 12) for i in range(12)]))
    assert same.min() > PHOTOGRAPHS.correlation
    assert other.max() < PHOTOGRAPHS.correlation


def test_edge_correlation_is_the_best_over_shifts_by_hand():
    images = np.stack([np.asarray(scene(number)) for number in (1, 2)])
    grey = [np.asarray(Image.fromarray(i).convert("L").resize((32, 32), 3), float) for i in images]
    fields = [np.diff(g, axis=1)[:-1] + 1j * np.diff(g, axis=0)[:, :-1] for g in grey]
    best = -1.0
    for y in range(-3, 4):
        for x in range(-3, 4):
            a = fields[0][max(0, y) : 31 + min(0, y), max(0, x) : 31 + min(0, x)]
            b = fields[1][max(0, -y) : 31 + min(0, -y), max(0, -x) : 31 + min(0, -x)]
            value = np.vdot(b, a).real / (np.linalg.norm(a) * np.linalg.norm(b))
            best = max(best, value)
    found = edge_correlation(edges(images[:1]), edges(images[1:]), np.array([[0, 0]]))
    assert found[0] == pytest.approx(best, abs=1e-5)


def test_a_store_lists_its_copies_by_kind_and_where(tmp_path):
    write_two(tmp_path, train=12, test=6)
    train = sorted((tmp_path / "one" / "train").rglob("*.jpg"))
    test = sorted((tmp_path / "one" / "test").rglob("*.jpg"))
    for number, path in enumerate((*train, *test)):
        path.write_bytes(encoded(scene(number)))
    train[1].write_bytes(train[0].read_bytes())
    train[2].write_bytes(encoded(scene(0), "PNG"))
    train[3].write_bytes(encoded(Image.open(train[2]), "PNG", compress_level=1))
    train[4].write_bytes(test[0].read_bytes())
    train[5].write_bytes(encoded(altered(scene(13), "rescaled")))
    data = two_sources(24, size=32, twins="keep")
    store = build_store(data, tmp_path / "store", data_root=tmp_path)
    pairs = duplicates(store, workers=1)
    by_name = {(p.name_1, p.name_2): p.kind for p in pairs.itertuples()}
    name = [str(path.relative_to(tmp_path / "one")) for path in (*train, *test)]
    assert by_name[name[0], name[1]] == "bytes"
    assert by_name[name[2], name[3]] == "pixels"
    assert by_name[name[4], name[12]] == "bytes"
    assert by_name[name[5], name[13]] == "near"
    # the same picture as JPEG and as PNG
    assert by_name[name[0], name[2]] == "near"
    counted = summary(pairs).set_index("against")
    assert counted.loc["tasks/one-test", ["bytes", "pixels", "near"]].tolist() == [1, 0, 1]
    assert shared_with_training(store) == {"one": 12}
    path = store.folder / "hygiene" / "duplicates.csv"
    assert seal_path(path).exists()
    pd.testing.assert_frame_equal(duplicates(store), pairs)


def test_within_and_across_agree_on_what_is_near(tmp_path):
    write_two(tmp_path, train=10, test=4)
    data = two_sources(16, size=32, twins="keep")
    store = build_store(data, tmp_path / "store", data_root=tmp_path)
    one = prints(store, "images.npy", workers=1)
    mirrored = pairs_across(one, one, PHOTOGRAPHS)
    alone = pairs_within(one, PHOTOGRAPHS)
    both = mirrored[mirrored["row_1"] < mirrored["row_2"]]
    assert sorted(zip(both["row_1"], both["row_2"], strict=True)) == sorted(
        zip(alone["row_1"], alone["row_2"], strict=True)
    )
