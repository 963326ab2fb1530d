"""`bench gpu` runs dry on a bare machine, writes as it goes, and survives what its tasks do."""

import argparse
import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mae_lib.bench import gpu
from mae_lib.bench.gpu_attention import table_rows
from mae_lib.bench.gpu_cell import committed
from mae_lib.bench.gpu_plan import HALVES, SETTINGS, STAGES, plan
from mae_lib.bench.gpu_record import LISTS, MAPPINGS
from mae_lib.bench.gpu_worker import FUNCTIONS
from mae_lib.errors import MaeError
from mae_lib.records.sealed import read_sealed
from mae_lib.report import gpu_frames, gpu_page, gpu_record
from mae_lib.study.paths import root

# What a GPU machine has not: the command must neither need nor try it.
ABSENT = (
    "pydantic",
    "altair",
    "snakemake",
    "papermill",
    "typer",
    "beartype",
    "nbformat",
    "imagehash",
)
BLOCKER = f"""
    import sys
    class Absent:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in {ABSENT}:
                raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
    sys.meta_path.insert(0, Absent())
"""


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory):
    """One dry run of everything, in processes that cannot import what a GPU machine lacks."""
    folder = tmp_path_factory.mktemp("dry")
    # Python imports it at its start, so it reaches the worker, pytest and the workers' children.
    (folder / "sitecustomize.py").write_text(textwrap.dedent(BLOCKER))
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "mae_lib", "bench", "gpu", "--dry", "--out", str(folder)]
    began = time.monotonic()
    found = subprocess.run(
        command, env=environment, cwd=root(), capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    print(found.stdout, f"{time.monotonic() - began:.1f} s")
    return folder / gpu.FILE


def test_a_dry_run_fills_every_section_without_what_a_gpu_machine_lacks(dry_run):
    value = read_sealed(dry_run)
    assert (value["kind"], value["dry"], value["complete"]) == ("bench gpu", True, True)
    assert {row["status"] for row in value["tasks"]} <= {"done", "failed"}
    # transformers may be absent; nothing else may fail.
    assert [e for e in value["errors"] if "transformers is not installed" not in e["error"]
            and "precision: fp8 needs a CUDA device" not in e["error"]] == []  # fmt: skip
    for name in (*LISTS, *MAPPINGS):
        assert value[name], name
    for row in value["throughput"]:
        assert {"model", "patch_size", "resolution", "mode", "images_per_s"} <= row.keys()
        assert row["images_per_s"] > 0
    modes = {row["mode"] for row in value["throughput"]}
    assert {"eager", "graph", "ours", "compiled", "graph + norm", "graph + attention"} <= modes
    assert {row["operation"] for row in value["kernels"]} >= {"add_norm", "crop_patches"}
    assert value["tests"]["skipped"] > 0
    assert (value["tests"]["failed"], value["tests"]["error"]) == (0, 0)
    assert value["cell"]["loss_agrees"]
    assert value["cell"]["probes_agree"]
    assert value["together"][0]["at_once"] == 2
    assert value["provenance"]["versions"]["torch"]
    assert value["profile"][0]["forward_s"] > 0


def test_the_page_shows_what_was_measured(dry_run, tmp_path, monkeypatch):
    from mae_lib.charts import kernels as charts

    value = json.loads(dry_run.read_text())
    folder = tmp_path / "benchmarks" / "h200"
    folder.mkdir(parents=True)
    monkeypatch.setenv("MAE_ROOT", str(tmp_path))
    # A dry run is no measurement, whatever folder it lies in.
    (folder / "gpu.json").write_text(dry_run.read_text())
    assert gpu_record.read_measured("h200") is None
    measured = gpu_record.Measured(
        rows={name: value[name] for name in gpu_record.LISTS},
        **{name: value[name] for name in ("provenance", "ceilings", "tests", "cell", "errors")},
        commits=(value["commit"],),
        done=frozenset(task["id"].partition("/")[0] for task in value["tasks"]),
    )
    frames = {
        name: getattr(gpu_frames, f"{name}_frame")(measured)
        for name in ("throughput", "goals", "kernels", "ablation", "stages", "attention", "fields",
                     "together")
    }  # fmt: skip
    assert all(frame is not gpu_frames.NOT_MEASURED and len(frame) for frame in frames.values())
    ablated = frames["ablation"]
    assert set(ablated.kernel) == {"all", "crop", "norm", "gelu", "loss", "attention"}
    assert (
        ((ablated.step_cut >= gpu_record.MAY_STAY) & ablated.bands_apart).eq(ablated.may_stay).all()
    )
    for chart, frame in (
        (charts.rates_by_mode, frames["throughput"]),
        (charts.step_by_stage, frames["stages"]),
        (charts.rates_together, frames["together"]),
    ):
        figure = gpu_page.drawn(measured, chart, frame, name="x")
        assert figure._repr_mimebundle_()["text/html"]
    said = gpu_page.learned(measured)
    assert "Tests on the device, in time: 0 passed, 0 failed" in said
    assert "final loss 0 % from the processor's, probes at most 0 standard errors apart" in said
    assert "**Nothing" not in gpu_record.device_sentence(measured, "h200")


def test_without_a_measurement_the_page_says_so_and_lists_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("MAE_ROOT", str(tmp_path))
    assert gpu_record.read_measured("h200") is None
    assert "Nothing on this page is measured" in gpu_record.device_sentence(None, "h200")
    assert set(gpu_record.coverage_of_run(None).measured) == {"no"}
    assert gpu_frames.throughput_frame(None) is gpu_frames.NOT_MEASURED
    assert gpu_frames.goals_frame(None).ours.isna().all()
    assert gpu_page.learned(None).startswith("- Not measured: every number of this page.")


def test_goals_and_sections_of_the_page_are_those_of_the_plan():
    assert set(gpu_record.GOALS) == {s.name for s in SETTINGS} - {"vit_hybrid-p16-r224"}
    assert gpu_record.LISTS == LISTS
    assert set(gpu_record.QUESTIONS) <= set(STAGES)
    assert set(FUNCTIONS) == set(STAGES)


def test_two_halves_hold_every_stage_and_the_most_wanted_come_first():
    assert set(HALVES[1]) | set(HALVES[2]) == set(STAGES)
    whole = [task.id for task in plan(dry=False)]
    assert len(whole) == len(set(whole))
    assert whole[0] == "provenance"
    assert set(whole) == {t.id for half in (1, 2) for t in plan(dry=False, half=half)}
    stages = list(dict.fromkeys(task.stage for task in plan(dry=False)))
    assert stages[:5] == ["provenance", "ceilings", "tests", "throughput", "peers"]


WORKER = """
    import json, os, sys, time
    from pathlib import Path
    folder = Path(sys.argv[1])
    for task in json.loads((folder / "tasks").read_text()):
        with open(folder / "lines", "a") as lines:
            say = lambda **line: print(json.dumps(line), file=lines, flush=True)
            say(begin=task["id"])
            say(found={"kernels": [{"n": 1}]}, error=None)
            if task["id"] == "kernels/crop":
                os.abort()
            if task["id"] == "kernels/norm":
                time.sleep(60)
            say(end=task["id"])
            if task["id"] == "kernels/gelu":
                sys.exit(75)
"""


def test_a_task_that_dies_or_hangs_costs_itself_alone(tmp_path, monkeypatch):
    script = tmp_path / "worker.py"
    script.write_text(textwrap.dedent(WORKER))
    popen = subprocess.Popen

    def start(command, **options):
        return popen([sys.executable, str(script), command[-1]], **options)

    monkeypatch.setattr(gpu.subprocess, "Popen", start)
    tasks = [task for task in plan(dry=True, stages=("kernels",)) if task.stage == "kernels"]
    tasks = [gpu.Task(t.stage, t.name, 0.5, t.arguments) for t in tasks]
    record = gpu.GpuRecord(tmp_path / "gpu.json", tasks, argparse.Namespace(dry=True))
    gpu._work_through(tasks, record, time.monotonic() + 30, dry=True)
    value = read_sealed(tmp_path / "gpu.json")
    assert {row["id"]: row["status"] for row in value["tasks"]} == {
        "kernels/crop": "failed", "kernels/norm": "failed", "kernels/gelu": "done",
        "kernels/loss": "done", "kernels/attention": "done",
    }  # fmt: skip
    # What was sent before the end is kept, and the file is whole though nobody closed it.
    assert len(value["kernels"]) == 5
    assert not value["complete"]
    why = {row["task"]: row["error"] for row in value["errors"]}
    assert "exit status -6" in why["kernels/crop"]
    assert why["kernels/norm"] == "timed out after 0 s"


def test_time_that_is_over_is_said_of_every_task_not_reached(tmp_path):
    tasks = plan(dry=True, stages=("kernels",))
    record = gpu.GpuRecord(tmp_path / "gpu.json", tasks, argparse.Namespace(dry=True))
    gpu._work_through(tasks, record, time.monotonic() - 1, dry=True)
    value = read_sealed(tmp_path / "gpu.json")
    assert [row["task"] for row in value["unmeasured"]] == [task.id for task in tasks]


def test_a_second_half_joins_the_first_and_another_device_does_not(tmp_path):
    def half(stage, device):
        tasks = plan(dry=True, stages=(stage,))
        record = gpu.GpuRecord(tmp_path / "gpu.json", tasks, argparse.Namespace(dry=True))
        record.take(tasks[0], {"provenance": {"device": device}}, None)
        record.take(tasks[1], {"kernels": [{"of": stage}]}, None)
        record.ended(tasks[1], None, seconds=1.0)
        return [row["of"] for row in read_sealed(tmp_path / "gpu.json")["kernels"]]

    assert half("kernels", "X") == ["kernels"]
    assert half("sdpa", "X") == ["kernels", "sdpa"]
    assert half("sdpa", "X") == ["kernels", "sdpa"]
    assert [path.name for path in tmp_path.iterdir()] == ["gpu.json"]
    assert half("profile", "Y") == ["profile"]
    assert len(list(tmp_path.iterdir())) == 2


def test_the_fastest_measured_way_of_a_shape_goes_into_the_table():
    shape = {"device": "X", "dtype": "bfloat16", "tokens": 65, "queries": 65, "head_dim": 32}
    rows = [
        shape | {"way": "flash", "seconds": 2e-5},
        shape | {"way": "triton", "seconds": 1e-5},
        shape | {"way": "cudnn", "seconds": None},
        shape | {"tokens": 13, "queries": 13, "way": "math", "seconds": None},
    ]
    assert table_rows(rows) == [shape | {"way": "triton", "seconds": 1e-5}]


def test_the_committed_cell_is_rebuilt_from_its_settings_and_proved_by_its_digest():
    rows, cell = committed("real-small")
    assert cell.digest == rows.digest.iloc[0]
    assert (cell.model, cell.resolution, cell.images) == ("vit_tiny_d6", 64, 12000)
    assert len(rows) == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "torch finds no CUDA device here; --dry runs the same code"),
        (["--stages", "kernel"], "got 'kernel'"),
        (["--minutes", "0", "--dry"], "minutes: above 0, got 0"),
        (["--images", "/nowhere", "--dry"], "images: /nowhere is no folder"),
    ],
)
def test_what_cannot_be_run_is_said_in_one_line(words, said, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "_has_cuda", lambda: False)
    parser = argparse.ArgumentParser()
    gpu.add_arguments(parser)
    with pytest.raises(MaeError) as caught:
        gpu.run(parser.parse_args(["--out", str(tmp_path), *words]))
    assert said in str(caught.value)
    assert caught.value.exit_code == 2
    assert not list(Path(tmp_path).iterdir())


def test_the_full_command_line_passes_the_words_on(monkeypatch, tmp_path):
    from mae_lib.cli import bench as command
    from mae_lib.cli.main import app

    if not any(group.name == "bench" for group in app.registered_groups):
        command.register(app)
    words = ["bench", "gpu", "--dry", "--out", str(tmp_path), "--minutes", "0"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert "minutes: above 0, got 0" in result.output
