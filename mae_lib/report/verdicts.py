"""Sentences that results decide: they stay true when the numbers change."""

from collections.abc import Sequence

import pandas as pd

from mae_lib.scaling.fit import Fit

FACTOR_NAMES = {
    "images": "more images",
    "params_encoder": "a larger model",
    "resolution": "more pixels",
}


def gate_sentence(verdicts: pd.DataFrame) -> str:
    """Say under which protocols the largest cell beats both baselines by two standard errors."""
    if verdicts.empty:
        return "No cell is complete, so nothing is measured yet."
    names = (verdicts.task + " (" + verdicts.protocol + ")").tolist()
    passed = [n for n, ok in zip(names, verdicts.passes, strict=True) if ok]
    failed = [n for n, ok in zip(names, verdicts.passes, strict=True) if not ok]
    if not failed:
        return (
            "Measured: the largest cell beats raw pixels and random weights by two standard errors "
            f"under every protocol: {', '.join(passed)}."
        )
    under = f"under {', '.join(passed)}, and does not " if passed else "under no protocol: not "
    return (
        "Measured: the largest cell beats the better of raw pixels and random weights by two "
        f"standard errors {under}under {', '.join(failed)}."
    )


def effects_sentence(effects: pd.DataFrame) -> str:
    """Say which factors help, hurt, or are not settled by these cells."""
    parts = []
    for row in effects.itertuples():
        name = FACTOR_NAMES.get(row.factor, row.factor)
        interval = f"{100 * row.change:+.2f} points [{100 * row.low:+.2g}, {100 * row.high:+.2g}]"
        parts.append(f"{name} {_verb(row)}, {interval} over {row.pairs} pairs of cells")
    return "Measured, from the lowest to the highest level: " + "; ".join(parts) + "."


def effects_in_short(effects: pd.DataFrame) -> str:
    """Say in a clause which factors help, hurt, or are not settled, with the change in points."""
    parts = [
        f"{FACTOR_NAMES.get(row.factor, row.factor)} {_verb(row)} ({100 * row.change:+.2g} points)"
        for row in effects.itertuples()
    ]
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def holds_sentence(effects: pd.DataFrame) -> str:
    """Answer in one sentence whether every factor helps."""
    helping = (effects.verdict == "helps").sum()
    answer = {len(effects): "Yes", 0: "No"}.get(helping, "In part")
    return f"**{answer}**: {effects_in_short(effects)}."


def _verb(row) -> str:
    one = row.factor == "params_encoder"
    return {
        "helps": "helps" if one else "help",
        "hurts": "hurts" if one else "hurt",
    }.get(row.verdict, "is not settled" if one else "are not settled")


def laws_sentences(fits: Sequence[Fit]) -> str:
    """Say in bullets which law fits best, what the printed one leaves out, what is not known."""
    best = min(fits, key=lambda fit: fit.rmse)
    spread = max(fit.rmse for fit in fits) / max(best.rmse, 1e-12)
    few = sorted({name for fit in fits for name in fit.identifiability["too_few_levels"]})
    bullets = [
        f"- Fitted: the smallest residual is {best.law.name}'s, {100 * best.rmse:.2g} points over "
        f"{best.n} cells; the largest among the laws is {spread:.2g} times that.",
    ]
    if printed := [fit for fit in fits if fit.law.name == "printed"]:
        fit = printed[0]
        bullets.append(
            f"- The law as printed leaves {100 * fit.rmse:.2g} points: it has no parameter for "
            f"the model's size, and {fit.k} of its 4 parameters can be known."
        )
    if few:
        bullets.append(
            f"- {', '.join(few)}: two levels give a slope and no shape, so no cell here can refute "
            "a straight line in that factor."
        )
    return "\n".join(bullets)


def fits_sentence(fits: Sequence[Fit]) -> str:
    """Say how close the laws are in sample, and which of them the scatter of repeated cells rejects."""
    logs = fits[0].table.kind == "loss" or fits[0].objective in ("log", "huber")
    scale, unit = (1, "") if logs else (100, " points")
    best, worst = (pick(fits, key=lambda fit: fit.rmse) for pick in (min, max))
    text = (
        f"- Fitted: {len(fits)} laws leave {scale * best.rmse:.3g}{unit} ({best.law.name}) to "
        f"{scale * worst.rmse:.3g}{unit} ({worst.law.name}) over {best.n} rows of {best.table.response}"
    )
    tested = [fit for fit in fits if fit.lack_of_fit]
    if not tested:
        return f"{text}; no cell is repeated, so no form can be rejected."
    kept = [fit.law.name for fit in tested if fit.lack_of_fit["p"] >= 0.05]
    which = f"all but {', '.join(kept)}" if kept else "every one of them"
    return f"{text}; repeated cells reject {which} (lack of fit, 5 %)."


def chinchilla_sentence(refits: dict) -> str:
    """Say how the published values stand to the true minimum, and what moves the data exponent."""
    parts = {r["part"]: r for r in refits["parts"] if r["grid"].startswith("chinchilla")}
    here = parts["240 points, Huber"]
    cited = refits["published"][0]
    above = 100 * (cited["huber"] / here["value"] - 1)
    powers = {part: row["natural"]["exponent_n_tokens"] for part, row in parts.items()}
    low, high = here["exponents"]["exponent_n_tokens"]
    return (
        f"- Fitted: the minimum of the Chinchilla objective is {here['value']:.9f}; the parameters "
        f"that arXiv 2404.10102 prints lie {above:.2g} % above it. The exponent of data is "
        f"{powers['240 points, Huber']:.3f} [{low:.3f}, {high:.3f}] there and goes up to "
        f"{max(powers.values()):.3f} with the objective and with five points: the choice moves it "
        "beyond its interval."
    )


def extrapolation_sentences(predictions: pd.DataFrame) -> str:
    """Say in bullets, target by target, what the laws answer and whether that may be believed."""
    bullets = []
    for target, part in predictions.groupby("target", sort=False):
        low, high = part.value.min(), part.value.max()
        lowest, highest = part.loc[part.value.idxmin()], part.loc[part.value.idxmax()]
        impossible = part.loc[~part.inside_unit_interval, "law"].tolist()
        text = (
            f"- Predicted at {target}: from {100 * low:.3g} % ({lowest.law}) to {100 * high:.3g} % "
            f"({highest.law}), at {part.rho_max.max():.2g} ranges beyond the cells."
        )
        if impossible:
            text += f" {', '.join(impossible)} cannot be right there: no accuracy is outside 0 to 100 %."
        if not part.calibrated.all():
            text += " That is outside the calibrated range: the spread is the answer, not a number."
        bullets.append(text)
    return "\n".join(bullets)
