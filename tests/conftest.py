"""Shapes are checked while the tests run: every jaxtyping annotation of the model is executed."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

install_import_hook(["model"], "beartype.beartype")

RUNS = Path(__file__).parent / "runs"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put whole runs first: they are the longest, and would keep one process busy when the others are done."""
    items.sort(key=lambda item: RUNS not in item.path.parents)


@pytest.fixture(autouse=True)
def arithmetic_of_the_process() -> Iterator[None]:
    """What a run or DeepSpeed sets for the whole process ends with the test that trained."""
    yield
    if torch := sys.modules.get("torch"):
        torch.use_deterministic_algorithms(False)
        # DeepSpeed's ZeRO 3 puts a function of its own in this place, under which autocast rounds elsewhere.
        torch.nn.functional.linear = torch._C._nn.linear


@pytest.fixture
def disk_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The paths that are synced and the names that are given, in order; the calls themselves are made."""
    made: list[tuple[str, str]] = []
    fsync, replace, rename = os.fsync, os.replace, os.rename

    def noted_fsync(descriptor: int) -> None:
        made.append(("sync", str(Path(f"/proc/self/fd/{descriptor}").readlink())))
        fsync(descriptor)

    def noted_replace(source: str, target: str) -> None:
        made.append(("name", str(target)))
        replace(source, target)

    def noted_rename(source: str, target: str) -> None:
        made.append(("name", str(target)))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    monkeypatch.setattr(os, "rename", noted_rename)
    return made
