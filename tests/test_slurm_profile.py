"""A study through Snakemake's Slurm executor, on a Slurm whose commands are stubs that run the jobs."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from slurm_stub import install, value

from mae_lib.cli.profiles import limits, profile_named
from mae_lib.errors import StudyError
from mae_lib.study.load import load_study
from mae_lib.study.paths import root

PROFILES = root() / "workflow" / "profiles"


@pytest.fixture
def cluster(tmp_path):
    """A function that starts `mae study run` for one tiny cell on two devices."""
    environment = os.environ | install(tmp_path / "slurm") | {"MAE_RUNS": str(tmp_path / "runs")}
    environment.pop("MAE_DEVICE", None)
    # Not the place to measure this processor.
    environment["MAE_KERNELS"] = "reference"
    # The profile that a user fills in, but for the time between two questions to the scheduler.
    shutil.copytree(PROFILES / "slurm", tmp_path / "mine")
    config = tmp_path / "mine" / "config.yaml"
    text = config.read_text(encoding="utf-8").replace("status-checks: 20", "status-checks: 1")
    config.write_text(text.replace('# slurm_account: "your-account"', 'slurm_account: "lab"'))
    study = tiny_study(tmp_path)
    command = [sys.executable, "-m", "mae_lib", "study", "run", str(study)]
    command += ["--profile", str(tmp_path / "mine"), "--cells", load_study(study).cells[0].id]

    def start():
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, env=environment, cwd=root(), **pipes)

    return start


def tiny_study(folder: Path) -> Path:
    content = yaml.safe_load((root() / "studies" / "pocket.yaml").read_text(encoding="utf-8"))
    content["name"] = "tiny"
    content["data"] |= {"total": 60, "size": 16}
    content["data"]["tasks"][0] |= {"train_images": 60, "test_images": 50}
    content["grid"] |= {"models": ["vit_pico"], "images": [50], "resolutions": [16]}
    content["recipe"] |= {"steps": 12, "batch_size": 8, "warmup_steps": 2}
    content["evaluation"] = {"random_seeds": 1}
    content["execution"] = {"devices": 2}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder / "tiny.yaml"


@pytest.mark.pocket
def test_a_study_is_interrupted_fails_in_one_line_and_finishes_on_a_cluster(cluster, tmp_path):
    run, jobs = tmp_path / "runs" / "tiny", tmp_path / "slurm" / "jobs"
    interrupted = cluster()
    wait_until(lambda: list(jobs.glob("*.pid")))
    interrupted.send_signal(signal.SIGTERM)
    said = interrupted.communicate(timeout=90)[1]
    assert interrupted.returncode == 143
    assert "the same command goes on from here" in said
    wait_until(lambda: (jobs / "1000.state").exists() and not processes_of(tmp_path / "runs"))
    assert (jobs / "1000.state").read_text() == "CANCELLED"

    (run / "store").touch()
    failing = cluster()
    said = failing.communicate(timeout=240)[1]
    line = said.strip().splitlines()[-1]
    assert line.startswith("mae: tiny: notebooks/01_rebuild_dataset: "), said
    assert f"{run}/store" in line
    assert "cannot be written" in line
    assert failing.returncode in (1, 2)
    assert (jobs / "1001.state").read_text() == "FAILED"

    (run / "store").unlink()
    finished = cluster()
    said = finished.communicate(timeout=240)[1]
    assert finished.returncode == 0, said
    (training,) = run.glob("cells/*/training.json")
    assert json.loads(training.read_text())["devices"] == 2
    assert training.with_name("record.json").exists()
    calls = [json.loads(path.read_text()) for path in sorted(jobs.glob("*.call"))]
    asked = [(value(c, "--comment").split("_")[1], value(c, "--gpus")) for c in calls]
    assert asked == [("dataset", None)] * 3 + [("pretrain", "2"), ("evaluate", "1")]
    assert {value(call, "-A") for call in calls} == {"lab"}
    assert (value(calls[3], "--mem"), value(calls[3], "-t")) == ("32000", "1440")


def wait_until(is_so) -> None:
    deadline = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def processes_of(runs: Path) -> list[str]:
    """Return the processes that work in a folder of runs (Linux)."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(runs) in (process / "environ").read_bytes().decode(errors="replace"):
                found.append(process.name)
        except OSError:
            continue
    return found


def test_profiles_are_found_by_name_or_folder_and_what_they_lack_is_one_line(tmp_path, monkeypatch):
    assert profile_named("local").is_local
    with pytest.raises(StudyError, match=r"--profile: no .*/slurn/config.yaml.*slurm"):
        profile_named("slurn")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StudyError, match="needs the command sbatch, which is not on PATH"):
        profile_named("slurm")
    for text, says in (
        ("executor: flux", "needs the package snakemake-executor-plugin-flux, which is not"),
        ("executor: [", "cannot be read, got"),
        ("- executor", "cannot be read, got"),
    ):
        (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(StudyError, match=says):
            profile_named(str(tmp_path))
    for name, is_local in install(tmp_path / "slurm").items():
        monkeypatch.setenv(name, is_local)
    assert profile_named(str(PROFILES / "slurm")).executor == "slurm"


def test_more_gpus_than_this_machine_has_are_refused_before_anything_starts(tmp_path, monkeypatch):
    study = load_study(tiny_study(tmp_path))
    local = profile_named("local")
    monkeypatch.delenv("MAE_DEVICE", raising=False)
    monkeypatch.setattr("mae_lib.cli.profiles._gpus", lambda: [Path("/dev/nvidia0")])
    with pytest.raises(StudyError, match="asks for 2 GPUs, this machine has 1"):
        limits(local, study)
    monkeypatch.setattr("mae_lib.cli.profiles._gpus", lambda: [Path(), Path()])
    assert limits(local, study)[-2:] == ["--resources", "gpu=2"]
    monkeypatch.setenv("MAE_DEVICE", "cpu")
    assert "--resources" not in limits(local, study)
