"""The laws, in a form that a design can identify: factors as natural logs about a centre.

Each law maps parameters `[..., k]` and centred logs `[n, m]` to responses `[..., n]` and gives its
Jacobian `[..., n, k]`; leading axes are refits of a bootstrap or starts of a search.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mae_lib.errors import FitError

Evaluate = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Law:
    """A law: `names(factors)` are its parameters, `factors` the ones it uses (None: all)."""

    name: str
    formula: str
    source: str
    evaluate: Evaluate
    factors: tuple[str, ...] | None
    note: str
    response: str = "any"
    levels_needed: int = 2
    ceiling: str | None = None
    identifiable: str = "all"

    def used(self, factors: tuple[str, ...]) -> tuple[str, ...]:
        """Return the factors of a table that the law uses.

        Raises: FitError when one that it needs is missing.
        """
        if self.factors is None:
            return factors
        if missing := [name for name in self.factors if name not in factors]:
            raise FitError(f"{self.name}: needs the factor {missing[0]}, got {', '.join(factors)}")
        return self.factors

    def names(self, factors: tuple[str, ...]) -> tuple[str, ...]:
        """Return the parameters' names on a table's factors."""
        return ("level", *(f"per_ln_{name}" for name in self.used(factors)))


def _product(params: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """K prod_j (1 + b_j z_j)."""
    level, slopes = params[..., :1], params[..., 1:]
    terms = 1 + slopes[..., None, :] * z
    product = terms.prod(-1)
    jacobian = np.empty((*product.shape, params.shape[-1]))
    jacobian[..., 0] = product
    for j in range(z.shape[1]):
        others = np.delete(terms, j, axis=-1).prod(-1)
        jacobian[..., j + 1] = level * z[:, j] * others
    return level * product, jacobian


def _sum(params: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """c + sum_j b_j z_j."""
    design = np.concatenate([np.ones((len(z), 1)), z], 1)
    value = params @ design.T
    return value, np.broadcast_to(design, (*value.shape, design.shape[1]))


def _logit_sum(params: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """1 / (1 + exp(-(c + sum_j b_j z_j)))."""
    value, design = _sum(params, z)
    share = 1 / (1 + np.exp(-np.clip(value, -700, 700)))
    return share, (share * (1 - share))[..., None] * design


LAWS: dict[str, Law] = {
    law.name: law
    for law in (
        Law(
            "printed",
            "(beta_i + alpha_i ln images) (alpha_r ln resolution + beta_r)",
            "arXiv 2308.05092, the law as printed",
            _product,
            ("images", "resolution"),
            "multiplying one bracket by c and the other by 1/c changes nothing: of 4 printed "
            "parameters 3 combinations can be known; the model's size does not enter",
        ),
        Law(
            "log_product",
            "K prod_j (1 + b_j ln(x_j / centre_j))",
            "arXiv 2308.03712; 2308.05092 with parameters as a third factor",
            _product,
            None,
            "each added factor multiplies the gain of the others",
        ),
        Law(
            "log_additive",
            "c + sum_j b_j ln(x_j / centre_j)",
            "the first-order rival of the product",
            _sum,
            None,
            "no interaction, no ceiling",
        ),
        Law(
            "logit_additive",
            "1 / (1 + exp(-(c + sum_j b_j ln(x_j / centre_j))))",
            "the rival that cannot leave 0 to 1",
            _logit_sum,
            None,
            "approaches 1 and never passes it",
        ),
    )
}


def law_named(name: str) -> Law:
    """Look a law up; raises FitError naming the known ones."""
    if name not in LAWS:
        raise FitError(f"law: one of {', '.join(LAWS)}, got {name!r}")
    return LAWS[name]
