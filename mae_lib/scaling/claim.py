"""The claim in numbers: what a design can say about a far target, and the verdicts that follow.

Arithmetic only; the simulation is in claim_simulation.py, the public grid in confounds.py.
A verdict is a rule over numbers: it holds or it does not, and a test asserts each one.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from mae_lib.errors import FitError

# A standard normal quantile serves where the noise is known, Student's t where it is estimated.
LEVEL = 0.95


def ranges_beyond(low: float, high: float, target: float) -> float:
    """Return how many of the data's own ranges, in logs, the target lies beyond them."""
    return math.log(target / high) / math.log(high / low)


def standard_error_factor(low: float, high: float, target: float) -> float:
    """Return the standard error at the target over that of a mean of as many runs.

    For a straight line in the log of a factor and the best split of runs between two levels:
    ((t - a) + (t - b)) / (b - a) in logs. Source: c-optimal design, Elfving 1952.
    """
    a, b, t = math.log(low), math.log(high), math.log(target)
    return ((t - a) + (t - b)) / (b - a)


def balanced_error_factor(low: float, high: float, target: float) -> float:
    """Return the same factor with half of the runs at each level: sqrt(1 + factor^2)."""
    return math.hypot(1.0, standard_error_factor(low, high, target))


def half_width(noise: float, runs: int, factor: float, *, parameters: int = 2) -> float:
    """Return the half width of a 95 % interval of a prediction's mean, in the unit of `noise`.

    Student's t with runs - parameters degrees of freedom times noise / sqrt(runs) x factor.
    Raises: FitError with no degree of freedom left.
    """
    if runs <= parameters:
        raise FitError(f"runs: more than the {parameters} parameters are needed, got {runs}")
    quantile = stats.t.ppf((1 + LEVEL) / 2, runs - parameters)
    return float(quantile * noise / math.sqrt(runs) * factor)


def runs_for(noise: float, wanted: float, factor: float) -> int:
    """Return how many runs bring the half width down to `wanted`, the noise being known."""
    quantile = stats.norm.ppf((1 + LEVEL) / 2)
    return math.ceil((quantile * noise * factor / wanted) ** 2)


def native_share(
    counts: Mapping[str, int], sizes: Mapping[str, tuple[int, int]], side: int
) -> dict:
    """Return the native pixels of a mixture, their share of `side` x `side`, and the upsampling.

    `sizes` are width and height in pixels; the linear upsampling of a source is side over the
    shorter of the two.
    """
    pixels = {name: count * sizes[name][0] * sizes[name][1] for name, count in counts.items()}
    total = sum(pixels.values())
    return {
        "native_pixels": total,
        "share": total / (sum(counts.values()) * side**2),
        "upsampling": {name: side / min(sizes[name]) for name in counts},
        "largest_native_side": max(min(size) for size in sizes.values()),
    }


@dataclass(frozen=True)
class Verdict:
    """A sentence, whether the numbers bear it out, and the numbers it stands on."""

    name: str
    statement: str
    holds: bool
    numbers: str


@dataclass(frozen=True)
class _Rule:
    name: str
    statement: str
    holds: Callable[[Mapping], bool]
    numbers: Callable[[Mapping], str]


def _percent(share: float, digits: int) -> str:
    return f"{100 * share:.{digits}f} %"


def _at_claim(n: Mapping) -> list[Mapping]:
    return [row for row in n["answers"] if row["target"] == "claim"]


def _values(rows: Sequence[Mapping]) -> list[float]:
    return [row["value"] for row in rows]


def _spread(rows: Sequence[Mapping]) -> float:
    return max(_values(rows)) - min(_values(rows))


def _passing(rows: Sequence[Mapping], level: float) -> list[str]:
    return [row["law"] for row in rows if row["value"] > level]


def _names(laws: Sequence[str]) -> str:
    return ", ".join(laws) or "none"


def _widest(rows: Sequence[Mapping]) -> float:
    return max(row["high"] - row["low"] for row in rows if row["low"] is not None)


def _steps(n: Mapping) -> list[float]:
    return [row["second"] - row["first"] for row in n["intermediate"]["by_law"]]


def _firsts(n: Mapping) -> list[float]:
    return [row["first"] for row in n["intermediate"]["by_law"]]


def _aicc(n: Mapping, law: str) -> float:
    return next(row["aicc"] for row in n["laws"] if row["law"] == law)


