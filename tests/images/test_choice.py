"""Which images enter a study is a function of names and seed: nested, in proportion, independent."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from publisher_layouts import imagenet, imagenet_tar, write_folder
from scipy import stats

from mae_lib.errors import StudyError
from mae_lib.images import choice
from mae_lib.images.choice import choose, keyed_order
from mae_lib.images.entries import list_entries, task_entries
from mae_lib.images.layouts.entry import Entry
from mae_lib.images.subsets import family_order, name_key, proportional_order, subset_order
from mae_lib.study.definition import Data, Source, Task


def entries(count: int, first: int = 0) -> list[Entry]:
    return [Entry(f"i{i:05d}.jpg", i % 7, "train", "f.tar", "slice") for i in range(first, count)]


@given(
    there=st.integers(1, 60), count=st.integers(0, 200), more=st.integers(0, 50), seed=st.integers(0, 9)
)  # fmt: skip
@settings(deadline=None, max_examples=150)
def test_a_smaller_choice_is_part_of_a_larger_one_and_repeats_are_even(there, count, more, seed):
    known = entries(there)
    small, large = (
        set(zip(*choose("s", known, n, seed), strict=True)) for n in (count, count + more)
    )
    assert len(small) == count
    assert small <= large
    times = np.bincount([i for i, _ in small], minlength=there)
    assert times.max() - times.min() <= 1
    assert all((i, r) in small for i, most in enumerate(times) for r in range(most))


def test_a_choice_depends_on_names_seed_and_source_and_on_nothing_else():
    known = entries(500)
    chosen = {known[i].name for i in choose("s", known, 100, 0)[0]}
    shuffled = [known[i] for i in np.random.default_rng(0).permutation(500)]
    assert {shuffled[i].name for i in choose("s", shuffled, 100, 0)[0]} == chosen
    # Binomial: 20 of 100 expected in common, five standard deviations are 20.
    for source, seed in (("s", 1), ("t", 0)):
        other = {known[i].name for i in choose(source, known, 100, seed)[0]}
        assert len(chosen & other) < 40


def test_a_choice_is_the_golden_one_on_every_machine():
    # Golden: the order of coreutils' sha256sum of "0:s/i00000.jpg" to "0:s/i00004.jpg".
    assert keyed_order("s", entries(5), 0).tolist() == [4, 3, 0, 2, 1]


def test_equal_hashes_are_told_apart_by_name(monkeypatch):
    monkeypatch.setattr(choice, "keyed", lambda texts, seed: np.zeros(len(list(texts)), np.int64))
    known = entries(5)[::-1]
    assert keyed_order("s", known, 0).tolist() == [4, 3, 2, 1, 0]


def test_the_same_images_are_chosen_from_a_folder_and_from_the_tar(tmp_path):
    write_folder(tmp_path / "a" / "x", imagenet())
    imagenet_tar(tmp_path / "b" / "ILSVRC2012_img_train.tar")
    chosen = []
    for folder in ("a", "b"):
        listed = list_entries(Source("imagenet", 1.0), tmp_path / folder)
        chosen.append([listed[i].name for i in choose("imagenet", listed, 4, 3)[0]])
    assert chosen[0] == chosen[1]


def test_seeds_give_independent_orders():
    known = entries(400)
    orders = [np.argsort(keyed_order("s", known, seed)) for seed in range(8)]
    correlations = [stats.spearmanr(a, b).statistic for a, b in itertools.combinations(orders, 2)]
    # 28 pairs, standard deviation 1 / sqrt(399) each.
    assert np.abs(correlations).max() < 4 / np.sqrt(399)
    # Labels are drawn as often as they are there: a choice is no sorted run of names.
    labels = np.bincount([known[i].label for i in choose("s", known, 210, 0)[0]], minlength=7)
    assert stats.chisquare(labels).pvalue > 1e-3


def test_nothing_cannot_be_chosen_from():
    assert choose("s", [], 0, 0)[0].size == 0
    for known, count in (([], 1), (entries(3), -1)):
        with pytest.raises(StudyError, match="cannot be chosen"):
            choose("s", known, count, 0)


@st.composite
def families(draw):
    counts = draw(st.lists(st.integers(1, 80), min_size=1, max_size=4))
    sources = np.repeat(np.arange(len(counts)), counts)
    keys = [name_key(f"s{s}", f"{i}.jpg", i % 3) for i, s in enumerate(sources)]
    order = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).permutation(len(sources))
    return sources, keys, order


def furthest(sources: np.ndarray, order: np.ndarray) -> float:
    """How far any prefix is from any source's exact part, in images."""
    counts = np.bincount(sources)
    held = np.eye(len(counts), dtype=int)[sources[order]].cumsum(axis=0)
    n = np.arange(1, len(sources) + 1)[:, None]
    return float(np.abs(held - n * counts / len(sources)).max())


@given(families(), st.integers(0, 5))
@settings(deadline=None, max_examples=150)
def test_every_prefix_is_in_proportion_within_one_and_knows_no_file_order(family, seed):
    sources, keys, shuffle = family
    order = proportional_order(sources, keys, seed)
    assert sorted(order) == list(range(len(sources)))
    several = sources.max() + 1
    # Tijdeman's bound
    assert furthest(sources, order) <= (1 - 1 / (2 * several - 2) if several > 1 else 0) + 1e-9
    for one in (proportional_order, family_order):
        again = one(sources[shuffle], [keys[i] for i in shuffle], seed)
        assert [keys[shuffle[i]] for i in again] == [keys[i] for i in one(sources, keys, seed)]


def test_the_papers_mixture_is_in_proportion_by_both_orders():
    sources = np.repeat(np.arange(4), [6000, 3780, 600, 1620])
    keys = [str(i) for i in range(len(sources))]
    assert furthest(sources, subset_order("sources", sources, keys, 0)) < 1 - 1 / 6 + 1e-9
    old = subset_order("tars", sources, keys, 0)
    assert furthest(sources, old) == pytest.approx(0.78)
    assert np.array_equal(old, family_order(sources, keys, 0))


def test_the_older_order_is_not_within_one_where_many_sources_are_small():
    # Why kind "sources" has another: five images and three single ones.
    sources = np.repeat(np.arange(4), [5, 1, 1, 1])
    keys = [str(i) for i in range(8)]
    assert furthest(sources, family_order(sources, keys, 0)) == 1.125
    assert furthest(sources, proportional_order(sources, keys, 0)) <= 1 - 1 / 6


def test_a_tasks_parts_come_from_its_splits_and_are_bounded_by_name(tmp_path):
    write_folder(tmp_path / "x", imagenet())
    task = Task("probe", source="imagenet", test_split="val", train_images=5)
    data = Data("sources", 9, 8, 0, (Source("imagenet", 1.0),), (task,))
    train, test = task_entries(data, task, tmp_path)
    assert len(train) == 5
    assert [e.name for e in train] == sorted(e.name for e in train)
    assert [(e.name, e.label) for e in test] == [("ILSVRC2012_val_00000001.JPEG", 1)]
    own = Task("probe", layout="imagenet", path="x", test_split="val")
    assert len(task_entries(data, own, tmp_path)[0]) == 9
    imagenet_tar(tmp_path / "b" / "ILSVRC2012_img_train.tar")
    with pytest.raises(StudyError, match="no such source, got 'imagent'"):
        task_entries(data, Task("probe", source="imagent"), tmp_path)
