"""What the data's targets ask for, the network must answer."""

from pathlib import Path

import pytest

from configs.reader import ConfigError
from configs.run import load

CLASSES = """
data:
  image: {height: 8, width: 8}
model:
  inputs: {image: {height: 8, width: 8}}
  outputs: {label: {num_classes: 10}}
train: {global_batch: 32}
"""
WORDS = """
data:
  text: {num_bytes: 32, masking: {probability: 0.15}}
model:
  inputs: {text: {max_tokens: 32}}
  outputs: {text: {}}
train: {global_batch: 32}
"""
AGAIN = """
data:
  audio: {num_samples: 64}
  image: {height: 8, width: 8}
model:
  inputs:
    audio: {num_samples: 64, patch: 8}
    image: {height: 8, width: 8}
  outputs:
    audio: {shape: [8], num_channels: 8}
    image: {shape: [8, 8]}
train: {global_batch: 32}
"""


PAIRS = """
data:
  flow: {height: 8, width: 8}
model:
  inputs: {flow: {height: 8, width: 8}}
  outputs: {flow: {}}
train: {global_batch: 32}
"""


def problems(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    (tmp_path / "run.yaml").write_text(text)
    try:
        load(tmp_path / "run.yaml", overrides)
    except ConfigError as error:
        return [problem.split(" = ")[0] for problem in error.problems]
    return []


@pytest.mark.parametrize(
    ("text", "overrides", "keys"),
    [
        (CLASSES, [], []),
        (CLASSES, ["data.multi_label=true"], ["data.multi_label"]),
        (CLASSES, ["data.multi_label=true", "model.outputs.label.multi_label=true"], []),
        (CLASSES, ["data.mix={}"], []),
        (CLASSES, ["model.outputs.text={}"], ["data.text.masking", "model.outputs.text"]),
        (CLASSES, ["model.outputs.labels={colour: {num_classes: 3}}"], ["model.outputs.labels.colour"]),
        (CLASSES, ["data.labels=[colour]"], ["data.labels"]),
        (CLASSES, ["model.outputs.labels={colour: {num_classes: 3}}", "data.labels=[colour]"], []),
        (
            CLASSES,
            ["model.outputs.labels={colour: {num_classes: 3, multi_label: true}}", "data.labels=[colour]"],
            ["model.outputs.labels.colour.multi_label"],
        ),
        (
            CLASSES,
            ["model.outputs.labels={text: {num_classes: 3}}", "data.labels=[text]"],
            ["model.outputs.labels.text"],
        ),
        (CLASSES, ["model.outputs.video.shape=[2, 8, 8]"], ["model.outputs.video"]),
        (WORDS, [], []),
        (WORDS, ["model.outputs.label={num_classes: 3}"], []),
        (WORDS, ["model.outputs.text=null", "model.outputs.label.num_classes=3"], ["data.text.masking"]),
        (PAIRS, [], []),
        (PAIRS, ["model.outputs.flow=null", "model.outputs.label.num_classes=3"], ["data.flow"]),
        (PAIRS, ["data.flow.test_height=4"], ["data.flow.test_height"]),
        (CLASSES, ["model.inputs.flow={}", "model.outputs.flow={}"], ["data.flow", "model.outputs.flow"]),
        (AGAIN, [], []),
        (AGAIN, ["model.outputs.label.num_classes=3", "data.mix={}"], ["data.mix"]),
        (AGAIN, ["model.outputs.image.shape=[8, 4]"], ["model.outputs.image.shape"]),
        (AGAIN, ["model.outputs.image.num_channels=1"], ["model.outputs.image.shape"]),
        (AGAIN, ["model.outputs.audio.shape=[16]"], ["model.outputs.audio.shape"]),
        (AGAIN, ["model.outputs.image.train_queries=65"], ["model.outputs.image.train_queries"]),
        (WORDS, ["data.text.masking.probability=1.5"], ["data.text.masking.probability"]),
    ],
)
def test_targets_and_answers_must_agree(tmp_path: Path, text: str, overrides: list[str], keys: list[str]) -> None:
    found = problems(tmp_path, text, *overrides)
    assert sorted(key for key in found if key.startswith(("data.", "model.outputs."))) == keys
