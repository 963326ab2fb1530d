"""The generator is Random123's, equal in numpy and torch, and its draws are uniform."""

import numpy as np
import torch

from mae_lib.kernels.philox import Purpose, philox4x32, random_order, random_words, uniform

ONES = 0xFFFFFFFF
# Random123's known-answer tests (kat_vectors, philox4x32 10 rounds).
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def test_known_answers_in_numpy_and_torch():
    for counter, key, answer in KNOWN:
        with_numpy = philox4x32(*(np.array([c], np.uint64) for c in counter), *key)
        with_torch = philox4x32(*(torch.tensor([c]) for c in counter), *key)
        assert tuple(int(word[0]) for word in with_numpy) == answer
        assert tuple(int(word[0]) for word in with_torch) == answer


def test_draws_depend_on_item_step_and_purpose_and_not_on_the_batch():
    words = random_words(1, Purpose.CROP, np.arange(100), 3, draws=6)
    assert np.array_equal(
        words[40:60], random_words(1, Purpose.CROP, np.arange(40, 60), 3, draws=6)
    )
    assert np.array_equal(words[:, :5], random_words(1, Purpose.CROP, np.arange(100), 3, draws=5))
    for other in (
        random_words(2, Purpose.CROP, np.arange(100), 3, draws=6),
        random_words(1, Purpose.MASK, np.arange(100), 3, draws=6),
        random_words(1, Purpose.CROP, np.arange(100), 4, draws=6),
    ):
        assert (words == other).mean() < 0.01


def test_uniform_draws_fill_the_unit_interval_evenly():
    draws = uniform(random_words(0, Purpose.SCENE, np.arange(20000), draws=4)).ravel()
    counts = np.histogram(draws, bins=20, range=(0, 1))[0]
    # chi-squared with 19 degrees of freedom: 43.8 is its 99.9 % point
    assert ((counts - 4000) ** 2 / 4000).sum() < 43.8
    assert draws.max() < 1


def test_random_order_is_a_permutation():
    order = random_order(0, Purpose.ORDER, np.arange(1000, dtype=np.uint64), 2)
    assert sorted(order) == list(range(1000))
