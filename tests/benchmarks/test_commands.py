"""Every benchmark is a command: a module, and a file where it is one. None stands in the way of what it measures."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from warm_start import finished

from benchmarks.arguments import at_least

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "benchmarks"
FILES = sorted(path.stem for path in FOLDER.glob("*.py") if "__main__" in path.read_text())
FOLDERS = sorted(path.parent.name for path in FOLDER.glob("*/__main__.py") if "--json" in path.read_text())
COMMANDS = [
    *(("-m", f"benchmarks.{name}") for name in FILES + FOLDERS),
    *((f"benchmarks/{name}.py",) for name in FILES),
]


def run(*words: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return finished([sys.executable, *words], cwd=REPOSITORY, env=environment)


def test_no_benchmark_has_the_name_of_a_module_that_others_import() -> None:
    # `python benchmarks/X.py` looks in that folder first.
    others = [path for path in sys.path if Path(path or ".").resolve() != FOLDER]
    names = {path.stem for path in FOLDER.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert {name for name in names if importlib.machinery.PathFinder.find_spec(name, others)} <= {"__pycache__"}


@pytest.mark.slow
@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[-1])
def test_every_benchmark_runs_as_a_module_and_as_a_file(words: tuple[str, ...]) -> None:
    found = run(*words, "--help")
    assert (found.returncode, found.stderr) == (0, "")
    assert "--json" in found.stdout


@pytest.mark.slow
def test_too_few_epochs_are_refused_in_a_sentence() -> None:
    found = run("-m", "benchmarks.loader", "--epochs", "2")
    assert found.returncode == 2
    assert found.stderr.endswith("error: argument --epochs: expected a whole number of at least 3, got '2'\n")


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", ""])
def test_a_count_below_the_least_is_no_count(text: str) -> None:
    with pytest.raises(Exception, match=f"expected a whole number of at least 1, got '{text}'"):
        at_least(1)(text)
