"""The simulated worlds of the planner's benchmark: measured cells, candidates, costs, truths, noise."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, ndtri

from mae_lib.kernels.philox import Purpose, random_words

FACTORS = ("images", "params_encoder", "resolution")
MEASURED = ((1e3, 4e3, 16e3), (1e5, 4e5, 1.6e6), (16, 32))
CANDIDATES = ((1e3, 4e3, 16e3, 64e3), (1e5, 4e5, 1.6e6, 6.4e6), (16, 24, 32, 48, 64))
TARGET = (128e3, 12.8e6, 96.0)
# Where the truths' parameters hold.
CENTRE = np.log((4e3, 4e5, 22.6))
# Photographs of 48 px shown larger hold no more: resolution ends to help there.
NATIVE = np.log(48.0)
BREAK = np.log(32e3)
# Starting and scoring a run costs what a hundred of the smallest cells do.
OVERHEAD = 100.0
BUDGET = 20_000.0
NOISE = 0.012


def _logit(logs: np.ndarray) -> np.ndarray:
    return expit(-0.85 + (logs - CENTRE) @ (0.25, 0.20, 0.50))


def _product(logs: np.ndarray) -> np.ndarray:
    return 0.3 * (1 + (logs - CENTRE) * (0.12, 0.10, 0.25)).prod(-1)


def _power(logs: np.ndarray) -> np.ndarray:
    return 0.9 - 0.6 * np.exp(-(logs - CENTRE) @ (0.12, 0.10, 0.25))


def _saturating(logs: np.ndarray) -> np.ndarray:
    seen = -np.logaddexp(-4 * logs[..., 2], -4 * NATIVE) / 4
    return _logit(np.concatenate([logs[..., :2], seen[..., None]], -1))


def _broken(logs: np.ndarray) -> np.ndarray:
    beyond = np.maximum(logs[..., 0] - BREAK, 0)
    images = logs[..., 0] - 0.7 * beyond
    return _logit(np.concatenate([images[..., None], logs[..., 1:]], -1))


def _power_sum(logs: np.ndarray) -> np.ndarray:
    z = logs - CENTRE
    return (
        0.95
        - 0.25 * np.exp(-0.3 * z[..., 0])
        - 0.2 * np.exp(-0.3 * z[..., 1])
        - (0.2 * np.exp(-0.5 * z[..., 2]))
    )


def _interaction(logs: np.ndarray) -> np.ndarray:
    z = logs - CENTRE
    return expit(-0.85 + z @ (0.25, 0.20, 0.50) - 0.03 * z[..., 0] * z[..., 1])


# Accuracy as a fraction at natural logs of the factors `[..., 3]`.
TRUTHS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "log_product": _product,
    "logit_additive": _logit,
    "power_product": _power,
    "saturating_resolution": _saturating,
    "broken_images": _broken,
    "power_sum": _power_sum,
    "logit_interaction": _interaction,
}
# The planner's caution and share were chosen while looking at the other five.
UNSEEN = ("power_sum", "logit_interaction")


@dataclass(frozen=True)
class World:
    """Rows: the `measured` cells first, then the candidates; `x` `[n, 3]`, `costs` of candidates."""

    x: np.ndarray
    measured: int
    costs: np.ndarray
    target: np.ndarray
    budget: float

    @property
    def logs(self) -> np.ndarray:
        """Natural logs of all rows, `[n, 3]`."""
        return np.log(self.x)

    @property
    def candidates(self) -> np.ndarray:
        """Factors of the candidates, `[p, 3]`."""
        return self.x[self.measured :]


def build_world(budget: float = BUDGET) -> World:
    """Return the cells; a run costs OVERHEAD + N D R^2 in units of the smallest cell's training."""
    measured, candidates = _grid(MEASURED), _grid(CANDIDATES)
    smallest = candidates[0]
    work = (candidates / smallest) ** (1, 1, 2)
    return World(
        x=np.concatenate([measured, candidates]),
        measured=len(measured),
        costs=OVERHEAD + work.prod(1),
        target=np.array([TARGET]),
        budget=budget,
    )


def simulate(world: World, truth: str, repeats: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return noisy accuracies of every row in every repeat `[repeats, n]`, and one run at the target.

    A row has the same noise whatever strategy chooses it, so strategies are compared in pairs.
    """
    points = np.concatenate([world.logs, np.log(world.target)])
    which = list(TRUTHS).index(truth)
    words = random_words(
        seed, Purpose.SIMULATE, np.arange(repeats), np.uint64(which), draws=len(points)
    )
    noise = NOISE * ndtri((words.astype(np.float64) + 0.5) * 2.0**-32)
    y = TRUTHS[truth](points) + noise
    return y[:, :-1], y[:, -1]


def _grid(levels: tuple[tuple[float, ...], ...]) -> np.ndarray:
    return np.stack(np.meshgrid(*levels, indexing="ij"), -1).reshape(-1, len(levels))