RULES = (
    _Rule(
        "outside",
        "4096 pixels lie far outside the paper's own design",
        lambda n: n["design"]["rho"] > 1,
        lambda n: f"{n['design']['rho']:.3g} ranges beyond 226 to 256 pixels",
    ),
    _Rule(
        "imprecise",
        "the paper's design cannot tell 90 % from 80 %, even if its law is true",
        lambda n: n["design"]["half_width"] > 10,
        lambda n: (
            f"standard error x {n['design']['se_factor']:.3g}; ±{n['design']['half_width']:.3g} "
            f"points from {n['design']['runs']} runs; ±2 points take {n['design']['runs_for_2']:,}"
        ),
    ),
    _Rule(
        "coin_toss",
        "from that design a product law says more than 90 % about as often as not, where the truth "
        "is below 80 %",
        lambda n: (
            0.25 < n["simulation"]["printed_sizes"]["laws"]["log_product"]["above_90"] < 0.75
            and n["simulation"]["printed_sizes"]["truth"] < 0.8
        ),
        lambda n: (
            f"{_percent(n['simulation']['printed_sizes']['laws']['log_product']['above_90'], 0)} of "
            f"simulated studies pass 90 %, truth {_percent(n['simulation']['printed_sizes']['truth'], 1)}"
        ),
    ),
    _Rule(
        "more_runs",
        "more runs of a wrong law make it precise, not right",
        lambda n: (
            n["simulation"]["extended"]["laws"]["log_product"]["above_90"] > 0.5
            and n["simulation"]["extended"]["laws"]["log_product"]["coverage"] < 0.5
        ),
        lambda n: (
            f"with {n['simulation']['extended']['runs']} runs over 64 to 512 pixels the product law "
            "passes 90 % in "
            f"{_percent(n['simulation']['extended']['laws']['log_product']['above_90'], 0)} of studies "
            "and its interval holds the truth in "
            f"{_percent(n['simulation']['extended']['laws']['log_product']['coverage'], 0)}"
        ),
    ),
    _Rule(
        "form",
        "on the one public grid of this kind only a product of logs passes 90 % at the claim",
        lambda n: _passing(_at_claim(n), 0.9) == ["log_product"],
        lambda n: f"laws above 90 %: {_names(_passing(_at_claim(n), 0.9))}",
    ),
    _Rule(
        "spread",
        "the choice of law moves the answer more than any law's own interval says",
        lambda n: _spread(_at_claim(n)) > _widest(_at_claim(n)),
        lambda n: (
            f"{100 * min(_values(_at_claim(n))):.3g} to {100 * max(_values(_at_claim(n))):.3g} % by "
            f"law; widest interval of one law {100 * _widest(_at_claim(n)):.3g} points"
        ),
    ),
    _Rule(
        "in_sample",
        "the product law fits that grid worse than its rival that cannot leave 0 to 1",
        lambda n: _aicc(n, "log_product") - _aicc(n, "logit_additive") > 10,
        lambda n: f"AICc {_aicc(n, 'log_product') - _aicc(n, 'logit_additive'):+.3g}",
    ),
    _Rule(
        "rejected",
        "every law is rejected by the scatter of that grid's repeated cells",
        lambda n: all(row["lack_of_fit_p"] < 0.05 for row in n["laws"]),
        lambda n: f"largest p {max(row['lack_of_fit_p'] for row in n['laws']):.2g}",
    ),
    _Rule(
        "aliased",
        "that grid cannot know how size and resolution act together",
        lambda n: len(n["grid"]["resolution_varies_at"]) == 1,
        lambda n: (
            f"resolution varies only at {_names(n['grid']['resolution_varies_at'])}; variance "
            f"inflation of the interaction {n['grid']['vif_interaction'] / 1e6:.2g} million"
        ),
    ),
    _Rule(
        "tuning",
        "in that grid more pixels come with shorter fine-tuning, so their effects cannot be parted",
        lambda n: len(set(n["grid"]["epochs_by_resolution"].values())) > 1,
        lambda n: ", ".join(
            f"{px} px: {epochs} epochs" for px, epochs in n["grid"]["epochs_by_resolution"].items()
        ),
    ),
    _Rule(
        "shared",
        "its seeds are no independent draws: they share training subsets",
        lambda n: n["grid"]["subset_p"] < 0.01,
        lambda n: (
            f"F{tuple(n['grid']['subset_df'])} = {n['grid']['subset_f']:.3g}, intraclass correlation "
            f"{n['grid']['subset_icc']:.2g}"
        ),
    ),
    _Rule(
        "intermediate",
        "the check at 100 to 200 billion parameters cannot decide: going from one to the other moves "
        "each law less than the laws differ",
        lambda n: max(_steps(n)) < max(_firsts(n)) - min(_firsts(n)),
        lambda n: (
            f"each law moves {100 * min(_steps(n)):.2g} to {100 * max(_steps(n)):.2g} points; the laws "
            f"differ by {100 * (max(_firsts(n)) - min(_firsts(n))):.3g}"
        ),
    ),
    _Rule(
        "interpolated",
        "4096 pixels would be interpolation, not detail",
        lambda n: n["pixels"]["share"] < 0.05,
        lambda n: (
            f"the photographs hold {n['pixels']['native_pixels'] / 1e9:.3g} billion pixels, "
            f"{_percent(n['pixels']['share'], 1)} of what 4096 x 4096 asks for"
        ),
    ),
)  # fmt: skip

# Without these the claim would have something to stand on.
DECISIVE = ("outside", "imprecise", "form", "spread")


def verdicts(numbers: Mapping) -> tuple[Verdict, ...]:
    """Judge every rule on the numbers of results/claim.json."""
    return tuple(
        Verdict(rule.name, rule.statement, bool(rule.holds(numbers)), rule.numbers(numbers))
        for rule in RULES
    )


def decision(found: Sequence[Verdict]) -> str:
    """Say in a word what the verdicts make of the claim: `not supported` or `open`."""
    holding = {verdict.name for verdict in found if verdict.holds}
    return "not supported" if set(DECISIVE) <= holding else "open"
