"""The command as a whole: its help, and the code that it runs for `train` and `eval`."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from launch.cli.main import app

Door = Callable[..., list[dict[str, Any]]]
CONFIG = Path(__file__).parents[2] / "configs" / "digits.yaml"
RUN = Path("runs/a")


def status_of(*words: str | Path) -> int:
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False).exit_code


def test_help_says_what_there_is_and_what_it_is_for(explained: Callable[[typer.Typer], None]) -> None:
    assert app.info.help
    explained(app)
    told = CliRunner().invoke(app, ["--help"]).stdout
    assert "Print the version and exit." in told
    # A user's shell is not changed by a command that trains.
    assert "completion" not in told


@pytest.mark.parametrize("words", [["train"], ["status"], ["predict"], ["report"], ["plan"], ["data", "index"]])
def test_the_commands_of_every_file_are_there(words: list[str]) -> None:
    assert (
        f"Usage: perceiver {' '.join(words)} "
        in CliRunner().invoke(app, [*words, "--help"], prog_name="perceiver").stdout
    )


@pytest.mark.parametrize(
    ("words", "function", "folders"),
    [
        (["train", CONFIG, "--run", RUN], "launch.run.composition.main", [CONFIG.parent]),
        # The run that gives the weights has plug-ins of its own.
        (
            ["train", CONFIG, "initial_weights.source=other", "--run", RUN],
            "launch.run.composition.main",
            [CONFIG.parent, "other"],
        ),
        (["eval", RUN], "launch.run.trained.evaluation.main", [RUN]),
    ],
)
@pytest.mark.parametrize("more", [[], ["--trust-code"]])
def test_code_is_trusted_only_where_that_is_said(
    door: Door, words: list[str | Path], function: str, folders: list[str | Path], more: list[str]
) -> None:
    trusted = door("configs.plugins.trust", None)
    door(function)
    assert status_of(*words, *more) == 0
    assert sorted(str(given["run"]) for given in trusted) == sorted(map(str, folders if more else []))


def test_a_run_that_is_resumed_by_its_own_configuration_runs_its_own_code(door: Door, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG.read_text())
    trusted = door("configs.plugins.trust", None)
    door("launch.run.composition.main")
    for run, folders in ((tmp_path, [{"run": tmp_path}]), (tmp_path / "other", [])):
        trusted.clear()
        assert status_of("train", tmp_path / "config.yaml", "--run", run) == 0
        assert trusted == folders


def test_an_evaluation_on_a_cluster_is_checked_as_it_will_be_made(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = door("launch.run.trained.evaluation.check", None)
    submitted = door("launch.cli.on_cluster.submit", 3)
    monkeypatch.setattr("sys.argv", ["perceiver", "what", "was", "typed"])
    words: list[str | Path] = [
        "eval",
        RUN,
        "data.shards=other",
        "--split",
        "val",
        "--checkpoint",
        "best",
        "--weights",
        "ema",
    ]
    assert status_of(*words, "--latents", "8", "--cluster", "plain") == 3
    assert status_of("eval", RUN, "--cluster", "plain") == 3
    asked = {"which": "best", "weights": "ema", "split": "val", "latents": "8", "places": None}
    usual = {"which": "newest", "weights": "", "split": "", "latents": "", "places": None}
    assert checked == [
        {"path": RUN, "overrides": ["data.shards=other"], **asked},
        {"path": RUN, "overrides": (), **usual},
    ]
    assert submitted == [{"profile_name": "plain", "words": ["what", "was", "typed"], "folder": RUN / "logs"}] * 2


def test_an_error_that_nobody_catches_is_told_as_by_python(
    door: Door, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> int:
        raise RuntimeError("broken")

    door("launch.run.trained.evaluation.main", fail)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(RuntimeError) as error:
        app(["eval", "a"], prog_name="perceiver")
    # The variables of a frame may be passwords: they are in no frame of a picture.
    sys.excepthook(error.type, error.value, error.tb)
    told = capsys.readouterr().err
    assert told.startswith("Traceback (most recent call last):\n")
    assert told.endswith("RuntimeError: broken\n")
