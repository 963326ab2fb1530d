"""A small study through the very commands of the README: run, cut, resumed, verified, damaged."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
import yaml

from mae_lib.report.jobs import all_jobs, cell_parameters, job
from mae_lib.study.load import cell_from_namespace, load_study
from mae_lib.study.paths import RunPaths, root

pytestmark = pytest.mark.pocket


def mae(*arguments, runs, timeout=600, **env):
    command = [sys.executable, "-m", "mae_lib", *map(str, arguments)]
    env = os.environ | {"MAE_RUNS": str(runs), "COLUMNS": "200"} | env
    return subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=timeout, check=False, cwd=root()
    )


def small_study(folder: Path, source: str = "pocket", **grid) -> Path:
    content = yaml.safe_load((root() / "studies" / f"{source}.yaml").read_text())
    content["name"] = "small"
    content["recipe"] |= {"steps": 12, "batch_size": 16, "warmup_steps": 2}
    content["grid"] |= grid
    if source == "pocket":
        content["data"] |= {"total": 200, "size": 32}
        content["data"]["tasks"][0] |= {"train_images": 100, "test_images": 100}
    else:
        content["data"]["total"] = 1000
        content["evaluation"] = {"random_seeds": 1, "folds": 2}
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study that was killed while it ran and then finished, in a folder with a space."""
    folder = tmp_path_factory.mktemp("a b é")
    study = small_study(folder, images=[40, 200], models=["vit_pico"], resolutions=[16, 32])
    runs = folder / "runs"
    command = [sys.executable, "-m", "mae_lib", "study", "run", str(study)]
    first = subprocess.Popen(
        command, env=os.environ | {"MAE_RUNS": str(runs)}, cwd=root(), stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 240
    while not list(runs.glob("small/cells/*/record.json")) and time.monotonic() < deadline:
        time.sleep(0.2)
    first.send_signal(signal.SIGKILL)
    first.wait()
    kept = {p: p.stat().st_mtime_ns for p in runs.glob("small/cells/*/record.json")}
    assert kept
    second = mae("study", "run", study, runs=runs)
    assert second.returncode == 0, second.stdout + second.stderr
    assert all(p.stat().st_mtime_ns == then for p, then in kept.items())
    return study, runs, second


def test_a_killed_study_goes_on_and_ends_with_the_table_the_laws_and_the_book(finished):
    _, runs, second = finished
    table = pd.read_csv(runs / "small" / "runs.csv")
    assert (table.status == "complete").all()
    assert table.cell.nunique() == 4
    assert "log_product" in second.stdout
    index = second.stdout.split("book: ")[-1].strip()
    assert Path(index).is_file()
    for name in ("fit.json", "predictions.csv"):
        assert (runs / "small" / name).exists()


def test_a_second_run_redoes_nothing_and_is_quick(finished):
    study, runs, _ = finished
    before = {p: p.stat().st_mtime_ns for p in runs.rglob("*.ipynb")}
    started = time.monotonic()
    again = mae("study", "run", study, runs=runs)
    assert again.returncode == 0
    assert time.monotonic() - started < 20
    assert before == {p: p.stat().st_mtime_ns for p in runs.rglob("*.ipynb")}


def test_status_and_verify_say_that_all_is_done_and_whole(finished):
    study, runs, _ = finished
    assert "4 of 4 cells complete" in mae("study", "status", study, runs=runs).stdout
    assert "each as it was written" in mae("study", "verify", study, runs=runs).stdout


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_every_kind_of_damage_is_found_and_made_anew(finished):
    study, runs, _ = finished
    folder = runs / "small"
    kinds = (
        "store/*/manifest.json", "store/*/images.npy", "cells/*/cell.json", "cells/*/training.json",
        "cells/*/record.json", "cells/*/metrics.jsonl", "baselines/*.json", "runs.csv", "fit.json",
        "predictions.csv", "notebooks/05_fit_law.ipynb", "book/html/book/index.html",
    )  # fmt: skip
    # Weights of another cell, of which nothing else is damaged.
    weights = sorted(folder.glob("cells/*/weights.safetensors"))[-1]
    whole = weights.read_bytes()
    for path in (*(sorted(folder.glob(kind))[0] for kind in kinds), weights):
        flipped(path)
    found = mae("study", "verify", study, runs=runs)
    assert found.returncode == 4
    damaged = found.stdout.splitlines()
    assert any(str(weights) in line for line in damaged)
    # The book stands or falls as a whole, and notebook 06 no longer follows from a damaged fit.
    assert len(kinds) + 1 <= len(damaged) <= len(kinds) + 9, found.stdout
    repaired = mae("study", "run", study, runs=runs)
    assert repaired.returncode == 0, repaired.stderr
    assert f"{weights}" in repaired.stderr
    assert "set aside, it is made anew" in repaired.stderr
    assert weights.read_bytes() == whole
    assert list(weights.parent.glob("weights.safetensors.corrupt*"))
    assert "each as it was written" in mae("study", "verify", study, runs=runs).stdout


def test_a_run_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    found = mae("study", "run", "pocket", runs=tmp_path / "file" / "runs")
    assert found.returncode == 2
    assert len(found.stderr.strip().splitlines()) == 1
    assert "cannot be written" in found.stderr


def test_a_run_told_to_end_says_so_leaves_no_orphan_and_goes_on_to_equal_weights(
    finished, tmp_path
):
    study, others, _ = finished
    runs = tmp_path / "runs"
    command = [sys.executable, "-m", "mae_lib", "study", "run", str(study)]
    env = os.environ | {"MAE_RUNS": str(runs)}
    first = subprocess.Popen(command, env=env, cwd=root(), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (begun := list(runs.glob("small/cells/*/cell.json"))) and time.monotonic() < deadline:
        time.sleep(0.1)
    first.send_signal(signal.SIGTERM)
    said = first.communicate(timeout=60)[1]
    assert first.returncode == 143
    assert "the same command goes on from here" in said
    deadline = time.monotonic() + 30
    while (left := _processes_of(runs)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left
    cell = begun[0].parent.name
    states = mae("study", "status", study, runs=runs).stdout
    (state,) = re.findall(rf"^{cell}  (\w+)", states, re.MULTILINE)
    assert state in ("interrupted", "trained")
    assert "training" not in states
    done = mae("study", "run", study, "--cells", cell, runs=runs)
    assert done.returncode == 0, done.stderr
    one, two = (f / "small" / "cells" / cell / "weights.safetensors" for f in (runs, others))
    assert one.read_bytes() == two.read_bytes()


def _processes_of(runs: Path) -> list[str]:
    """Return the command lines of processes that run in a folder of runs (Linux)."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(runs) in (process / "environ").read_bytes().decode(errors="replace"):
                found.append((process / "cmdline").read_bytes().decode(errors="replace"))
    return found


@pytest.mark.parametrize(
    ("arguments", "says", "code"),
    [
        (("study", "run", "pockt"), "did you mean 'pocket'", 2),
        (
            (
                "fit",
                "results/grids/orhan2023.csv",
                "--response",
                "acc1_max",
                "--factors",
                "res,res",
            ),
            "factors",
            2,
        ),
        (("study", "run", "paper"), "priced and not run", 2),
        (("study", "run", "pocket", "--cells", "no"), "no such cell", 2),
        (("study", "run", "pocket", "--out", "../x"), "a-z, 0-9", 2),
        (("study", "run", "real-small"), "MAE_DATA", 2),
        (("fit", "no.csv", "--response", "y", "--factors", "x"), "no such file", 2),
    ],
)
def test_bad_input_ends_in_one_line_with_its_exit_code(tmp_path, arguments, says, code):
    found = mae(*arguments, runs=tmp_path, MAE_DATA="")
    assert found.returncode == code
    lines = found.stderr.strip().splitlines()
    assert len(lines) == 1
    assert says in lines[0]


@pytest.fixture(scope="module")
def real(photographs, tmp_path_factory):
    """Two cells of real photographs: a run that meets a cut archive, then one that does not."""
    folder = tmp_path_factory.mktemp("real")
    # Small sides: the probe of raw pixels takes the cube of their number.
    study = small_study(
        folder, "real-small", images=[750], models=["vit_pico"], resolutions=[16, 24]
    )
    data = folder / "data"
    data.mkdir()
    for path in photographs.glob("*.tar"):
        (data / path.name).symlink_to(path)
    cut = data / "celeba.tar"
    cut.unlink()
    cut.write_bytes((photographs / "celeba.tar").read_bytes()[:1_000_000])
    command = ("study", "run", study, "--cells", ",".join(c.id for c in load_study(study).cells))
    where = {"runs": folder / "runs", "MAE_DATA": str(data)}
    failed = mae(*command, **where)
    cut.unlink()
    cut.symlink_to(photographs / "celeba.tar")
    return failed, mae(*command, **where), folder / "runs"


def test_a_damaged_archive_ends_in_one_line_and_the_next_run_works(real):
    failed, done, _ = real
    assert failed.returncode == 4, failed.stderr
    assert "celeba.tar: cut or damaged after" in failed.stderr.strip().splitlines()[-1]
    assert done.returncode == 0, done.stderr


def test_two_cells_of_real_photographs_run_end_to_end(real):
    _, done, runs = real
    assert done.returncode == 0, done.stderr
    records = sorted(runs.glob("small/cells/*/record.json"))
    assert len(records) == 2
    for record in records:
        rows = json.loads(record.read_text())["rows"]
        assert {row["task"] for row in rows} == {"tiny_imagenet", "cifar10"}


def test_papermill_runs_a_cell_of_the_users_own_and_refuses_what_cannot_be(tmp_path):
    def papermill(parameters):
        given = [word for name, value in parameters.items() for word in ("-p", name, str(value))]
        notebook = root() / "notebooks" / "02_pretrain_cell.ipynb"
        output = tmp_path / f"{len(parameters)}.ipynb"
        command = [sys.executable, "-m", "papermill", "--no-progress-bar", notebook, output, *given]
        env = os.environ | {"MAE_RUNS": str(tmp_path / "runs")}
        return subprocess.run(
            command, env=env, capture_output=True, text=True, check=False, timeout=300
        )

    own = {"model": "vit_pico", "resolution": 16, "steps": 20, "images": 100}
    with ThreadPoolExecutor() as pool:
        done, wrong = pool.map(papermill, (own, {"mask_ration": 0.5}))
    assert done.returncode == 0, done.stderr[-2000:]
    assert list((tmp_path / "runs" / "scratch" / "cells").glob("vit_pico-p2-n100-r16-m80-s0-*"))
    assert wrong.returncode != 0
    assert "did you mean 'mask_ratio'" in wrong.stderr


def test_a_cells_parameters_lead_back_to_the_same_cell():
    study = load_study("pocket")
    for cell in study.cells:
        given = {"study": "pocket", "out": "scratch"} | cell_parameters(cell)
        assert cell_from_namespace(given)[0] == cell
    paths = RunPaths.of("pocket")
    assert len(all_jobs(study, paths)) == 1 + 2 * len(study.cells) + 3
    assert job(study, paths, "fit").notebook == "05_fit_law"


def test_the_papers_study_is_planned_and_its_graph_passes_a_dry_run(tmp_path):
    plan = json.loads(mae("study", "plan", "paper", "--json", runs=tmp_path).stdout)
    assert plan["largest_total"]["train"] == 149_703
    assert len(plan["cells"]) == len(load_study("paper").cells)
    text = mae("study", "plan", "studies/paper.yaml", runs=tmp_path).stdout
    assert "27,000 images asked, 20,210" in text
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper" / "study.yaml").write_text((root() / "studies" / "paper.yaml").read_text())
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        str(root() / "workflow/Snakefile"),
        "--config",
        "out=paper",
        "--cores",
        "1",
        "--dry-run",
    ]
    env = os.environ | {"MAE_RUNS": str(tmp_path), "PYTHONPATH": str(root())}
    dry = subprocess.run(
        command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert dry.returncode == 0, dry.stderr[-2000:]
    assert "pretrain" in dry.stdout
