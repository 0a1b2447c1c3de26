"""The names of the library: each is there, typed, and brings along nothing that it does not need."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import perceiver_trainer
from data_shards.modalities.kinds.catalogue import MODALITIES
from model.modalities.catalogue import INPUTS
from model.outputs.kinds import OUTPUTS
from trainer.tasks.kinds.catalogue import TASKS

HEAVY = ("torch", "deepspeed", "webdataset", "matplotlib", "submitit", "typer")


# Each name is imported in a process of its own. Those that need torch are forked once it is there.
IMPORTS = f"""
import importlib, json, os, sys
for name in sys.argv[1:]:
    if name == "torch":
        import torch
        continue
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0, name
    else:
        import perceiver_trainer
        getattr(perceiver_trainer, name)
        print(json.dumps([name, [module for module in {HEAVY!r} if module in sys.modules]]), flush=True)
        os._exit(0)
"""
WITHOUT_TORCH = ("PerceiverConfig", "DataConfig")
WITH_TORCH = ("Perceiver", "ShardLoader", "CheckpointStore", "load_run")


@pytest.fixture(scope="module")
def imported_by() -> dict[str, list[str]]:
    """The heavy packages that importing each name brings along."""
    command = [sys.executable, "-c", IMPORTS, *WITHOUT_TORCH, "torch", *WITH_TORCH]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=280)
    return dict(map(json.loads, found.stdout.splitlines()))


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


def test_every_modality_and_every_kind_of_output_has_its_classes_there() -> None:
    assert {kind.__name__ for kind in (*MODALITIES, *INPUTS, *OUTPUTS, *TASKS)} <= set(perceiver_trainer.__all__)


def test_another_name_is_refused_as_python_does() -> None:
    with pytest.raises(AttributeError, match="module 'perceiver_trainer' has no attribute 'Preceiver'"):
        _ = perceiver_trainer.Preceiver


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "needed"), [*((name, []) for name in WITHOUT_TORCH), *((name, ["torch"]) for name in WITH_TORCH)]
)
def test_a_name_brings_along_nothing_that_it_does_not_need(
    imported_by: dict[str, list[str]], name: str, needed: list[str]
) -> None:
    assert imported_by[name] == needed
