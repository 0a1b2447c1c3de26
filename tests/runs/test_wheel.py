"""The wheel works outside a checkout: every file is in it, and the command finds its configurations by their names."""

import json
import os
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
PACKAGES: list[str] = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, timeout=280)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment with the wheel in it, which borrows the packages that the product needs."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    (site,) = folder.glob("lib/python*/site-packages")
    zipfile.ZipFile(wheel).extractall(site)
    (site / "borrowed.pth").write_text(f"{Path(torch.__file__).parents[1]}\n")
    return folder / "bin" / "python"


COMMANDS = (
    "--version",
    "plan digits --json",
    "plan recipes/perceiver_imagenet --json",
    "data build digits data/digits",
    "submit digits data.shards=data/digits --run runs/digits --cluster plain --dry-run",
)
# Each in a fork of one process, whose imports are done once: a command ends its process at once.
RUN = """
import os, sys
import launch.run.trained.evaluation, perceiver_trainer.shadowing, torch
from {module} import {function}
print(torch.__file__, launch.__file__)
for number, words in enumerate(sys.argv[1:]):
    sys.stdout.flush()
    if child := os.fork():
        if os.waitpid(child, 0)[1]:
            sys.exit(words)
        continue
    os.dup2(os.open(str(number), os.O_CREAT | os.O_WRONLY), 1)
    sys.argv = ["perceiver", *words.split()]
    {function}()
    sys.exit()
"""


@pytest.mark.slow
def test_every_file_of_the_packages_is_in_the_wheel(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    files = subprocess.run(
        ["git", "ls-files", *PACKAGES], cwd=REPOSITORY, check=True, capture_output=True, text=True
    ).stdout.split()
    assert [name for name in files if name not in names and (REPOSITORY / name).exists()] == []
    described = zipfile.ZipFile(wheel).read("perceiver_trainer-0.1.0.dist-info/METADATA").decode()
    assert "License-Expression: Apache-2.0\n" in described
    assert "License-File: LICENSE\n" in described


@pytest.mark.slow
def test_the_command_works_outside_a_checkout(python: Path, tmp_path: Path) -> None:
    module, _, function = PROJECT["project"]["scripts"]["perceiver"].partition(":")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [python, "-c", RUN.format(module=module, function=function), *COMMANDS],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.split()[1]).is_relative_to(python.parents[1])
    version, digits, imagenet, _, submitted = ((tmp_path / str(number)).read_text() for number in range(len(COMMANDS)))
    assert version.startswith("perceiver-trainer 0.1.0, torch ")
    for planned in (digits, imagenet):
        assert json.loads(planned)["parts"]["total"]["parameters"] > 10_000
    assert (tmp_path / "data" / "digits" / "manifest.json").is_file()
    assert "srun" in submitted
