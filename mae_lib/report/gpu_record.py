"""The published measurements of `mae bench gpu`: files of one folder of benchmarks/, as one."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mae_lib.errors import RecordError
from mae_lib.records.sealed import read_sealed
from mae_lib.study.paths import root, safe_name

LISTS = ("throughput", "kernels", "sdpa", "profile", "fields", "together")
# A kernel stays when it takes this share off a real step, bands apart.
MAY_STAY = 0.03
COMMAND = "python -m mae_lib bench gpu --out DIR"


@dataclass(frozen=True)
class Goal:
    """Images a second on one H200 with data included, and times the peer's own loop (None: not
    asked for)."""

    images_per_s: float
    times_peer: float | None = None


# Mask ratio 0.8, bf16, batch as fits. Set by counting FLOP and bytes before anything was measured.
GOALS: dict[str, Goal] = {
    "vit_tiny-p4-r32": Goal(300_000),
    "vit_small-p8-r64": Goal(110_000),
    "vit_small-p16-r64-512x8": Goal(100_000, times_peer=10),
    "vit_base-p16-r224": Goal(7_000, times_peer=4),
    "vit_large-p16-r256": Goal(3_000, times_peer=3),
}
# What a whole run answers, section by section.
QUESTIONS: dict[str, str] = {
    "ceilings": "what a copy and a bf16 product reach on this device",
    "tests": "whether every test marked gpu passes",
    "throughput": "images a second of ours, uncaptured, compiled, and of Hugging Face's loop",
    "kernels": "each operation beside its reference and the ceiling",
    "ablation": "what each kernel takes off a real step",
    "sdpa": "which attention is fastest by shape",
    "profile": "where a step's time goes, and how many launches it is",
    "fields": "what precision, residual stream and crops do to speed and loss",
    "together": "small cells at once on one device",
    "cell": "whether a real cell trained there ends where the processor's ended",
}


@dataclass(frozen=True)
class Measured:
    """Rows by section, and the mappings of the files, later files over earlier ones."""

    rows: dict[str, list[dict]]
    provenance: dict
    ceilings: dict
    tests: dict
    cell: dict
    errors: list[dict]
    commits: tuple[str, ...]
    done: frozenset[str]


def read_measured(device: str) -> Measured | None:
    """Read benchmarks/<device>/*.json; None where no file holds a real run.

    Raises: RecordError for a damaged file, StudyError for a name that is none.
    """
    folder: Path = root() / "benchmarks" / safe_name(device, "device")
    files = [read_sealed(path) for path in sorted(folder.glob("*.json"))]
    found = [value for value in files if value.get("kind") == "bench gpu" and not value["dry"]]
    if not found:
        return None
    names = {value["provenance"].get("device", "unknown") for value in found}
    if len(names) > 1:
        raise RecordError(
            f"{folder}: files of one device, got {', '.join(sorted(names))}; move one elsewhere"
        )
    tasks = [task for value in found for task in value["tasks"] if task["status"] == "done"]
    return Measured(
        rows={name: [row for value in found for row in value[name]] for name in LISTS},
        **{
            name: {k: v for value in found for k, v in value[name].items()}
            for name in ("provenance", "ceilings", "tests", "cell")
        },
        errors=[row for value in found for row in value["errors"]],
        commits=tuple(dict.fromkeys(value["commit"] for value in found)),
        done=frozenset(task["id"].partition("/")[0] for task in tasks),
    )


def coverage_of_run(found: Measured | None) -> pd.DataFrame:
    """Return a row a section: what it answers, and whether it was measured."""
    done = found.done if found is not None else frozenset()
    return pd.DataFrame(
        [
            {"section": name, "answers": question, "measured": "yes" if name in done else "no"}
            for name, question in QUESTIONS.items()
        ]
    )


def device_sentence(found: Measured | None, device: str) -> str:
    """Say what was measured on what, or that nothing was and how to."""
    if found is None:
        return (
            f"**Nothing on this page is measured.** `benchmarks/{device}/` holds no run: no GPU was "
            "at hand while this was written. Kernels and steps are tested on a CPU, through "
            f"Triton's interpreter and plain references. On a CUDA machine `{COMMAND}` measures "
            f"all of it; its `gpu.json` goes to `benchmarks/{device}/`."
        )
    about, libraries = found.provenance, found.provenance["versions"]
    return (
        f"Measured on one {about['device']}, torch {libraries['torch']}, triton "
        f"{libraries.get('triton', 'none')}, CUDA {about.get('cuda')}, at commit "
        f"{', '.join(found.commits)}."
    )


def tests_sentence(found: Measured | None) -> str:
    """Say how the tests on the device ended."""
    if found is None or not found.tests:
        return "- Not run on a GPU: the tests marked gpu."
    tests = found.tests
    return (
        f"- Tests on the device, {tests.get('ended', '')}: {tests.get('passed', 0)} passed, "
        f"{tests.get('failed', 0)} failed, {tests.get('error', 0)} could not start, "
        f"{tests.get('skipped', 0)} skipped."
    )


def cell_sentence(found: Measured | None) -> str:
    """Say how a real cell trained on the device compares with the processor's."""
    if found is None or not found.cell.get("cell"):
        return "- Not trained on a GPU: a cell of a real study."
    cell = found.cell
    apart = max((abs(p["standard_errors_apart"]) for p in cell["probes"]), default=0.0)
    loss = "no finite loss" if cell["loss_apart"] is None else f"{100 * cell['loss_apart']:.2g} %"
    return (
        f"- {cell['cell']} on the device: final loss {loss} from the processor's, probes at most "
        f"{apart:.2g} standard errors apart, {cell['wall_s']:.0f} s against "
        f"{cell['committed_wall_s']:.0f} s."
    )


def errors_sentence(found: Measured | None) -> str:
    """Name what failed while measuring."""
    if found is None or not found.errors:
        return "- No task failed." if found is not None else "- No task was run."
    told = "; ".join(f"{row['task']}: {row['error']}" for row in found.errors[:5])
    more = f" (+{len(found.errors) - 5} more)" if len(found.errors) > 5 else ""
    return f"- Failed while measuring: {told}{more}."
