"""What is asked of predict and embed is refused before the work where it cannot be had."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from configs.run import RunConfig
from launch.answers import request
from launch.answers.request import Asked
from model.outputs.label import LabelOutput, LabelsOutput
from model.outputs.value import ValueOutput


def config_of(*outputs: object, network: object = None) -> RunConfig:
    """Return as much of a configuration as is looked at."""
    model = SimpleNamespace(network=network, answers=lambda: dict(enumerate(outputs)))
    return cast("RunConfig", SimpleNamespace(model=model, data=None))


@pytest.mark.parametrize(
    ("command", "out", "beside"),
    [
        ("predict", "a.csv", ["a.csv.files", "a.csv.skipped.jsonl"]),
        ("embed", "a.npy", ["a.keys.json", "a.npy.skipped.jsonl"]),
        ("embed", "a.safetensors", ["a.safetensors.skipped.jsonl"]),
    ],
)
def test_every_name_that_a_command_takes_is_known(command: str, out: str, beside: list[str]) -> None:
    assert [path.name for path in request.beside(command, Path(out))] == beside


class Own:
    """The output of a plug-in."""


CLASSES, SETS, NUMBER = LabelOutput(num_classes=3), LabelsOutput(num_classes=3), ValueOutput()


@pytest.mark.parametrize(
    ("top", "outputs", "is_refused"),
    [
        (1, [NUMBER], False),
        (2, [NUMBER], True),
        (0, [NUMBER], True),
        (2, [NUMBER, CLASSES], False),
        (5, [SETS], False),
        (2, [NUMBER, Own()], False),
    ],
)
def test_more_than_one_class_is_asked_of_a_run_that_has_classes(
    top: int, outputs: list[object], is_refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request, "is_of_plugin", lambda kind: kind is Own)
    if is_refused:
        with pytest.raises(ValueError, match=rf"--top {top}: no output of the run answers with classes; leave it out"):
            request._refuse_top(top, config_of(*outputs))
    else:
        request._refuse_top(top, config_of(*outputs))


@pytest.mark.parametrize(
    ("command", "network", "is_refused"),
    [("embed", "theirs", True), ("embed", None, False), ("predict", "theirs", False), ("predict", None, False)],
)
def test_latents_are_asked_of_a_perceiver_alone(
    command: str, network: str | None, is_refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[tuple[object, ...]] = []
    monkeypatch.setattr(request, "check_weights", lambda *args: looked.append(args))
    monkeypatch.setattr(request.new_samples, "refuse_absent", lambda *args: looked.append(args))
    out = tmp_path / {"embed": "a.npy", "predict": "a.csv"}[command]
    asked, config = Asked(Path("run"), ("a.png",), out, split="test"), config_of(CLASSES, network=network)
    if is_refused:
        with pytest.raises(ValueError, match="run: has a plug-in's network, and latents are a Perceiver's"):
            request.check(command, asked, config)
    else:
        request.check(command, asked, config)
        assert looked == [(Path("run"), config, "newest", ""), (("a.png",), None, "test")]
