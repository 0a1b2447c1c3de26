"""An autoregressive run that is killed and resumed is the run that was not, to the bit, and writes the same text."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from data_shards.building.builder import build_table
from data_shards.building.raw_sample import Literal, Row
from launch.cli.main import app

TEXT = b"the quick brown fox jumps over the lazy dog; "
CONFIG = """
data:
  inputs: {text: {modality: text, num_bytes: 64}}
  lanes: 4
  window: 16
model:
  inputs: {text: {embedding_width: 32}}
  outputs: {text: {kind: autoregressive, prefix_dropout: 0.3}}
  cross_attend: {num_heads: 2}
  num_latents: 24
  latent_width: 32
  num_cross_attends: 1
  num_blocks: 1
  layers_per_block: 1
  self_attend: {num_heads: 2}
  dropout: 0.1
optimizer: {learning_rate: 0.01, warmup_steps: 2}
ema: {decay: 0.9, every_steps: 2}
train: {steps: 40, global_batch: 16, micro_batch: 8, log_every_steps: 1}
checkpoint: {save_every_steps: 5, save_every_minutes: 0}
"""


def command(*words: str) -> str:
    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.slow
def test_a_killed_run_resumes_bit_equal_and_continues_a_prompt_as_the_undisturbed_one(
    make_run: Callable[..., Any], tmp_path: Path
) -> None:
    rows = [
        Row(line, (Literal(TEXT * 2 + TEXT[: line % 45], "txt"),), split="test" if line >= 64 else "train")
        for line in range(80)
    ]
    build_table(rows, tmp_path / "shards", label_names=())
    config = tmp_path / "run.yaml"
    config.write_text(CONFIG)
    undisturbed = make_run("undisturbed", config=config, shards=tmp_path / "shards")
    killed = make_run("killed", config=config, shards=tmp_path / "shards")
    status, _, errors = undisturbed.finish()[0]
    assert status == 0, errors
    killed.kill_after_checkpoint(step=10, rank=0)
    status, _, errors = replace(killed, config=killed.folder / "config.yaml").finish()[0]
    assert status == 0, errors
    assert killed.losses() == undisturbed.losses()
    assert killed.weights() == undisturbed.weights()
    assert any(name.startswith("ema-") for name in killed.weights())

    losses = list(killed.losses().values())
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    found = json.loads(command("eval", str(killed.folder), "--json"))
    bits = found["metrics"]["text"]["bits_per_byte"]["all"]
    # Of the training the dropout and the hidden places are more.
    assert bits < losses[0]
    asked = ("--prompt", "the quick", "--length", "80", "--temperature", "0.5", "--json")
    texts = [command("generate", str(run.folder), *asked) for run in (killed, undisturbed)]
    assert texts[0] == texts[1]
    assert json.loads(texts[0])["text"].startswith("the quick")
