"""What `mae bench gpu` measured, as tables: rates beside their goals and peers, kernels, stages.

Each function takes the measured value, or None where nothing was measured; it then returns a table
that says so.
"""

import pandas as pd

from mae_lib.report.gpu_record import GOALS, MAY_STAY, Measured

OURS, PEER_FILES, PEER_STEP = (
    "ours",
    "transformers, JPEG loader",
    "transformers, images on the device",
)
BASE, ALL, ALL_BUT = "graph", "graph + all", "graph + all - "
NOT_MEASURED = pd.DataFrame({"measured": ["nothing yet"], "by": ["mae bench gpu"]})
_MICRO = 1e6


def throughput_frame(found: Measured | None) -> pd.DataFrame:
    """Return a row a setting and mode: images a second with their band, and the share of the bf16
    ceiling that the counted FLOP of a step are."""
    rows = _rows(found, "throughput")
    if not rows:
        return NOT_MEASURED
    peak = found.ceilings.get("bf16_flops_per_s")
    table = [
        {
            "setting": row["setting"],
            "mode": row["mode"],
            "batch": row["batch"],
            "images_per_s": row["images_per_s"],
            "p20": row.get("images_per_s_p20"),
            "p80": row.get("images_per_s_p80"),
            "share_of_peak": _share(row, peak),
        }
        for row in rows
        if not row["mode"].startswith(f"{BASE} + ")
    ]
    return pd.DataFrame(table)


def goals_frame(found: Measured | None) -> pd.DataFrame:
    """Return a row a setting of the plan: our rate beside the goal, the ideal (all FLOP at the
    measured ceiling) and the peer's own loop, with the factors that were asked for."""
    rates = {(row["setting"], row["mode"]): row for row in _rows(found, "throughput")}
    peak = found.ceilings.get("bf16_flops_per_s") if found else None
    table = []
    for name, goal in GOALS.items():
        ours, peer = rates.get((name, OURS)), rates.get((name, PEER_FILES))
        step = rates.get((name, PEER_STEP))
        row = {"setting": name, "goal": goal.images_per_s, "ours": None, "ideal": None}
        row |= {"peer": None, "times_peer": None, "times_asked": goal.times_peer}
        row |= {"times_peers_step": None}
        if ours:
            row |= {"ours": ours["images_per_s"]}
            row |= {"ideal": peak / ours["flops_per_image"] if peak else None}
        if ours and peer:
            row |= {"peer": peer["images_per_s"]}
            row |= {"times_peer": ours["images_per_s"] / peer["images_per_s"]}
        if ours and step:
            row |= {"times_peers_step": ours["images_per_s"] / step["images_per_s"]}
        table.append(row)
    return pd.DataFrame(table)


def kernels_frame(found: Measured | None) -> pd.DataFrame:
    """Return a row an operation and size: microseconds of both ways, and how near the kernel comes
    to the ceiling (the longer of bytes at the measured bandwidth and FLOP at the measured peak)."""
    rows = _rows(found, "kernels")
    if not rows:
        return NOT_MEASURED
    table = []
    for row in rows:
        least = _least_seconds(row, found.ceilings)
        reference, kernel = row.get("reference_seconds"), row.get("triton_seconds")
        table.append(
            {
                "operation": row["operation"],
                "size": row["size"],
                "passes": row["passes"],
                "reference_us": _scaled(reference),
                "triton_us": _scaled(kernel),
                "times_faster": reference / kernel if reference and kernel else None,
                "share_of_ceiling": least / kernel if least and kernel else None,
            }
        )
    return pd.DataFrame(table)


def ablation_frame(found: Measured | None) -> pd.DataFrame:
    """Return a row a setting and kernel: the share of the graph's step that it takes away when it is
    added to no other kernel, or what leaving it out of all of them takes away from theirs; and
    whether that lets it stay."""
    rows = [row for row in _rows(found, "throughput") if "ablation" in row["task"]]
    timed = {(row["setting"], row["mode"]): row for row in rows}
    table = []
    for (setting, mode), row in timed.items():
        if mode == BASE:
            continue
        if mode.startswith(ALL_BUT):
            kernel, against = mode.removeprefix(ALL_BUT), "left out of all"
            before, after = row, timed.get((setting, ALL))
        else:
            kernel, against = mode.removeprefix(f"{BASE} + "), "added to none"
            before, after = timed.get((setting, BASE)), row
        if before is None or after is None:
            continue
        cut = 1 - _an_image(after, "seconds") / _an_image(before, "seconds")
        apart = _an_image(after, "seconds_p80") < _an_image(before, "seconds_p20")
        table.append(
            {
                "setting": setting,
                "kernel": kernel,
                "measured_as": against,
                "step_cut": cut,
                "bands_apart": apart,
                "may_stay": cut >= MAY_STAY and apart,
            }
        )
    return pd.DataFrame(table) if table else NOT_MEASURED


