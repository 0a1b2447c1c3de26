"""The one command: all that it can do is found by its help, and every error ends it with a sentence and a status."""

import errno
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from configs.run import load
from configs.tiny import load_tiny
from launch.cli import main
from launch.cli.main import app

Door = Callable[..., list[dict[str, Any]]]
CONFIG = Path(__file__).parents[2] / "configs" / "digits.yaml"
RUN = Path("runs/a")
DIGITS = load(CONFIG)


def status_of(*words: str | Path) -> int:
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False).exit_code


def commands(group: Any, *names: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401  # of whichever click typer has
    if not hasattr(group, "commands"):
        yield " ".join(names), group
        return
    for name, command in group.commands.items():
        yield from commands(command, *names, name)


ALL = dict(commands(typer.main.get_command(app)))


def test_every_command_is_there() -> None:
    sources = ["digits", "av-digits", "table", "image-folder", "audio-folder", "point-clouds", "videos", "text"]
    sources += ["imagenet", "audioset", "kinetics", "modelnet40", "autoflow", "flying-chairs", "sintel", "kitti"]
    sources += ["c4", "wikipedia", "glue"]
    of_data = [*(f"build {source}" for source in sources), "index", "verify", "show"]
    of_runs = ["submit", "resume", "sweep", "status", "logs", "stop", "cancel", "fork", "diff", "doctor"]
    others = [
        "train",
        "eval",
        "predict",
        "embed",
        "generate",
        "report",
        "attention",
        "chaos",
        "plan",
        "init",
        "import",
        "export",
    ]
    assert set(ALL) == {*(f"data {name}" for name in of_data), *of_runs, *others}


@pytest.mark.parametrize("name", ALL)
def test_every_command_and_all_that_it_takes_is_explained(name: str) -> None:
    assert len(ALL[name].help or "") > 20
    unexplained = [parameter.name for parameter in ALL[name].params if not getattr(parameter, "help", "x")]
    assert unexplained == []


@pytest.mark.parametrize("words", [[], ["data"], ["data", "build"]])
def test_half_a_command_shows_what_may_follow(words: list[str]) -> None:
    told = CliRunner().invoke(app, words).output
    assert "Usage: " in told
    assert "Commands" in told
    assert "completion" not in told
    assert CliRunner().invoke(app, [*words, "--help"]).output.count(".") > 3


@pytest.mark.parametrize("words", [[], ["data"], ["data", "build"]])
def test_each_group_says_what_it_is_for(words: list[str]) -> None:
    group: Any = typer.main.get_command(app)
    for word in words:
        group = group.commands[word]
    assert len(group.help or "") > 20


@pytest.mark.parametrize(
    ("words", "function", "expected"),
    [
        (
            ["train", CONFIG, "--run", RUN],
            "launch.run.composition.main",
            {"config": DIGITS, "path": RUN, "take_over": False, "as_json": False, "heartbeat": None},
        ),
        (
            ["train", CONFIG, "seed=3", "--run", RUN, "--procs", "0", "--take-over", "--json"],
            "launch.run.composition.main",
            {
                "config": replace(DIGITS, seed=3),
                "path": RUN,
                "take_over": True,
                "as_json": True,
                "heartbeat": None,
            },
        ),
        (
            ["train", CONFIG, "train.steps=9", "--run", RUN, "--tiny"],
            "launch.run.composition.main",
            {
                "config": load_tiny(CONFIG, ["train.steps=9"]),
                "path": RUN,
                "take_over": False,
                "as_json": False,
                "heartbeat": None,
            },
        ),
        (
            ["train", CONFIG, "--run", RUN, "--procs", "2"],
            "launch.supervise.local.start",
            {"config": DIGITS, "path": RUN, "num_processes": 2, "take_over": False, "as_json": False},
        ),
        (
            ["train", CONFIG, "seed=3", "--run", RUN, "--procs", "1", "--take-over", "--json"],
            "launch.supervise.local.start",
            {"config": replace(DIGITS, seed=3), "path": RUN, "num_processes": 1, "take_over": True, "as_json": True},
        ),
        (
            ["eval", RUN],
            "launch.run.trained.evaluation.main",
            {
                "path": RUN,
                "overrides": (),
                "which": "newest",
                "weights": "",
                "split": "",
                "latents": "",
                "as_json": False,
            },
        ),
        (
            ["eval", RUN, "data.shards=other", "--split", "val", "--checkpoint", "best", "--latents", "all", "--json"],
            "launch.run.trained.evaluation.main",
            {
                "path": RUN,
                "overrides": ["data.shards=other"],
                "which": "best",
                "weights": "",
                "split": "val",
                "latents": "all",
                "as_json": True,
            },
        ),
    ],
)
def test_what_is_typed_is_what_is_done_and_how_that_ends_is_the_status(
    door: Door, words: list[str | Path], function: str, expected: dict[str, object]
) -> None:
    calls = door(function, 3)
    assert status_of(*words) == 3
    assert calls == [expected]


def test_the_version_is_told_with_those_that_decide_the_numbers() -> None:
    told = CliRunner().invoke(app, ["--version"])
    assert told.exit_code == 0
    assert re.fullmatch(r"perceiver-trainer \d+\.\d+\.\d+, torch \S+, deepspeed \S+, Python 3\.\d+\.\d+\n", told.output)


def test_a_negative_number_of_processes_is_refused() -> None:
    assert status_of("train", CONFIG, "--run", RUN, "--procs", "-1") == 2


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (ValueError("the batch \x1b[1m does not divide"), 2, "perceiver: the batch "),
        (OSError(errno.ENOSPC, "No space left on device", "/runs/a"), 2, "No space left on device"),
        (OSError(errno.ECONNREFUSED, "refused"), 1, "Traceback (most recent call last)"),
        (RuntimeError("broken \x1b[1m"), 1, "Traceback (most recent call last)"),
    ],
)
def test_what_a_user_can_mend_is_a_sentence_and_what_is_ours_a_traceback(
    door: Door,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    status: int,
    words: str,
) -> None:
    def fail(**_: object) -> int:
        raise error

    door("launch.run.trained.evaluation.main", fail)
    monkeypatch.setattr(sys, "argv", ["perceiver", "eval", "a"])
    with pytest.raises(SystemExit) as left:
        main.main()
    told = capsys.readouterr().err
    assert left.value.code == status
    assert words in told
    assert ("Traceback" in told) == (status == 1)
    assert "\x1b" not in told


def test_a_status_is_passed_on_and_help_names_the_command_as_it_is_called(
    door: Door, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    door("launch.run.trained.evaluation.main", 7)
    for words, status in ((["eval", "a"], 7), (["--help"], 0)):
        monkeypatch.setattr(sys, "argv", ["another name", *words])
        with pytest.raises(SystemExit) as left:
            main.main()
        assert left.value.code == status
    assert "Usage: perceiver" in capsys.readouterr().out
