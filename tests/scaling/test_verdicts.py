"""Verdicts follow from numbers: each holds on the published ones, and fails when they change."""

import copy

import pytest

from mae_lib.report.decide import read_claim
from mae_lib.scaling.claim import DECISIVE, RULES, decision, verdicts


@pytest.fixture(scope="module")
def numbers():
    return read_claim()


def judged(numbers):
    return {verdict.name: verdict.holds for verdict in verdicts(numbers)}


@pytest.mark.parametrize("name", [rule.name for rule in RULES])
def test_each_verdict_follows_from_the_published_numbers(numbers, name):
    assert judged(numbers)[name]


def test_the_published_verdicts_are_the_ones_that_the_numbers_give(numbers):
    assert [vars(v) for v in verdicts(numbers)] == numbers["verdicts"]
    assert numbers["decision"] == decision(verdicts(numbers)) == "not supported"


def answers_at_claim(numbers, change):
    for row in numbers["answers"]:
        if row["target"] == "claim":
            change(row)


def all_near(row):
    row |= {"value": 0.93, "low": 0.9, "high": 0.96}


# What the numbers would have to be for a verdict to fall.
CHANGES = {
    "outside": lambda n: n["design"].update(rho=0.8),
    "imprecise": lambda n: n["design"].update(half_width=2.0),
    "coin_toss": lambda n: n["simulation"]["printed_sizes"]["laws"]["log_product"].update(
        above_90=0.05
    ),
    "more_runs": lambda n: n["simulation"]["extended"]["laws"]["log_product"].update(coverage=0.95),
    "form": lambda n: answers_at_claim(n, all_near),
    "spread": lambda n: answers_at_claim(n, all_near),
    "in_sample": lambda n: [row.update(aicc=0.0) for row in n["laws"]],
    "rejected": lambda n: n["laws"][0].update(lack_of_fit_p=0.4),
    "aliased": lambda n: n["grid"]["resolution_varies_at"].append("ViT-L/14"),
    "tuning": lambda n: n["grid"].update(epochs_by_resolution={"224": 50, "448": 50}),
    "shared": lambda n: n["grid"].update(subset_p=0.3),
    "intermediate": lambda n: n["intermediate"]["by_law"][0].update(second=1.9),
    "interpolated": lambda n: n["pixels"].update(share=0.9),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_verdict_falls_when_its_numbers_no_longer_bear_it_out(numbers, name):
    changed = copy.deepcopy(numbers)
    CHANGES[name](changed)
    assert not judged(changed)[name]
    if name in DECISIVE:
        assert decision(verdicts(changed)) == "open"


def test_every_rule_can_fall():
    assert set(CHANGES) == {rule.name for rule in RULES}
