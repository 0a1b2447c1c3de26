import importlib
import inspect
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from audit import listening
from typer.testing import CliRunner

from data_shards.format.manifest import Manifest, ShardEntry, Shards, Split, write

Commands = Callable[..., Callable[[str], list[str]]]


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Put stand-ins for commands into the path, given as shell; get what one was asked, a line a call."""
    folder = tmp_path / "stand_ins"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def put(**texts: str) -> Callable[[str], list[str]]:
        for name, text in texts.items():
            (folder / name).write_text(f'#!/bin/sh\necho "$@" >> {folder}/{name}.asked\ncd {folder}\n{text}\n')
            (folder / name).chmod(0o755)

        def asked(name: str) -> list[str]:
            path = folder / f"{name}.asked"
            return path.read_text().splitlines() if path.exists() else []

        return asked

    return put


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Return a folder of shards of the digits as far as a manifest and a size tell."""
    folder = tmp_path / "shards"
    (folder / "train").mkdir(parents=True)
    (folder / "train" / "000000.tar").write_bytes(b"x" * 100)
    shard = ShardEntry(
        "train/000000.tar",
        64,
        100,
        "0" * 64,
        "0" * 64,
        {"cls/mp4/npy/png/txt/wav": 64},
    )
    write(Manifest({"train": Split(Shards.of([shard]), (6,) * 10)}, tuple("0123456789")), folder)
    return folder


@pytest.fixture
def opens() -> Iterator[list[str]]:
    """Return the paths that are opened during the test."""
    paths: list[str] = []

    def note(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            paths.append(str(arguments[0]))

    with listening(note):
        yield paths


Door = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Door:
    """Stand in for a function, "launch.supervise.submit.submit", and get the arguments of each call by their names."""

    def put(name: str, answer: object = 0) -> list[dict[str, Any]]:
        module, _, function = name.rpartition(".")
        signature = inspect.signature(getattr(importlib.import_module(module), function))
        calls: list[dict[str, Any]] = []

        def stand_in(*args: object, **kwargs: object) -> object:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            calls.append(bound.arguments)
            return answer(**bound.arguments) if callable(answer) else answer

        # For whoever stands in for this one.
        stand_in.__signature__ = signature  # type: ignore[attr-defined]
        monkeypatch.setattr(f"{module}.{function}", stand_in)
        return calls

    return put


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], None]:
    """Wait until something is so; fail after a minute."""

    def wait(is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not is_so():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    return wait


@pytest.fixture
def explained() -> Callable[[typer.Typer], None]:
    """Check that help explains every command of an app and all that it takes, and that a group alone lists them."""

    def check(app: typer.Typer) -> None:
        group: Any = typer.main.get_command(app)
        for name, command in group.commands.items():
            assert len(command.help or "") > 20, name
            # The parameters of a group are those of its commands, and a flag of help has its own words.
            unexplained = [each.name for each in command.params if not getattr(each, "help", "x")]
            assert unexplained == [], name
        if group.help:
            half = CliRunner().invoke(app, [])
            assert half.exit_code == 2
            told = " ".join(half.output.split())
            assert group.help in told
            assert [name for name in group.commands if f" {name} " not in told] == []

    return check
