"""The names of the library: each is there, typed, and brings along nothing that it does not need."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import perceiver_trainer

HEAVY = ("torch", "deepspeed", "webdataset", "matplotlib", "submitit", "typer")


def imported_by(name: str) -> set[str]:
    code = f"from perceiver_trainer import {name}; import sys; print(*(m for m in {HEAVY!r} if m in sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=280)
    return set(found.stdout.split())


@pytest.mark.parametrize("name", perceiver_trainer.__all__)
def test_every_name_is_there_and_explains_itself(name: str) -> None:
    assert getattr(perceiver_trainer, name).__doc__
    assert name in dir(perceiver_trainer)


def test_the_names_that_a_type_checker_sees_are_those_that_are_there() -> None:
    tree = ast.parse(Path(perceiver_trainer.__file__).read_text())
    (seen,) = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {
        f"{statement.module}.{alias.name}"
        for statement in seen.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert typed == {f"{home}.{name}" for home, names in perceiver_trainer._HOMES.items() for name in names}
    assert sorted(name.rpartition(".")[2] for name in typed) == perceiver_trainer.__all__


def test_the_main_names_are_there() -> None:
    assert {"CheckpointStore", "Perceiver", "PerceiverConfig", "ShardLoader", "load_run"} <= set(
        perceiver_trainer.__all__
    )


def test_another_name_is_refused_as_python_does() -> None:
    with pytest.raises(AttributeError, match="module 'perceiver_trainer' has no attribute 'Preceiver'"):
        _ = perceiver_trainer.Preceiver


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("PerceiverConfig", set()),
        ("DataConfig", set()),
        ("Perceiver", {"torch"}),
        ("ShardLoader", {"torch"}),
        ("CheckpointStore", {"torch"}),
        ("load_run", {"torch"}),
    ],
)
def test_a_name_brings_along_nothing_that_it_does_not_need(name: str, needed: set[str]) -> None:
    assert imported_by(name) <= needed
