"""k-NN: each test image asks its nearest training images, weighted by similarity.

Whether features are centred or also scaled is chosen by leave-one-out on the training part.
Source: Wu et al. 2018 (arXiv 1805.01978), the protocol of most self-supervised papers.
"""

import numpy as np

from mae_lib.evaluation.linear_probe import Scored
from mae_lib.evaluation.standardise import standardise

_BLOCK = 1024


def nearest_neighbours(
    train: np.ndarray,
    train_labels: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
    *,
    neighbours: int = 20,
    temperature: float = 0.07,
) -> Scored:
    """Score the test part by cosine similarity to the training part `[n, D]`."""
    votes = {"neighbours": min(neighbours, len(train) - 1), "temperature": temperature}
    right = {}
    for name, scaled in (("centred", False), ("standardised", True)):
        x, _ = standardise(train, train[:1], scaled=scaled)
        guess = _vote(x, train_labels, x, leave_one_out=True, **votes)
        right[name] = (guess == train_labels).sum()
    chosen = max(right, key=right.__getitem__)
    x, x_test = standardise(train, test, scaled=chosen == "standardised")
    guess = _vote(x, train_labels, x_test, leave_one_out=False, **votes)
    return Scored(guess == test_labels, None, chosen)


def _vote(train, labels, queries, *, neighbours, temperature, leave_one_out) -> np.ndarray:
    train, queries = _unit(train), _unit(queries)
    guesses = []
    for start in range(0, len(queries), _BLOCK):
        similarity = queries[start : start + _BLOCK] @ train.T
        rows = np.arange(len(similarity))
        if leave_one_out:
            similarity[rows, start + rows] = -np.inf
        near = np.argpartition(-similarity, neighbours - 1, axis=1)[:, :neighbours]
        weight = np.exp((similarity[rows[:, None], near] - 1.0) / temperature)
        ballots = np.zeros((len(similarity), labels.max() + 1))
        np.add.at(ballots, (rows[:, None], labels[near]), weight)
        guesses.append(ballots.argmax(1))
    return np.concatenate(guesses)


def _unit(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
