import numpy as np
import pytest

from mae_lib.errors import RecordError
from mae_lib.evaluation.saved_features import (
    Archives,
    from_bytes,
    read_archive,
    reduce_features,
    to_bytes,
)


def features(n=200, dim=24, rank=6, seed=0):
    rng = np.random.default_rng(seed)
    shape = rng.standard_normal((rank, dim))
    return (rng.standard_normal((n, rank)) @ shape + 5).astype(np.float32)


def test_components_give_the_features_back_where_they_span_them():
    first, second = features(seed=1), features(seed=1)[:50]
    saved = reduce_features("c", "d", {"a": first, "b": second}, components=6)
    assert saved.explained == pytest.approx(1.0, abs=1e-9)
    for name, x in (("a", first), ("b", second)):
        back = saved.mean + saved.sets[name].astype(np.float64) @ saved.basis.T
        # Half precision: 11 bits of the largest component.
        assert np.abs(back - x).max() < 2**-10 * np.abs(saved.sets[name]).max() * 6**0.5
        assert saved.sets[name].dtype == np.float16


def test_the_share_held_is_that_of_the_leading_variances():
    x = np.random.default_rng(3).standard_normal((5000, 4)) * np.array([4.0, 2.0, 1.0, 0.5])
    saved = reduce_features("c", "d", {"a": x}, components=2)
    values = np.sort(np.linalg.eigvalsh(np.cov(x, rowvar=False)))[::-1]
    assert saved.explained == pytest.approx(values[:2].sum() / values.sum(), rel=1e-9)
    np.testing.assert_allclose(saved.basis.T @ saved.basis, np.eye(2), atol=1e-6)


def test_bytes_round_trip_and_hold_the_largest_half():
    x = features() * 1e5
    saved = reduce_features("cell", "0123", {"a": x}, components=4)
    again = from_bytes(to_bytes(saved))
    assert (again.cell, again.digest, again.explained) == ("cell", "0123", saved.explained)
    assert np.isfinite(again.sets["a"]).all()
    np.testing.assert_array_equal(again.sets["a"], saved.sets["a"])


def test_archives_are_bounded_go_on_where_they_were_and_say_when_full(tmp_path):
    saved = {n: to_bytes(reduce_features(n, "d", {"a": features(rank=24, seed=i)}))
             for i, n in enumerate("uvwxyz")}  # fmt: skip
    limit = int(2.3 * max(map(len, saved.values())))
    archives = Archives.open(tmp_path, "features", limit, 2)
    names = [archives.add(f"{n}.safetensors", saved[n]) for n in "uvw"]
    archives = Archives.open(tmp_path, "features", limit, 2)
    names += [archives.add(f"{n}.safetensors", saved[n]) for n in "xyz"]
    assert names[0] == "features-1.zip"
    assert "features-2.zip" in names
    assert names[-1] is None
    assert all(p.stat().st_size <= limit for p in tmp_path.iterdir())
    found = read_archive(tmp_path / "features-1.zip") | read_archive(tmp_path / "features-2.zip")
    assert list(found) == [n for n, name in zip("uvwxyz", names, strict=True) if name]
    path = tmp_path / "features-1.zip"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(RecordError, match="cut or changed"):
        read_archive(path)
