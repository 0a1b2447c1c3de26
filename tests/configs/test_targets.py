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
        (WORDS, [], []),
        (WORDS, ["model.outputs.label.num_classes=3"], ["data.text.masking"]),
        (WORDS, ["model.outputs.text=null"], ["data.text.masking"]),
        (WORDS, ["data.text.masking.probability=1.5"], ["data.text.masking.probability"]),
    ],
)
def test_targets_and_answers_must_agree(tmp_path: Path, text: str, overrides: list[str], keys: list[str]) -> None:
    found = problems(tmp_path, text, *overrides)
    assert [key for key in found if key.startswith("data.")] == keys