def _an_image(row: dict, name: str) -> float:
    return row[name] / row["batch"]


def stages_frame(found: Measured | None) -> pd.DataFrame:
    """Return a row a setting and mode: milliseconds of a step and its stages, and its launches."""
    rows = _rows(found, "profile")
    if not rows:
        return NOT_MEASURED
    names = ("step_s", "data_s", "forward_s", "backward_s", "optimizer_s", "kernel_s")
    return pd.DataFrame(
        [
            {"setting": row["setting"], "mode": row["mode"]}
            | {n.removesuffix("_s") + "_ms": _scaled(row.get(n), 1e3) for n in names}
            | {"launches": row["launches"], "kernels": row["kernels"]}
            for row in rows
        ]
    )


def attention_frame(found: Measured | None) -> pd.DataFrame:
    """Return a row a shape: microseconds of every way, forward and backward, and the fastest."""
    rows = _rows(found, "sdpa")
    if not rows:
        return NOT_MEASURED
    shapes: dict[tuple, dict] = {}
    for row in rows:
        key = (row["size"], row["tokens"], row["queries"], row["head_dim"])
        named = dict(zip(("size", "tokens", "queries", "head_dim"), key, strict=True))
        shapes.setdefault(key, named)[row["way"]] = _scaled(row.get("seconds"))
    ways = list(dict.fromkeys(row["way"] for row in rows))
    for shape in shapes.values():
        timed = {way: shape[way] for way in ways if shape.get(way) is not None}
        shape["fastest"] = min(timed, key=timed.get) if timed else None
    return pd.DataFrame(list(shapes.values()))


def fields_frame(found: Measured | None) -> pd.DataFrame:
    """Return a row a setting and change of the recipe: speed and loss, beside the recipe's own."""
    rows = _rows(found, "fields")
    if not rows:
        return NOT_MEASURED
    own = {row["setting"]: row for row in rows if not row["changed"]}
    table = []
    for row in rows:
        said = ", ".join(f"{k}: {v}" for k, v in row["changed"].items()) or "as it is (bf16)"
        first = own.get(row["setting"])
        table.append(
            {
                "setting": row["setting"],
                "recipe": said,
                "images_per_s": row["images_per_s"],
                "times_own": row["images_per_s"] / first["images_per_s"] if first else None,
                "loss": row["loss"],
                "loss_apart": row["loss"] - first["loss"] if first else None,
                "steps": row["steps"],
            }
        )
    return pd.DataFrame(table)


def together_frame(found: Measured | None) -> pd.DataFrame:
    """Return a row a small setting and number of cells at once: images a second in all."""
    rows = _rows(found, "together")
    if not rows:
        return NOT_MEASURED
    alone = {row["setting"]: row["images_per_s"] for row in rows if row["at_once"] == 1}
    return pd.DataFrame(
        [
            {key: row[key] for key in ("setting", "batch", "at_once", "images_per_s")}
            | {
                "times_one": row["images_per_s"] / alone[row["setting"]]
                if row["setting"] in alone
                else None
            }
            for row in rows
        ]
    )


def _rows(found: Measured | None, section: str) -> list[dict]:
    return found.rows[section] if found is not None else []


def _share(row: dict, peak: float | None) -> float | None:
    if not peak or "flops_per_image" not in row:
        return None
    return row["images_per_s"] * row["flops_per_image"] / peak


def _least_seconds(row: dict, ceilings: dict) -> float | None:
    copy, peak = ceilings.get("copy_bytes_per_s"), ceilings.get("bf16_flops_per_s")
    if not copy or not peak:
        return None
    return max(row["bytes_moved"] / copy, row["flops"] / peak)


def _scaled(seconds: float | None, by: float = _MICRO) -> float | None:
    return None if seconds is None else by * seconds
