"""What the page of the claim is filled with: every number from results/claim.json."""

from collections.abc import Mapping

import pandas as pd

from mae_lib.charts.extrapolation import factor_map, isoquants
from mae_lib.charts.frames import table_html
from mae_lib.charts.laws import prediction_fan
from mae_lib.charts.renderer import Figure
from mae_lib.report.decide import NATIVE, grids_folder, read_claim
from mae_lib.report.heldout_frames import stacked_sentence
from mae_lib.report.law_curves import design_frame, isoquant_frame
from mae_lib.scaling.claim_evidence import LAWS, TARGETS, grid_table
from mae_lib.scaling.fit import Fit, fit_laws
from mae_lib.scaling.table import Table

TARGET_NAMES = {"own": "the abstract's target", "claim": "the claim"}
LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9)
DESIGN_NAMES = {
    "printed": "226, 256 px; one size",
    "printed_sizes": "226, 256 px; three sizes",
    "extended": "64 to 512 px; four sizes",
}
# Cited: what the paper says, where it says two things, and how this study reads it.
UNDECLARED = (
    ("the unit of resolution", "pixels per inch", "pixels a side of a square image"),
    ("how many images", "2,000 in one place, 200,000 in another", "200,000, which its shares need"),
    ("the mixture", "100,000 / 63,000 / 10,000 / 27,000 images", "as printed, and not to be had"),
    ("226 pixels", "a resolution of the design", "no multiple of a patch: 224 reach the encoder"),
    ("the model's size", "no parameter of the printed law", "a third factor of every rival law"),
    ("length of training, learning rate", "not stated", "those of the masked auto-encoder's paper"),
    ("which precision", "one number a model", "top-1 on ImageNet; top-5 beside it"),
    ("human level", "90 %", "a level of top-1; people are usually measured in top-5"),
)  # fmt: skip


def orhan_fits(*, bootstrap: int = 0) -> tuple[Fit, ...]:
    """Fit the laws of the claim to the committed public grid."""
    return fit_laws(_grid(), LAWS, bootstrap=bootstrap)


def _grid() -> Table:
    return grid_table(pd.read_csv(grids_folder() / "orhan2023.csv"))


def claim_substitutions() -> dict[str, str]:
    """Return the names that book/claim.md uses."""
    n = read_claim()
    return _sentences(n) | _tables(n) | _figures(n)


def _sentences(n: Mapping) -> dict[str, str]:
    design, pixels, grid = n["design"], n["pixels"], n["grid"]
    held = [v for v in n["verdicts"] if v["holds"]]
    claim = [r for r in n["answers"] if r["target"] == "claim"]
    low, high = min(claim, key=_value), max(claim, key=_value)
    return {
        "decided": f"**{n['decision'].capitalize()}**: {len(held)} of {len(n['verdicts'])} statements "
        f"against it hold. The laws fitted to the one public grid of this kind predict "
        f"{100 * low['value']:.3g} % ({low['law']}) to {100 * high['value']:.3g} % ({high['law']}) at "
        f"the claimed point, {claim[0]['rho_max']:.2g} ranges outside that grid, and only a product "
        "of logs passes 90 %.",
        "decided_short": f"{n['decision']}, by {len(held)} of {len(n['verdicts'])} computed verdicts.",
        "decided_rho": f"{design['rho']:.3g}",
        "decided_low": str(design["low"]),
        "decided_high": str(design["high"]),
        "decided_target": f"{design['target']:.0f}",
        "decided_se": f"{design['se_factor']:.3g}",
        "decided_noise": f"{design['noise_points']:.3g}",
        "decided_runs": str(design["runs"]),
        "decided_half": f"{design['half_width']:.3g}",
        "decided_runs2": f"{design['runs_for_2']:,}",
        "decided_se_wide": f"{design['se_factor_64_512']:.3g}",
        "decided_fewer": f"{design['fewer_runs_64_512']:.3g}",
        "decided_grid_runs": str(grid["rows"]),
        "decided_stacked": "\n".join(
            stacked_sentence(_grid(), row | {"target": TARGET_NAMES[row["target"]]})
            for row in n["stacked"]
        ),
        "decided_confounds": _confounds(grid),
        "decided_top5": _top5(n),
        "decided_pixels": f"{pixels['images']:,} photographs hold "
        f"{pixels['native_pixels'] / 1e9:.3g} billion native pixels, {100 * pixels['share']:.1f} % of "
        f"what {design['target']:.0f} pixels a side ask for. Above {pixels['largest_native_side']} "
        "pixels resolution measures tokens and compute, not information.",
    }


def _tables(n: Mapping) -> dict[str, str]:
    fits = {row["law"]: row for row in n["laws"]}
    needed = {row["law"]: row["n_params"] for row in n["needed"]}
    by = {(r["target"], r["law"]): r for r in n["answers"]}
    answers = [
        {
            "law": law,
            "RMSE (points)": fits[law]["rmse_points"],
            "AICc": fits[law]["aicc"],
            "lack of fit p": fits[law]["lack_of_fit_p"],
            "abstract's target": _interval(by["own", law]),
            "the claim": _interval(by["claim", law]),
            "parameters for 90 %": _reached(needed[law]),
        }
        for law in fits
    ]
    check = n["intermediate"]
    steps = [
        {"law": row["law"]}
        | {f"at {check['first_n'] / 1e9:.0f} billion": _percent(row["first"])}
        | {f"at {check['second_n'] / 1e9:.0f} billion": _percent(row["second"])}
        | {"change (points)": 100 * (row["second"] - row["first"])}
        for row in check["by_law"]
    ]
    verdicts = [
        {
            "statement": v["statement"],
            "holds": "yes" if v["holds"] else "no",
            "numbers": v["numbers"],
        }
        for v in n["verdicts"]
    ]
    undeclared = pd.DataFrame(UNDECLARED, columns=["what", "the paper (cited)", "read here as"])
    return {
        "decided_verdicts": table_html(pd.DataFrame(verdicts), prose=True),
        "decided_answers": table_html(pd.DataFrame(answers)),
        "decided_steps": table_html(pd.DataFrame(steps)),
        "decided_simulation": table_html(_simulation(n["simulation"])),
        "decided_native": table_html(_native(n["pixels"])),
        "decided_undeclared": table_html(undeclared, prose=True),
    }


