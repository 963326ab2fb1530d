"""Laws in logs of the factors: products, sums, and sums with pairwise terms."""

import itertools
from dataclasses import replace

import numpy as np

from mae_lib.scaling.law import Design, Law, level_and_slopes
from mae_lib.scaling.levels import level_codes

# A pairwise term whose variance is inflated this often by the terms before it is dropped: its
# coefficient would be fitted to rounding of the levels, not to the response.
ALIAS_VIF = 1e4

Pairs = tuple[tuple[int, int], ...]


def product(params: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Evaluate K prod_j (1 + b_j z_j)."""
    level, slopes = params[..., :1], params[..., 1:]
    terms = 1 + slopes[..., None, :] * z
    jacobian = np.empty((*terms.shape[:-1], params.shape[-1]))
    jacobian[..., 0] = terms.prod(-1)
    m = z.shape[1]
    for j in range(m):
        others = [terms[..., i] for i in range(m) if i != j]
        jacobian[..., j + 1] = level * z[:, j] * np.prod(others, axis=0)
    return level * jacobian[..., 0], jacobian


def features(z: np.ndarray, pairs: Pairs) -> np.ndarray:
    """Return the columns 1, z_j and the chosen z_j z_k, `[n, 1 + m + pairs]`."""
    columns = [np.ones(len(z)), *z.T, *(z[:, j] * z[:, k] for j, k in pairs)]
    return np.stack(columns, 1)


def all_pairs(m: int) -> Pairs:
    """Return every pair of m factors."""
    return tuple(itertools.combinations(range(m), 2))


def pair_names(factors: tuple[str, ...], pairs: Pairs) -> tuple[str, ...]:
    """Name a level, slopes, and the pairwise terms."""
    return (
        *level_and_slopes(factors),
        *(f"per_ln_{factors[j]}_ln_{factors[k]}" for j, k in pairs),
    )


def kept_pairs(design: Design) -> tuple[Pairs, tuple[str, ...]]:
    """Return the pairwise terms that a design can tell from the others, and words for the rest."""
    kept: list[tuple[int, int]] = []
    dropped = []
    for pair in all_pairs(design.z.shape[1]):
        known = features(design.z, tuple(kept))
        term = design.z[:, pair[0]] * design.z[:, pair[1]]
        left = term - known @ np.linalg.lstsq(known, term, rcond=None)[0]
        spread = term - term.mean()
        if left @ left * ALIAS_VIF > spread @ spread:
            kept.append(pair)
        else:
            dropped.append(_why_aliased(design, *pair))
    return tuple(kept), tuple(dropped)


def _why_aliased(design: Design, j: int, k: int) -> str:
    """Say which factor varies at one level of the other only, where that is the reason."""
    names = design.factors
    for a, b in ((j, k), (k, j)):
        at, of = level_codes(design.z[:, a]), level_codes(design.z[:, b])
        varying = sum(len(np.unique(of[at == number])) > 1 for number in np.unique(at))
        if varying == 1 and at.max() > 0:
            return f"{names[j]} x {names[k]} is aliased: {names[b]} varies at one {names[a]} only"
    return f"{names[j]} x {names[k]} is aliased with the terms before it"


def _sum_basis(pairs: Pairs):
    def basis(theta: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        phi = features(z, pairs)
        return phi, np.zeros((*phi.shape, 0))

    return basis


def _sum(pairs: Pairs):
    def evaluate(params: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        design = features(z, pairs)
        value = params @ design.T
        return value, np.broadcast_to(design, (*value.shape, design.shape[1]))

    return evaluate


def _bilinear(params: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return _sum(all_pairs(z.shape[1]))(params, z)


def _bind_bilinear(law: Law, design: Design) -> Law:
    pairs, dropped = kept_pairs(design)
    return replace(
        law,
        evaluate=_sum(pairs),
        basis=_sum_basis(pairs),
        linear=lambda m: 1 + m + len(pairs),
        parameters=lambda factors: pair_names(factors, pairs),
        dropped=dropped,
    )


LOG_LAWS = (
    Law(
        "printed",
        "(beta_i + alpha_i ln images) (alpha_r ln resolution + beta_r)",
        "arXiv 2308.05092, the law as printed",
        product,
        roles=("data", "resolution"),
        note="multiplying one bracket by c and the other by 1/c changes nothing: of 4 printed "
        "parameters 3 combinations can be known; the model's size does not enter",
        identifiable="beta_i beta_r, alpha_i / beta_i and alpha_r / beta_r at the centre",
    ),
    Law(
        "log_product",
        "K prod_j (1 + b_j ln(x_j / centre_j))",
        "arXiv 2308.03712; 2308.05092 with parameters as a third factor",
        product,
        note="each added factor multiplies the gain of the others",
        identifiable="1 + m of the 2 m that the brackets print",
    ),
    Law(
        "log_additive",
        "c + sum_j b_j ln(x_j / centre_j)",
        "the first-order rival of the product",
        _sum(()),
        note="no interaction, no ceiling",
        basis=_sum_basis(()),
        linear=lambda m: 1 + m,
    ),
    Law(
        "log_bilinear",
        "c + sum_j b_j z_j + sum_jk b_jk z_j z_k, z = ln(x / centre)",
        "the second-order surface whose special case the product is",
        _bilinear,
        note="pairwise terms that the design cannot tell from the others are dropped and named",
        parameters=lambda factors: pair_names(factors, all_pairs(len(factors))),
        linear=lambda m: 1 + m + m * (m - 1) // 2,
        bind=_bind_bilinear,
        identifiable="the pairwise terms that vary apart from the rest (variance inflation < 1e4)",
    ),
)
