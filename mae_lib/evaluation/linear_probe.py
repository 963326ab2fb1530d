"""The linear probe: ridge regression on one-hot labels, in closed form.

Its strength is chosen by k-fold accuracy on the training part; the test part is scored once.
"""

from dataclasses import dataclass

import numpy as np

from mae_lib.evaluation.standardise import standardise

# Ridge strengths as multiples of the number of training images, a decade and a half apart.
STRENGTHS = tuple(10.0**k for k in np.arange(-5, 3.1, 0.5))


@dataclass(frozen=True)
class Scored:
    """Which test images were right (top-1, top-5), and the setting that training chose."""

    correct: np.ndarray
    correct_top5: np.ndarray | None
    setting: float | str


def linear_probe(
    train: np.ndarray,
    train_labels: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
    *,
    folds: int = 5,
) -> Scored:
    """Fit features `[n, D]` to labels and score the test part.

    Image i of the training part is in fold i mod `folds`. The fit minimises
    ||Y - X W||^2 + n s ||W||^2 with Y centred one-hot rows; one eigendecomposition serves all s.
    """
    x, x_test = standardise(train, test)
    targets = np.eye(int(max(train_labels.max(), test_labels.max())) + 1)[train_labels]
    fold = np.arange(len(x)) % folds
    right = np.zeros(len(STRENGTHS))
    for held_out in range(folds):
        part = fold != held_out
        for s, scores in enumerate(_ridge(x[part], targets[part], x[~part])):
            right[s] += (scores.argmax(1) == train_labels[~part]).sum()
    # Of equals the strongest, which is the smoothest.
    best = len(STRENGTHS) - 1 - int(np.argmax(right[::-1]))
    scores = _ridge(x, targets, x_test)[best]
    order = np.argsort(-scores, axis=1, kind="stable")
    hit = order == test_labels[:, None]
    top5 = hit[:, :5].any(1) if scores.shape[1] > 5 else None
    return Scored(hit[:, 0], top5, STRENGTHS[best])


def _ridge(x: np.ndarray, targets: np.ndarray, x_test: np.ndarray) -> list[np.ndarray]:
    """Return the scores of the test rows under every strength."""
    mean_x, mean_y = x.mean(0), targets.mean(0)
    x, y, x_test = x - mean_x, targets - mean_y, x_test - mean_x
    if x.shape[1] <= len(x):
        values, vectors = np.linalg.eigh(x.T @ x)
        projected, tested = vectors.T @ (x.T @ y), x_test @ vectors
    else:
        values, vectors = np.linalg.eigh(x @ x.T)
        projected, tested = vectors.T @ y, (x_test @ x.T) @ vectors
    values = np.maximum(values, 0.0)
    return [tested @ (projected / (values + s * len(x))[:, None]) + mean_y for s in STRENGTHS]
