"""The repository keeps its own rules."""

import re
import subprocess
import sys
import time

import yaml

from mae_lib.study.paths import root


def test_imports_point_one_way_and_law_code_is_free_of_torch():
    from importlinter.cli import lint_imports

    assert lint_imports(config_filename=str(root() / "pyproject.toml"), no_cache=True) == 0


def test_conda_takes_every_package_from_the_lock():
    environment = yaml.safe_load((root() / "environment.yml").read_text())
    assert environment["dependencies"] == [
        "python=3.11", "pip", "make", {"pip": ["-r requirements.lock", "-e ."]}
    ]  # fmt: skip
    lock = (root() / "requirements.lock").read_text().splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in lock)
    names = {line.split("==")[0].lower().replace("_", "-") for line in lock}
    declared = re.findall(
        r'^    "([a-zA-Z0-9-]+)[<>=]', (root() / "pyproject.toml").read_text(), re.M
    )
    assert {name.lower() for name in declared} - {"triton"} <= names
    assert not [n for n in names if n.startswith(("nvidia", "cuda", "triton"))]


def test_files_stay_small_and_formatted():
    for path in (root() / "mae_lib").rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path
    for command in (["format", "--check"], ["check"]):
        found = subprocess.run(
            [sys.executable, "-m", "ruff", *command, str(root())],
            capture_output=True,
            text=True,
            check=False,
        )
        assert found.returncode == 0, found.stdout


def test_help_is_quick_and_needs_no_torch():
    started = time.monotonic()
    code = (
        "import sys; sys.argv = ['mae', '--help']\nfrom mae_lib.cli.main import main\n"
        "try:\n main()\nexcept SystemExit:\n pass\nassert 'torch' not in sys.modules"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert found.returncode == 0, found.stderr
    assert time.monotonic() - started < 1.5
