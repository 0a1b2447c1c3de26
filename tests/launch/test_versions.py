"""A version outside the range is one sentence before anything heavy is done."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from launch import versions
from launch.versions import check_packages, check_python, numbers, sentence

REPOSITORY = Path(__file__).parents[2]


def installed(folder: Path, **packages: str) -> dict[str, str]:
    """An environment in which packages have these versions, and end the process of whoever imports them."""
    for name, version in packages.items():
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("import os\nos._exit(77)\n")
        (folder / f"{name}-{version}.dist-info").mkdir()
        (folder / f"{name}-{version}.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{REPOSITORY}"}


@pytest.mark.parametrize(
    ("packages", "sentence"),
    [
        ({"torch": "2.8.0"}, "perceiver: torch is 2.8.0, but this release runs with 2.9 to 2.13.*: "),
        ({"torch": "2.14.1+cu130"}, "perceiver: torch is 2.14.1+cu130, but this release runs with 2.9 to 2.13.*: "),
        ({"torch": "1.13.0"}, "perceiver: torch is 1.13.0, but "),
        ({"deepspeed": "0.18.2"}, "perceiver: deepspeed is 0.18.2, but this release runs with 0.19.8 to 0.19.*: "),
        (
            {"torch": "3.0", "deepspeed": "1.0"},
            "perceiver: torch is 3.0, but this release runs with 2.9 to 2.13.* and ",
        ),
    ],
)
def test_the_command_ends_with_one_sentence_before_torch_is_imported(
    tmp_path: Path, packages: dict[str, str], sentence: str
) -> None:
    command = [sys.executable, "-m", "launch", "train", "none.yaml", "--run", str(tmp_path / "run")]
    found = subprocess.run(
        command, cwd=tmp_path, env=installed(tmp_path, **packages), capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith(sentence)
    assert len(found.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_rank_ends_with_the_same_sentence_and_status(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    environment = installed(tmp_path, torch="2.8.0") | {"RANK": "0"}
    code = "import sys; from pathlib import Path; from launch.lifecycle.run_folder import RunFolder; "
    code += "from launch.supervise import rank; "
    code += f"sys.exit(rank._train(RunFolder(Path({str(tmp_path / 'run')!r})), None))"
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert found.stderr.startswith("perceiver: torch is 2.8.0, but ")
    assert len(found.stderr.splitlines()) == 1


@pytest.mark.parametrize("version", [(3, 10, 13), (3, 8, 18), (3, 14, 0), (4, 0, 0), (2, 7, 18)])
def test_a_python_outside_the_range_is_told(version: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"^Python is {re.escape('.'.join(map(str, version)))}, but .* 3.11 to 3.13"):
        check_python(version)


@pytest.mark.parametrize("version", [(3, 11, 0), (3, 12, 1), (3, 13, 9)])
def test_a_python_within_the_range_is_taken(version: tuple[int, ...]) -> None:
    check_python(version)


def test_what_is_installed_here_is_taken() -> None:
    check_packages()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2.9.0a0+145a3a7bda.nv25.10", (2, 9, 0)),
        ("2.13.0+cpu", (2, 13, 0)),
        ("0.19.8", (0, 19, 8)),
        ("2.10.0.dev20260101", (2, 10, 0)),
        ("2.12.1rc2", (2, 12, 1)),
    ],
)
def test_the_numbers_of_a_version_are_those_of_its_release(text: str, expected: tuple[int, ...]) -> None:
    assert numbers(text) == expected


def test_the_declared_ranges_are_those_that_are_checked() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[<>=]", line)[0]: line for line in project["dependencies"]}
    for name, (first, beyond) in versions.PACKAGES.items():
        lower, upper = declared[name].split(",")
        assert numbers(lower.partition(">=")[2])[: len(first)] == first
        assert numbers(upper.partition("<")[2]) == beyond
    first, beyond = (".".join(map(str, bound)) for bound in versions.PYTHON)
    assert project["requires-python"] == f">={first},<{beyond}"


def test_an_old_python_can_read_what_tells_it() -> None:
    for name in ("versions.py", "__init__.py"):
        text = (REPOSITORY / "launch" / name).read_text()
        ast.parse(text, feature_version=(3, 7))


def test_a_package_that_is_not_installed_is_said_to_be_so_and_is_no_other_ones_excuse(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def version(name: str) -> str:
        if name == "torch":
            raise PackageNotFoundError(name)
        return "0.18.2"

    monkeypatch.setattr("importlib.metadata.version", version)
    python = ".".join(map(str, sys.version_info[:3]))
    assert sentence() == f"perceiver-trainer 0.18.2, torch (not installed), deepspeed 0.18.2, Python {python}"
    with pytest.raises(
        ValueError, match=r"^deepspeed is 0.18.2, but this release runs with 0.19.8 to 0.19.\*: install"
    ):
        check_packages()


def test_the_python_that_runs_is_the_one_that_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "PYTHON", ((4, 0), (4, 2)))
    with pytest.raises(ValueError, match=r"^Python is 3\.\d+\.\d+, but this release runs with 4.0 to 4.1.\*: "):
        check_python()
