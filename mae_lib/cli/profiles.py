"""Where a study's jobs run: a Snakemake profile of `workflow/profiles/`, or a folder of one's own."""

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import yaml

from mae_lib.errors import StudyError
from mae_lib.records.provenance import available_cores
from mae_lib.study.definition import Study
from mae_lib.study.paths import root
from mae_lib.study.suggest import nearest

LOCAL = "local"
# A scheduler may take its time to answer.
CANCEL_SECONDS = 60.0
# The plugin's own commands; without them it fails late and at length.
COMMANDS = {"slurm": ("sbatch", "scancel")}


@dataclass(frozen=True)
class Profile:
    """A folder with Snakemake's config.yaml, and the executor that it names."""

    folder: Path
    executor: str

    @property
    def is_local(self) -> bool:
        """Whether jobs are processes of this machine."""
        return self.executor == LOCAL


def profile_named(name: str) -> Profile:
    """Find a profile by its name under `workflow/profiles/`, or by its folder.

    Raises: StudyError when there is none, or when what its executor needs is not installed.
    """
    known = root() / "workflow" / "profiles"
    folder = Path(name).resolve() if os.sep in name else known / name
    config = folder / "config.yaml"
    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
        executor = str((content or {}).get("executor", LOCAL))
    except FileNotFoundError:
        names = [path.parent.name for path in known.glob("*/config.yaml")]
        raise StudyError(f"--profile: no {config}{nearest(name, names)}") from None
    except (OSError, yaml.YAMLError, AttributeError) as error:
        problem = " ".join(str(error).split())
        raise StudyError(f"--profile: {config}: cannot be read, got {problem}") from None
    plugin = f"snakemake_executor_plugin_{executor.replace('-', '_')}"
    if executor != LOCAL and importlib.util.find_spec(plugin) is None:
        raise StudyError(
            f"--profile: {config}: executor {executor} needs the package "
            f"{plugin.replace('_', '-')}, which is not installed"
        )
    for command in COMMANDS.get(executor, ()):
        if shutil.which(command) is None:
            raise StudyError(
                f"--profile: {config}: executor {executor} needs the command {command}, which is "
                "not on PATH; start this on a login node of the cluster"
            )
    return Profile(folder, executor)


def limits(profile: Profile, study: Study) -> list[str]:
    """Return Snakemake's options for what this machine has; a cluster's scheduler knows its own.

    Raises: StudyError when a cell asks for more GPUs than there are here.
    """
    if not profile.is_local:
        return []
    cores = ["--cores", str(available_cores())]
    if os.environ.get("MAE_DEVICE") == "cpu" or not (here := len(_gpus())):
        return cores
    if study.execution.devices > here:
        raise StudyError(
            f"{study.name}: execution.devices: a cell asks for {study.execution.devices} GPUs, "
            f"this machine has {here}; ask for fewer, or run it on a cluster (--profile slurm)"
        )
    return [*cores, "--resources", f"gpu={here}"]


def cancel_jobs(profile: Profile, log: Path) -> None:
    """Take the jobs of an engine that has ended back from Slurm.

    Its plugin does so itself when it is interrupted, but forgets the jobs whose state it is just
    asking for.
    """
    if profile.executor != "slurm":
        return
    text = log.read_text(encoding="utf-8", errors="replace")
    if name := re.search(r"^SLURM run ID: (\S+)$", text, re.MULTILINE):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            command = ["scancel", f"--name={name[1]}"]
            subprocess.run(command, capture_output=True, timeout=CANCEL_SECONDS, check=False)


def _gpus() -> list[Path]:
    return [path for path in Path("/dev").glob("nvidia*") if path.name[6:].isdigit()]
