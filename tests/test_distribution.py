"""What is handed on: license, types, version, and remedies that can be followed."""

import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
PACKAGES: list[str] = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
_KERNELS = re.compile(r"triton|_kernel")
_INSTALLED = re.compile(r"pip install ((?:'[^']+'|[\w.\[\]=<>~-]+)(?: (?:'[^']+'|[\w.\[\]=<>~-]+))*)")


def name_of(requirement: str) -> str:
    return re.split(r"[\[<>=~!; ]", requirement.strip("'\""))[0].lower()


def available() -> set[str]:
    """The distributions that this one needs or can use; they are to be had from the package index."""
    project = PROJECT["project"]
    extras = chain.from_iterable(project["optional-dependencies"].values())
    return {name_of(line) for line in [*project["dependencies"], *extras]} - {project["name"]}


def test_the_license_is_apache_2_and_travels_with_the_wheel() -> None:
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert PROJECT["project"]["license-files"] == ["LICENSE"]
    text = (REPOSITORY / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_says_that_it_is_typed(package: str) -> None:
    assert (REPOSITORY / package / "py.typed").is_file()


def sources() -> list[Path]:
    code = chain.from_iterable((REPOSITORY / package).rglob("*.py") for package in PACKAGES)
    return sorted([*code, *(REPOSITORY / "docs").rglob("*.md"), REPOSITORY / "README.md"])


def test_every_remedy_installs_distributions_that_are_to_be_had() -> None:
    known = available() | {"triton", "."}
    offers = {
        f"{path.relative_to(REPOSITORY)}: {name}"
        for path in sources()
        for found in _INSTALLED.finditer(path.read_text())
        for name in map(name_of, found[1].split(" "))
        if not name.startswith("-") and name not in known
    }
    assert offers == set()


def test_no_message_names_this_project_as_something_to_install() -> None:
    pattern = re.compile(rf"pip install [^`\n]*{PROJECT['project']['name']}")
    assert [path for path in sources() if pattern.search(path.read_text())] == []


@pytest.mark.slow
def test_tests_of_kernels_are_skipped_where_triton_is_not_installed() -> None:
    # A wheel of PyTorch for the CPU brings none.
    without = "import sys, pytest; sys.modules['triton'] = None; sys.exit(pytest.main(sys.argv[1:]))"
    # The files that can have to do with one: the import of all tests of networks takes longest.
    files = [path for path in (REPOSITORY / "tests" / "model").rglob("test_*.py") if _KERNELS.search(path.read_text())]
    assert len(files) >= 3
    collect = ["--collect-only", "-q", "-p", "no:cacheprovider", *map(str, sorted(files))]
    done = subprocess.run(
        [sys.executable, "-c", without, *collect], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2_000:]
