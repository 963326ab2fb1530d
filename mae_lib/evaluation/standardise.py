"""Scale features by statistics of the training part alone."""

import numpy as np


def standardise(
    train: np.ndarray, test: np.ndarray, *, scaled: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Subtract the training mean and, when `scaled`, divide by the training SD: float64.

    A feature that never varies in training is left at 0 in both parts.
    """
    train, test = train.astype(np.float64), test.astype(np.float64)
    mean = train.mean(0)
    spread = train.std(0) if scaled else np.ones_like(mean)
    constant = train.std(0) <= 1e-12 * np.maximum(1.0, np.abs(mean))
    spread = np.where(constant, 1.0, spread)
    return np.where(constant, 0.0, train - mean) / spread, np.where(
        constant, 0.0, test - mean
    ) / spread
