"""Any part of a gzip file is read as if it were unpacked, in any order, from any thread."""

import gzip
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mae_lib.images.layouts import gzip_slices
from mae_lib.images.layouts.gzip_slices import GzipSlices

# Runs that pack well beside noise that does not, so that packed and unpacked places drift apart.
_NOISE = np.random.default_rng(0).integers(0, 256, 1_500_000, np.uint8).tobytes()
CONTENT = _NOISE[:700_000] + b"same " * 100_000 + _NOISE[700_000:]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("gzip") / "a.gz"
    path.write_bytes(gzip.compress(CONTENT, compresslevel=1))
    return path


@pytest.fixture(autouse=True)
def close_marks(monkeypatch):
    monkeypatch.setattr(gzip_slices, "_SPACING", 100_000)


@given(
    reads=st.lists(
        st.tuples(st.integers(0, len(CONTENT) + 10), st.sampled_from([0, 1, 512, 3073, 200_000])),
        min_size=1,
        max_size=6,
    )
)
@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_reads_in_any_order_are_slices_of_the_content(path, reads):
    slices = GzipSlices(path)
    for offset, size in reads:
        assert slices.read(offset, size) == CONTENT[offset : offset + size]


def test_reads_in_order_unpack_the_file_once(path, monkeypatch):
    slices = GzipSlices(path)
    unpacked = []
    advance = GzipSlices._advance
    monkeypatch.setattr(
        GzipSlices,
        "_advance",
        lambda self, at, file: unpacked.append(at.end) or advance(self, at, file),
    )
    for offset in range(0, len(CONTENT), 3073):
        assert slices.read(offset, 3073) == CONTENT[offset : offset + 3073]
    assert len(unpacked) == len(set(unpacked))
    unpacked.clear()
    # A read far back starts from the copy before it, not from the beginning.
    assert slices.read(1_000_000, 10) == CONTENT[1_000_000:1_000_010]
    assert 0 < len(unpacked) <= 3
    assert min(unpacked) > 800_000


def test_threads_share_one_file(path):
    slices = GzipSlices(path)
    offsets = np.random.default_rng(1).integers(0, len(CONTENT) - 500, 200).tolist()
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda offset: slices.read(offset, 500), offsets))
    assert read == [CONTENT[offset : offset + 500] for offset in offsets]
