"""The compiled resize gives torch's bits on thousands of shapes, and leaves torch what it cannot do."""

import importlib
import sys

import numpy as np
import pytest
import torch

from mae_lib.images import fast_decode
from mae_lib.images.fast_decode import resize_fast
from mae_lib.kernels import native

if not native.available():
    pytest.fail("the test extra brings numba, and torch for Linux an OpenMP library: mend it")

from mae_lib.kernels import resize_native
from mae_lib.kernels.resize_native import LEAST, fits, plan_of, resize, weights_of

pytestmark = pytest.mark.skipif(
    not resize_native.supported(), reason="this processor has no AVX-512 VBMI and VNNI"
)
NOISE = np.random.default_rng(0).integers(0, 256, (4200, 700, 3), np.uint8)
# Sums far below 0 and above 255, which are cut off.
HARD = np.where(NOISE[:800] < 128, np.uint8(0), np.uint8(255))


def torchs(image: np.ndarray, size: int) -> np.ndarray:
    """Resize as the recorded road says: torch's uint8 bicubic, antialiased, channels last."""
    planes = torch.from_numpy(np.ascontiguousarray(image))[None].permute(0, 3, 1, 2)
    out = torch.nn.functional.interpolate(
        planes, (size, size), mode="bicubic", antialias=True, align_corners=False
    )
    return out[0].permute(1, 2, 0).numpy()


def ours(image: np.ndarray, size: int) -> np.ndarray:
    out = np.empty((size, size, 3), np.uint8)
    resize(image, size, out)
    return out


def shapes(number: int, most: int, seed: int):
    rng = np.random.default_rng(seed)
    for length, size in rng.integers(LEAST, most, (number, 2)).tolist():
        if length != size and length <= 12 * size and plan_of(length, size):
            yield length, size, rng


def test_two_thousand_random_shapes_have_torchs_bits():
    seen = 0
    for length, size, rng in shapes(2000, 300, 1):
        of = (NOISE, HARD)[seen % 2]
        top, left = rng.integers(0, 300, 2)
        image = of[top : top + length, left : left + length]
        assert np.array_equal(ours(image, size), torchs(image, size)), (length, size)
        seen += 1
    assert seen > 1800


def test_three_hundred_larger_shapes_have_torchs_bits():
    for length, size, _ in shapes(300, 700, 2):
        image = HARD[:length, :length]
        assert np.array_equal(ours(image, size), torchs(image, size)), (length, size)


@pytest.mark.parametrize("size", [32, 64, 224, 256])
def test_every_length_of_photographs_has_torchs_bits_at_the_sizes_of_stores(size):
    for length in (*range(LEAST, 300, 3), 333, 360, 375, 400, 480, 500, 512, 600):
        image = NOISE[:length, 7 : 7 + length]
        assert np.array_equal(resize_fast(image, size), torchs(image, size)), length


def test_a_very_large_square_has_torchs_bits():
    image = np.lib.stride_tricks.as_strided(
        NOISE, (2600, 2600, 3), (NOISE.strides[0] // 3, 3, 1), writeable=False
    )
    assert np.array_equal(ours(image, 64), torchs(image, 64))


@pytest.mark.parametrize("length", range(1, 30))
def test_few_pixels_are_torchs_whoever_resizes_them(length):
    image = np.ascontiguousarray(HARD[:length, :length])
    for size in (*range(1, 30), 100):
        assert np.array_equal(resize_fast(image, size), torchs(image, size)), (length, size)


def test_nothing_outside_the_result_is_written_and_nothing_outside_the_image_decides():
    for length, size in ((375, 256), (61, 23), (22, 47), (23, 22), (100, 301)):
        memory = np.full(size * size * 3 + 256, 77, np.uint8)
        out = memory[128:-128].reshape(size, size, 3)
        frame = NOISE[: length + 2, : length + 2].copy()
        resize(frame[1:-1, 1:-1], size, out)
        assert (memory[:128] == 77).all()
        assert (memory[-128:] == 77).all()
        first = out.copy()
        frame[[0, -1]] ^= 255
        frame[:, [0, -1]] ^= 255
        resize(frame[1:-1, 1:-1], size, out)
        assert np.array_equal(first, out)


def test_weights_are_pillows_filter_in_the_most_bits_that_int16_holds():
    for length, size in ((375, 256), (100, 256), (512, 64), (256, 255)):
        first, count, weights, precision = weights_of(length, size)
        assert 2**14 <= weights.max() < 2**15
        # Each weight is rounded by half a unit at most.
        assert np.abs(weights.sum(1, dtype=np.int64) - 2**precision).max() <= count.max() / 2
        assert (first + count <= length).all()
        centre = (first + (weights * np.arange(weights.shape[1])).sum(1) / weights.sum(1) + 0.5)[
            20:-20
        ]
        assert np.abs(centre * size / length - np.arange(size)[20:-20] - 0.5).max() < 0.02


def test_what_does_not_fit_is_left_to_torch(monkeypatch):
    image = NOISE[:100, :100]
    assert fits(image, 64)
    assert not fits(image, 100)
    assert not fits(image, LEAST - 1)
    assert not fits(NOISE[: LEAST - 1, : LEAST - 1], 64)
    assert not fits(NOISE[:100, :99], 64)
    assert not fits(NOISE[:100, :200:2], 64)
    assert not fits(NOISE[:100, :100, ::-1], 64)
    great = [n for n in range(23, 700) if n != 256 and plan_of(n, 256) is None]
    for length in great:
        assert not fits(NOISE[:length, :length], 256)
        assert np.array_equal(
            resize_fast(NOISE[:length, :length], 256), torchs(NOISE[:length, :length], 256)
        )
    assert len(great) < 20
    monkeypatch.setattr(resize_native, "supported", lambda: False)
    assert not fits(image, 64)


def test_a_torch_of_other_bits_stays(monkeypatch):
    """What is computed here is tried against torch first, once a length and size."""

    def other(self, image, size, *_, out):
        return out.fill_(3)

    resize_native._proved.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(torch.ops.aten._upsample_bicubic2d_aa, "out", other, raising=False)
        assert not fits(NOISE[:90, :90], 40)
    assert not fits(NOISE[:90, :90], 40)
    resize_native._proved.cache_clear()
    assert fits(NOISE[:90, :90], 40)


def test_without_numba_torch_resizes_to_the_same_bits(monkeypatch):
    image = NOISE[:200, :200]
    with_numba = resize_fast(image, 96)
    monkeypatch.setattr(native, "available", lambda: False)
    monkeypatch.delitem(sys.modules, "mae_lib.kernels.resize_native")
    monkeypatch.delattr("mae_lib.kernels.resize_native")
    fast_decode._compiled.cache_clear()
    try:
        with pytest.raises(ImportError, match="loops cannot be compiled here"):
            importlib.import_module("mae_lib.kernels.resize_native")
        assert fast_decode._compiled() is None
        assert np.array_equal(resize_fast(image, 96), with_numba)
    finally:
        fast_decode._compiled.cache_clear()
