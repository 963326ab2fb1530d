"""What a design would have answered, many times over: studies simulated from a known law.

The truth is the logit-additive law as fitted to the public grid of arXiv 2308.03712, with 5,000
hours of video standing for 200,000 images; the noise is the scatter of that grid's repeated cells.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import stats

from mae_lib.kernels.philox import Purpose, random_words, uniform
from mae_lib.scaling.laws import law_named
from mae_lib.scaling.least_squares import refit

# Least squares on accuracy, 78 runs, centres 50 h, 1.5e8 parameters, 300 px: level, then slopes.
TRUTH = (-1.0696296, 0.1182398, 0.1124533, 0.3489186)
TRUTH_CENTRE = (50.0, 1.5e8, 300.0)
HOURS_PER_IMAGE = 5000 / 200_000
NOISE = 0.01285
SIZES = {"S": 2.16e7, "B": 8.57e7, "L": 3.03e8}


@dataclass(frozen=True)
class Design:
    """Cells as rows of images, parameters, resolution; the target that its laws are asked about."""

    name: str
    images: tuple[float, ...]
    parameters: tuple[float, ...]
    resolutions: tuple[float, ...]
    seeds: int
    target: tuple[float, float, float]
    laws: tuple[str, ...]

    @property
    def rows(self) -> np.ndarray:
        """Factor values `[n, 3]`."""
        cells = list(product(self.images, self.parameters, self.resolutions))
        return np.repeat(np.array(cells), self.seeds, axis=0)


CLAIM = (200_000.0, 522e9, 4096.0)
RIVALS = ("log_product", "log_additive", "logit_additive")
DESIGNS = (
    # The law as printed has no parameter for the size, so its design has one size.
    Design("printed", tuple(12_500.0 * 2**i for i in range(5)), (SIZES["L"],), (226.0, 256.0), 3,
           (200_000.0, SIZES["L"], 4096.0), ("log_product",)),
    Design("printed_sizes", (25_000.0, 50_000.0, 100_000.0, 200_000.0), tuple(SIZES.values()),
           (226.0, 256.0), 1, CLAIM, RIVALS),
    Design("extended", (6_250.0, 19_000.0, 57_000.0, 173_000.0), (5.5e6, 2.16e7, 8.57e7, 3.03e8),
           (64.0, 128.0, 256.0, 512.0), 1, CLAIM, RIVALS),
)  # fmt: skip


def truth(rows: np.ndarray) -> np.ndarray:
    """Return the true accuracy at rows of images, parameters, resolution `[n, 3]`."""
    hours = rows * np.array([HOURS_PER_IMAGE, 1.0, 1.0])
    z = np.log(hours) - np.log(TRUTH_CENTRE)
    return law_named("logit_additive").evaluate(np.array(TRUTH), z)[0]


def simulate(design: Design, *, studies: int = 2000, seed: int = 0) -> dict:
    """Fit each law to `studies` noisy copies of a design and say what they answer at its target.

    Returns the truth there and, a law: mean, standard deviation, central 95 % of the answers, the
    share above 90 %, and how often the 95 % interval of the least-squares theory holds the truth.
    """
    rows = design.rows
    words = random_words(seed, Purpose.BOOTSTRAP, np.arange(studies), 1, draws=len(rows))
    noise = NOISE * stats.norm.ppf(uniform(words) + 2.0**-25)
    y = truth(rows) + noise
    at = np.array([design.target])
    # A factor that never varies has no slope; the printed law leaves the size out.
    varies = np.ptp(rows, axis=0) > 0
    centre = np.log(rows[:, varies]).mean(0)
    z, z_at = np.log(rows[:, varies]) - centre, np.log(at[:, varies]) - centre
    expected = float(truth(at)[0])
    laws = {name: _answers(name, z, y, z_at, expected) for name in design.laws}
    return {"runs": len(rows), "studies": studies, "truth": expected, "laws": laws}


def _answers(name: str, z: np.ndarray, y: np.ndarray, z_at: np.ndarray, expected: float) -> dict:
    law = law_named(name)
    start = np.zeros(z.shape[1] + 1)
    start[0] = y.mean() if name.startswith("log_") else np.log(y.mean() / (1 - y.mean()))
    params, converged = refit(law, z, y, np.ones_like(y), start)
    params, y = params[converged], y[converged]
    value, gradient = law.evaluate(params, z_at)
    value, gradient = value[:, 0], gradient[:, 0]
    fitted, jacobian = law.evaluate(params, z)
    free = len(z) - params.shape[1]
    variance = ((y - fitted) ** 2).sum(-1) / free
    normal = np.swapaxes(jacobian, -1, -2) @ jacobian
    leverage = (gradient * np.linalg.solve(normal, gradient[..., None])[..., 0]).sum(-1)
    half = stats.t.ppf(0.975, free) * np.sqrt(variance * leverage)
    low, high = np.quantile(value, [0.025, 0.975])
    return {
        "mean": float(value.mean()),
        "sd": float(value.std()),
        "low": float(low),
        "high": float(high),
        "above_90": float((value > 0.9).mean()),
        "coverage": float((np.abs(value - expected) <= half).mean()),
        "width": float(2 * np.median(half)),
        "failed": int((~converged).sum()),
    }
