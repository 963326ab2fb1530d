"""Readouts equal plain computations, and never look at the test labels."""

import numpy as np
import pandas as pd
import pytest
import torch

from mae_lib.evaluation.features import extract, raw_pixels
from mae_lib.evaluation.gate import gate
from mae_lib.evaluation.intervals import standard_errors_apart, wilson
from mae_lib.evaluation.linear_probe import STRENGTHS, _ridge, linear_probe
from mae_lib.evaluation.neighbours import nearest_neighbours
from mae_lib.evaluation.standardise import standardise


def problem(n=300, d=12, classes=6, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, d))
    labels = rng.integers(0, classes, n)
    return (centres[labels] + rng.normal(size=(n, d))).astype(np.float32), labels


@pytest.mark.parametrize("d", [12, 400])
def test_ridge_equals_the_direct_solution(d):
    x, labels = problem(d=d)
    x, y, test = x[:200].astype(np.float64), np.eye(6)[labels[:200]], x[200:].astype(np.float64)
    mean_x, mean_y = x.mean(0), y.mean(0)
    for strength, scores in zip(STRENGTHS, _ridge(x, y, test), strict=True):
        gram = (x - mean_x).T @ (x - mean_x) + strength * len(x) * np.eye(d)
        weights = np.linalg.solve(gram, (x - mean_x).T @ (y - mean_y))
        np.testing.assert_allclose(scores, (test - mean_x) @ weights + mean_y, atol=1e-7)


def test_probes_learn_what_can_be_learnt_and_nothing_from_shuffled_labels():
    x, labels = problem(n=1200)
    shuffled = np.random.default_rng(1).permutation(labels)
    for probe in (linear_probe, nearest_neighbours):
        good = probe(x[:800], labels[:800], x[800:], labels[800:]).correct.mean()
        # chance is 1/6; five standard errors of 400 draws
        bad = probe(x[:800], shuffled[:800], x[800:], labels[800:]).correct.mean()
        assert good > 0.6
        assert abs(bad - 1 / 6) < 5 * (1 / 6 * 5 / 6 / 400) ** 0.5


def test_no_setting_depends_on_the_test_labels():
    x, labels = problem()
    wrong = (labels[200:] + 1) % 6
    for probe in (linear_probe, nearest_neighbours):
        true = probe(x[:200], labels[:200], x[200:], labels[200:])
        false = probe(x[:200], labels[:200], x[200:], wrong)
        assert true.setting == false.setting


def test_neighbours_equal_a_plain_loop():
    x, labels = problem(n=120)
    found = nearest_neighbours(x[:90], labels[:90], x[90:], labels[90:], neighbours=7)
    train, test = standardise(x[:90], x[90:], scaled=found.setting == "standardised")
    for row, query in enumerate(test):
        near = [a @ query / np.linalg.norm(a) / np.linalg.norm(query) for a in train]
        votes = np.zeros(6)
        for index in np.argsort(near)[::-1][:7]:
            votes[labels[index]] += np.exp((near[index] - 1) / 0.07)
        assert (votes.argmax() == labels[90 + row]) == found.correct[row]


def test_constant_features_do_no_harm():
    x, labels = problem()
    x = np.concatenate([x, np.full((len(x), 2), 3.0, np.float32)], 1)
    assert np.isfinite(standardise(x[:200], x[200:])[1]).all()
    assert linear_probe(x[:200], labels[:200], x[200:], labels[200:]).correct.mean() > 0.5


def test_features_do_not_depend_on_the_batch_and_quadrants_average_to_the_mean():
    images = np.random.default_rng(0).integers(0, 255, (10, 16, 16, 3)).astype(np.uint8)

    def encode(pixels):
        patches = pixels.reshape(len(pixels), 4, 4, 4, 4, 3).permute(0, 1, 3, 2, 4, 5)
        tokens = patches.reshape(len(pixels), 16, 48)
        return torch.cat([torch.full_like(tokens[:, :1], 1e6), tokens], 1)

    small, large = (extract(encode, images, pixels=16, batch_size=b) for b in (3, 10))
    np.testing.assert_allclose(small.mean, large.mean, rtol=1e-5)
    quarters = large.pooled.reshape(10, 4, 48).mean(1)
    np.testing.assert_allclose(quarters, large.mean, atol=1e-5)
    assert raw_pixels(images, pixels=8).shape == (10, 192)


def test_wilson_intervals_are_the_published_ones():
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3
    for successes, n, low, high in (
        (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):  # fmt: skip
        assert wilson(successes, n) == pytest.approx((low, high), abs=6e-5)


def test_distances_are_in_standard_errors_of_the_difference():
    assert standard_errors_apart(0.097, 0.068, 2000) == pytest.approx(3.34, abs=0.01)
    assert standard_errors_apart(0.5, 0.5, 10) == 0


def test_the_gate_takes_the_better_baseline_of_the_largest_cell():
    row = {
        "cell": "big", "status": "complete", "images": 100, "params_encoder": 10, "resolution": 8,
        "task": "t", "protocol": "linear", "top1": 0.2, "n_eval": 2000, "pixels_top1": 0.1,
        "random0_top1": 0.19, "random1_top1": 0.05, "random2_top1": 0.05,
    }  # fmt: skip
    small = row | {"cell": "small", "images": 10, "top1": 0.9}
    verdict = gate(pd.DataFrame([row, small])).iloc[0]
    assert (verdict.cell, verdict.baseline, verdict.passes) == (
        "big",
        "random initialisation",
        False,
    )
    assert gate(pd.DataFrame([row | {"top1": 0.25}, small])).iloc[0].passes