def _figures(n: Mapping) -> dict[str, str]:
    fits, answers = orhan_fits(), pd.DataFrame(n["answers"])
    answers["target"] = answers["target"].map(TARGET_NAMES)
    table = fits[0].table
    until = (1e15, TARGETS["claim"]["res"] * 1.25)
    lines = isoquant_frame(fits, TARGETS["claim"], ("n_params", "res"), LEVELS, until=until)
    runs = table.frame[["n_params", "res"]].set_axis(["x", "y"], axis=1)
    target = (TARGETS["claim"]["n_params"], TARGETS["claim"]["res"])
    names = ("Parameters (N)", "Resolution (pixels a side)")
    cells = design_frame(table)
    shown = set(lines.law)
    missing = ", ".join(law for law in LAWS if law not in shown)
    return {
        "decided_missing": f"{missing} has no panel: it reaches {100 * LEVELS[0]:.0f} % nowhere here."
        if missing
        else "All laws reach the lowest line.",
        "decided_fan": _html(prediction_fan(answers), answers.drop(columns="rho"), "claim-answers"),
        "decided_isoquants": _html(
            isoquants(lines, runs, target, names=names), lines, "claim-isoquants"
        ),
        "decided_design": _html(
            factor_map(cells, across="hours", factors=table.factors), cells, "claim-design"
        ),
    }


def _html(chart, data: pd.DataFrame, name: str) -> str:
    return Figure(chart, data, name)._repr_mimebundle_()["text/html"]


def _simulation(found: Mapping) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "design": DESIGN_NAMES[name],
                "runs": part["runs"],
                "law": law,
                "truth": _percent(part["truth"]),
                "mean answer": _percent(row["mean"]),
                "95 % of answers": f"{_percent(row['low'])} to {_percent(row['high'])}",
                "above 90 %": f"{100 * row['above_90']:.0f} %",
                "coverage": f"{100 * row['coverage']:.0f} %",
            }
            for name, part in ((key, found[key]) for key in DESIGN_NAMES)
            for law, row in part["laws"].items()
        ]
    )


def _native(pixels: Mapping) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"source": name, "native size (cited)": f"{NATIVE[name][0]} x {NATIVE[name][1]}",
             "upsampling to 4096": f"{factor:.3g} x"}
            for name, factor in pixels["upsampling"].items()
        ]
    )  # fmt: skip


def _confounds(grid: Mapping) -> str:
    epochs = ", ".join(f"{n} at {px} pixels" for px, n in grid["epochs_by_resolution"].items())
    last = ", ".join(f"{text} at {px}" for px, text in grid["best_at_last_epoch"].items())
    return "\n".join(
        [
            f"- Measured: resolution varies only at {', '.join(grid['resolution_varies_at'])}, so how "
            "size and resolution act together is aliased; the variance of that term is inflated "
            f"{grid['vif_interaction'] / 1e6:.2g} million times.",
            f"- Measured: fine-tuning epochs differ by resolution ({epochs}), and runs are best at "
            f"their last epoch in {last}: more pixels and shorter tuning cannot be told apart.",
            f"- Measured: from {grid['step']} pixels the gain is {grid['step_gain']:.2g} points "
            f"[{grid['step_low']:.2g}, {grid['step_high']:.2g}], so there are two levels, not three.",
            f"- Measured: {grid['subsets']} training subsets are shared by {grid['models']} models each; "
            f"F{tuple(grid['subset_df'])} = {grid['subset_f']:.3g}, intraclass correlation "
            f"{grid['subset_icc']:.2g}. Subsets are resampled here, not runs.",
            f"- Measured: repeated cells scatter by {grid['noise_points']:.3g} points on "
            f"{grid['noise_df']} degrees of freedom.",
        ]
    )


def _top5(n: Mapping) -> str:
    rows = {(r["target"], r["law"]): r["value"] for r in n["top5"]}
    own = {law: rows["own", law] for target, law in rows if target == "own"}
    claim = {law: rows["claim", law] for target, law in rows if target == "claim"}
    over = [law for law, value in claim.items() if value > 1]
    passing = [law for law, value in own.items() if value > 0.9]
    return (
        f"Predicted for top-5 at the abstract's own target: {_percent(min(own.values()))} to "
        f"{_percent(max(own.values()))}; above 90 %: {', '.join(passing) or 'no law'}. At the claim "
        f"{', '.join(over) or 'no law'} would pass 100 %, which no accuracy can."
    )


def _interval(row: Mapping) -> str:
    return f"{_percent(row['value'])} [{100 * row['low']:.3g}, {100 * row['high']:.3g}]"


def _percent(value: float) -> str:
    return f"{100 * value:.3g} %"


def _reached(value: float | None) -> str:
    return "not below 1e24" if value is None else f"{value:.2g}"


def _value(row: Mapping) -> float:
    return row["value"]
