"""Laws for a fraction: a logistic curve of log factors between chance and a ceiling."""

from dataclasses import replace

import numpy as np

from mae_lib.scaling.law import Design, Law, level_and_slopes
from mae_lib.scaling.laws_log import Pairs, all_pairs, features, kept_pairs, pair_names

# A ceiling starts just above the largest value seen, where the logistic curve is still defined.
ABOVE = 1e-6


def _logistic(pairs: Pairs | None, chance: float, ceiling: bool):
    """Make chance + (ceiling - chance) / (1 + exp(-u)); the ceiling is 1 or the last parameter."""

    def evaluate(params: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        design = features(z, all_pairs(z.shape[1]) if pairs is None else pairs)
        inner = params[..., : design.shape[1]] @ design.T
        share = 1 / (1 + np.exp(-np.clip(inner, -700, 700)))
        top = params[..., -1:] if ceiling else 1.0
        jacobian = ((top - chance) * share * (1 - share))[..., None] * design
        if ceiling:
            jacobian = np.concatenate([jacobian, share[..., None]], -1)
        return chance + (top - chance) * share, jacobian

    return evaluate


def _bind_chance(pairs: Pairs | None, ceiling: bool):
    def bind(law: Law, design: Design) -> Law:
        return replace(law, evaluate=_logistic(pairs, design.chance, ceiling))

    return bind


def _bind_bilinear(law: Law, design: Design) -> Law:
    pairs, dropped = kept_pairs(design)
    return replace(
        law,
        evaluate=_logistic(pairs, design.chance, ceiling=False),
        parameters=lambda factors: pair_names(factors, pairs),
        dropped=dropped,
    )


def _box(design: Design) -> tuple[np.ndarray, np.ndarray]:
    """Start the level at the logit of the response, slopes within one over the factor's range."""
    share = np.clip((design.y - design.chance) / (1 - design.chance), 1e-3, 1 - 1e-3)
    low, high = np.quantile(np.log(share / (1 - share)), [0.05, 0.95])
    slope = 1 / np.maximum(np.ptp(design.z, axis=0), 1e-12)
    return np.concatenate([[low], -slope]), np.concatenate([[high], slope])


def _box_bilinear(design: Design) -> tuple[np.ndarray, np.ndarray]:
    low, high = _box(design)
    reach = 1 / np.maximum(np.ptp(design.z, axis=0), 1e-12)
    pairs, _ = kept_pairs(design)
    width = np.array([reach[j] * reach[k] for j, k in pairs])
    return np.concatenate([low, -width]), np.concatenate([high, width])


def _ceiling_limits(design: Design) -> tuple[np.ndarray, np.ndarray]:
    m = design.z.shape[1]
    least = min(design.y.max() + ABOVE, 1.0)
    return np.array([-np.inf] * (m + 1) + [least]), np.array([np.inf] * (m + 1) + [1.0])


def _ceiling_box(design: Design) -> tuple[np.ndarray, np.ndarray]:
    low, high = _box(design)
    least = design.y.max()
    return np.append(low, least + 0.05 * (1 - least)), np.append(high, 1.0)


LOGIT_LAWS = (
    Law(
        "logit_additive",
        "1 / (1 + exp(-(c + sum_j b_j ln(x_j / centre_j))))",
        "the rival that cannot leave 0 to 1",
        _logistic((), 0.0, ceiling=False),
        note="approaches 1 and never passes it",
        response="accuracy",
        ceiling="1",
        box=_box,
        bind=_bind_chance((), ceiling=False),
    ),
    Law(
        "logit_bilinear",
        "1 / (1 + exp(-(c + sum_j b_j z_j + sum_jk b_jk z_j z_k))), z = ln(x / centre)",
        "the logistic rival with pairwise terms",
        _logistic(None, 0.0, ceiling=False),
        note="pairwise terms that the design cannot tell from the others are dropped and named",
        response="accuracy",
        ceiling="1",
        parameters=lambda factors: pair_names(factors, all_pairs(len(factors))),
        box=_box_bilinear,
        bind=_bind_bilinear,
        identifiable="the pairwise terms that vary apart from the rest (variance inflation < 1e4)",
    ),
    Law(
        "logit_ceiling",
        "ceiling / (1 + exp(-(c + sum_j b_j ln(x_j / centre_j))))",
        "a logistic curve with its ceiling fitted",
        _logistic((), 0.0, ceiling=True),
        note="far below its ceiling the data say little of it: ask for its profile",
        response="accuracy",
        ceiling="fitted, above the largest value seen and at most 1",
        levels_needed=3,
        parameters=lambda factors: (*level_and_slopes(factors), "ceiling"),
        limits=_ceiling_limits,
        box=_ceiling_box,
        bind=_bind_chance((), ceiling=True),
        identifiable="1 + m; the ceiling only where values come near it",
    ),
)
