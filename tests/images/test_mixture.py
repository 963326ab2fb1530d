"""Mixtures sum exactly, repeat or shrink only when asked, and say what is short."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mae_lib.errors import StudyError
from mae_lib.images.mixture import (
    SHORTFALLS,
    allot,
    feasibility_frame,
    largest_total,
    require_feasible,
    settle,
)
from mae_lib.images.public_sizes import PUBLIC, feasible_totals, later_totals
from mae_lib.images.publishers import PUBLISHERS
from mae_lib.study.definition import Source
from mae_lib.study.load import load_study
from mae_lib.study.schema import DataFields

PAPER = load_study("paper").data


@st.composite
def mixtures(draw):
    """Sources with shares in thousandths that sum to 1, images there, and a total asked for."""
    parts = draw(st.lists(st.integers(1, 400), min_size=1, max_size=5))
    whole = sum(parts)
    # The last share takes what rounding leaves, as a study's author would write it.
    shares = [round(part / whole, 3) or 0.001 for part in parts[:-1]]
    last = round(1 - sum(shares), 3)
    if last <= 0:
        shares, last = [], 1.0
    sources = tuple(Source(f"s{i}", share) for i, share in enumerate([*shares, last]))
    available = {s.name: draw(st.integers(1, 50_000)) for s in sources}
    return sources, available, draw(st.integers(1, 100_000))


@given(mixtures())
@settings(deadline=None, max_examples=150)
def test_the_largest_total_is_feasible_and_exact_proportions_allow_no_more(mixture):
    sources, available, _ = mixture
    most = largest_total(sources, available)
    counts = allot(most, [s.share for s in sources])
    assert all(c <= available[s.name] for c, s in zip(counts, sources, strict=True))
    shares = [Fraction(str(s.share)) for s in sources]
    whole = sum(shares)
    assert any(
        (most + 1) * share / whole > available[s.name]
        for share, s in zip(shares, sources, strict=True)
    )


@given(mixtures(), st.sampled_from(SHORTFALLS))
@settings(deadline=None, max_examples=300)
def test_a_mixture_keeps_its_word_about_repeats_and_totals(mixture, shortfall):
    sources, available, total = mixture
    asked = dict(zip(available, map(int, allot(total, [s.share for s in sources])), strict=True))
    fits = all(asked[n] <= available[n] for n in asked)
    try:
        found = settle(total, sources, available, shortfall)
    except StudyError:
        assert not fits
        # Rescaling can end at nothing when a source has less than one image of each total.
        assert shortfall == "error" or largest_total(sources, available) == 0
        return
    assert {p.source: p.asked for p in found.parts} == asked
    assert found.total == sum(found.counts.values())
    assert found.repeats == sum(max(0, c - available[n]) for n, c in found.counts.items())
    if fits:
        assert found.counts == asked
    elif shortfall == "rescale":
        assert found.repeats == 0
        assert found.total == largest_total(sources, available) < total
    else:
        assert shortfall == "repeat"
        assert found.counts == asked
        assert found.repeats > 0
        assert f"{found.repeats:,} of them repeats" in found.summary()


def test_an_infeasible_mixture_shows_all_that_was_asked_and_both_ways_out():
    available = {name: train for name, (train, _, _) in PUBLIC.items()}
    with pytest.raises(StudyError) as caught:
        require_feasible(200_000, PAPER.sources, available)
    assert str(caught.value) == (
        "data.total: 200,000 images cannot be had in these proportions: "
        "ade20k asked 27,000, has 20,210; at most 149,703 can; set `shortfall: rescale` for that "
        "many, or `shortfall: repeat` for 6,790 repeated images (enough: imagenet asked 100,000, "
        "has 1,281,167; celeba asked 63,000, has 162,770; cifar10 asked 10,000, has 50,000)"
    )
    rescaled = settle(200_000, PAPER.sources, available, "rescale")
    assert rescaled.summary() == "149,703 images, rescaled from 200,000"
    assert rescaled.counts["ade20k"] == 20_210
    repeated = settle(200_000, PAPER.sources, available, "repeat")
    assert repeated.summary() == ("200,000 images, 6,790 of them repeats (6,790 of ade20k)")
    assert [p.distinct for p in repeated.parts] == [100_000, 63_000, 10_000, 20_210]


def test_a_source_without_any_image_has_no_way_out():
    sources = (Source("a", 0.5), Source("b", 0.5))
    for shortfall in SHORTFALLS:
        with pytest.raises(StudyError, match=r"b asked 5, has 0; at most 0 can \(enough"):
            settle(10, sources, {"a": 9, "b": 0}, shortfall)


def test_the_papers_total_is_feasible_with_the_later_release_only():
    assert feasible_totals(PAPER.sources) == {"train": 149_703, "with_validation": 164_518}
    assert later_totals(PAPER.sources) == {"train": 189_437, "with_validation": 204_251}


def test_the_table_leaves_what_is_not_known_open():
    available = {"imagenet": 100_000, "celeba": None, "cifar10": 1, "ade20k": 30_000}
    frame = feasibility_frame(200_000, PAPER.sources, available).set_index("source")
    assert frame.loc["cifar10", "missing"] == 9_999
    assert frame.loc["ade20k", "missing"] == 0
    assert frame.loc[["celeba"], ["available", "missing"]].isna().all(axis=None)


def test_the_study_takes_the_same_words_for_a_shortfall():
    assert DataFields.model_fields["shortfall"].annotation.__args__ == SHORTFALLS


def test_the_public_sizes_are_those_of_the_publishers_splits():
    for name, (train, validation, _) in PUBLIC.items():
        images = PUBLISHERS[name].images
        assert train == images.get("train", images.get("training"))
        assert validation in (images.get(split) for split in ("val", "valid", "validation", "test"))
