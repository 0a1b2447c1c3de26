"""Every option of predict, embed and generate reaches what the command does, and its status is the command's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from launch.answers.generation import Chosen, Request
from launch.answers.request import Asked
from launch.cli import answers
from launch.cli.main import app
from model.generation.sampling import Sampling

Door = Callable[..., list[dict[str, Any]]]
RUN, TABLE, ARRAY = Path("runs/a"), Path("a.csv"), Path("a.npy")
MORE = ["--checkpoint", "best", "--weights", "ema", "--latents", "8", "--split", "val", "--batch", "1", "--json"]


def told(*words: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    return result.exit_code, result.stderr


@pytest.mark.parametrize(
    ("words", "asked", "as_json"),
    [
        (["predict", RUN, "x", "y", "--out", TABLE], Asked(RUN, ("x", "y"), TABLE), False),
        (["predict", RUN, "x", "--out", TABLE, "--latents", "0", "--batch", "0"], Asked(RUN, ("x",), TABLE), False),
        (
            ["predict", RUN, "x", "--out", TABLE, "--top", "5", *MORE],
            Asked(RUN, ("x",), TABLE, 5, "best", "ema", "val", 1, 8),
            True,
        ),
        (["embed", RUN, "x", "y", "--out", ARRAY], Asked(RUN, ("x", "y"), ARRAY), False),
        (
            ["embed", RUN, "x", "--out", ARRAY, "--whole", *MORE],
            Asked(RUN, ("x",), ARRAY, 1, "best", "ema", "val", 1, 8, whole=True),
            True,
        ),
    ],
)
def test_what_is_typed_is_what_is_answered_and_how_that_ends_is_the_status(
    door: Door, words: list[str | Path], asked: Asked, as_json: bool
) -> None:
    def answer(progress: Callable[[int, int], None], **_: object) -> int:
        progress(3, 7)
        return 3

    trusted = door("configs.plugins.trust", None)
    calls = door(f"launch.answers.commands.{words[0]}", answer)
    for more in ([], ["--trust-code"]):
        status, shown = told(*words, *more)
        assert (status, trusted) == (3, [{"run": RUN}] * len(more))
        assert f"{words[0]} " in shown
        assert "3/7" in shown
    assert [{name: value for name, value in given.items() if name != "progress"} for given in calls] == [
        {"asked": asked, "as_json": as_json}
    ] * 2


@pytest.mark.parametrize(
    ("words", "request_", "chosen"),
    [
        (
            [],
            Request((), None, 256, Sampling(1.0, 0, 1.0), 0, None, as_json=False),
            Chosen("newest", "", trust_code=False),
        ),
        (
            ["--prompt", "a", "--prompt", "b", "--prompts", "c", "--length", "1", "--temperature", "0.5", "--top-k",
             "7", "--top-p", "0.25", "--seed", "5", "--out", TABLE, "--checkpoint", "best", "--weights", "ema",
             "--trust-code", "--json"],
            Request(["a", "b"], Path("c"), 1, Sampling(0.5, 7, 0.25), 5, TABLE, as_json=True),
            Chosen("best", "ema", trust_code=True),
        ),
    ],
)  # fmt: skip
def test_what_is_typed_is_what_is_continued(
    door: Door, words: list[str | Path], request_: Request, chosen: Chosen
) -> None:
    def go(progress: Callable[[int, int], None], **_: object) -> int:
        progress(3, 7)
        return 3

    calls = door("launch.answers.generation.main", go)
    status, shown = told("generate", RUN, *words)
    assert status == 3
    assert "generate " in shown
    assert "3/7" in shown
    [given] = calls
    assert given.pop("progress")
    assert given == {"run": RUN, "request": request_, "chosen": chosen}


@pytest.mark.parametrize("command", ["predict", "embed"])
def test_on_a_cluster_what_was_typed_is_checked_and_submitted_beside_its_output(
    door: Door, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    config = object()
    door("launch.run.trained.network.config_of", config)
    checked, answered = door("launch.answers.request.check", None), door(f"launch.answers.commands.{command}")
    submitted = door("launch.cli.on_cluster.submit", 3)
    monkeypatch.setattr("sys.argv", ["perceiver", "what", "was", "typed"])
    out = Path("there") / ARRAY
    assert told(command, RUN, "x", "--out", out, "--cluster", "plain")[0] == 3
    assert checked == [{"command": command, "asked": Asked(RUN, ("x",), out), "config": config}]
    assert submitted == [{"profile_name": "plain", "words": ["what", "was", "typed"], "folder": Path("there")}]
    assert answered == []


@pytest.mark.parametrize(
    "words",
    [
        ["predict", RUN, "x"],
        ["predict", RUN, "--out", TABLE],
        ["predict", RUN, "x", "--out", TABLE, "--top", "0"],
        ["predict", RUN, "x", "--out", TABLE, "--batch", "-1"],
        ["embed", RUN, "x", "--out", ARRAY, "--latents", "-1"],
        ["generate", RUN, "--length", "0"],
        ["generate", RUN, "--seed", "-1"],
    ],
)
def test_a_number_that_makes_no_sense_and_a_word_that_is_missing_are_refused(words: list[str | Path]) -> None:
    assert told(*words)[0] == 2


def test_help_says_what_there_is(explained: Callable[[typer.Typer], None]) -> None:
    explained(answers.app)
