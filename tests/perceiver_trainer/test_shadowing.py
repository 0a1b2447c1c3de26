"""Modules of a user's own that Python finds in place of ours are named in one sentence with its remedy."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from perceiver_trainer import shadowing

REPOSITORY = Path(__file__).parents[2]
COMMANDS = {
    "module": ["-m", "launch"],
    "own name": ["-m", "perceiver_trainer"],
    "torchrun": ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--", "launch"],
}


def start(folder: Path, *words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=280
    )


def make(folder: Path, name: str) -> Path:
    """A module of the user's, which must not be run."""
    place = folder / name
    file = place if name.endswith(".py") else place / "__init__.py"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("raise SystemExit('the module of the user was run')\n")
    return place


def test_without_a_shadow_there_is_nothing_to_say() -> None:
    assert shadowing.problem() == shadowing.problem(is_command=True) == ""


@pytest.mark.parametrize("name", [f"{package}{end}" for package in shadowing.PACKAGES for end in ("", ".py")])
def test_a_shadow_is_named_with_the_folder_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    place = make(tmp_path, name)
    monkeypatch.syspath_prepend(tmp_path)
    expected = f"{place}: found in place of this product's own {name.removesuffix('.py')} in {REPOSITORY}; "
    assert shadowing.problem().startswith(expected)


def test_a_folder_without_code_of_its_own_shadows_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "mine.yaml").write_text("seed: 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert shadowing.problem() == ""


def test_the_remedy_is_that_of_how_it_came_to_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "model.py")
    monkeypatch.syspath_prepend(tmp_path)
    assert "PYTHONSAFEPATH=1" in shadowing.problem(is_command=True)
    assert "rename it" in shadowing.problem()
    make(tmp_path, "trainer")
    assert "rename them" in shadowing.problem()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "take that folder out of PYTHONPATH" in shadowing.problem()
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    monkeypatch.delenv("PYTHONPATH")
    assert "an environment of its own" in shadowing.problem()


@pytest.mark.slow
@pytest.mark.parametrize("how", COMMANDS)
def test_a_command_is_refused_in_a_folder_that_shadows_ours_and_runs_there_as_the_sentence_says(
    tmp_path: Path, how: str
) -> None:
    make(tmp_path, "model.py")
    make(tmp_path, "configs")
    refused = start(tmp_path, *COMMANDS[how], "--version")
    sentence = (
        f"perceiver: {tmp_path}/configs, {tmp_path}/model.py: found in place of this product's own configs, model"
    )
    assert sentence in refused.stderr
    assert "was run" not in refused.stderr
    if how == "torchrun":
        assert refused.returncode == 1  # torchrun's own, whatever its processes say
        assert "exitcode  : 2" in refused.stderr
    else:
        assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    taken = start(tmp_path, *COMMANDS[how], "--version", PYTHONSAFEPATH="1")
    assert taken.returncode == 0
    assert "perceiver-trainer" in taken.stdout


@pytest.mark.slow
def test_the_command_itself_is_not_disturbed_by_the_working_directory(tmp_path: Path) -> None:
    make(tmp_path, "model.py")
    command = Path(sys.executable).with_name("perceiver")
    found = subprocess.run([command, "--version"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.slow
def test_an_import_says_it_too(tmp_path: Path) -> None:
    make(tmp_path, "model.py")
    found = start(tmp_path, "-c", "from perceiver_trainer import Perceiver")
    assert found.returncode == 1
    assert found.stderr.splitlines()[-1].startswith(
        f"ImportError: {tmp_path}/model.py: found in place of this product's"
    )


def test_an_old_python_can_read_what_comes_before_its_refusal() -> None:
    for name in ("__main__.py", "shadowing.py"):
        ast.parse((REPOSITORY / "perceiver_trainer" / name).read_text(), feature_version=(3, 7))
