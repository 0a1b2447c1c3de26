"""A run on the tokens of a tokenizer.json whose file goes away: killed, resumed, evaluated, forked, exported."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import transformers
from typer.testing import CliRunner

from data_shards.building.builder import build_table
from data_shards.building.raw_sample import Literal, Row
from data_shards.modalities.kinds.text import TextConfig
from data_shards.modalities.transforms.text import fit
from launch.cli.main import app

TEXT = "the quick brown fox jumps over the lazy dog"
CONFIG = """
data:
  inputs: {text: {modality: text, tokenizer: own.json, num_tokens: 48, masking: {probability: 0.3}}}
  lanes: 4
  window: 16
model:
  inputs: {text: {embedding_width: 16}}
  outputs: {text: {kind: text}}
  cross_attend: {num_heads: 2, qk_width: 16, value_width: 16}
  decoder: {cross_attend: {num_heads: 8, qk_width: 256, value_width: 16}}
  num_latents: 8
  latent_width: 32
  num_cross_attends: 1
  num_blocks: 1
  layers_per_block: 1
  self_attend: {num_heads: 2}
optimizer: {learning_rate: 0.02, warmup_steps: 2}
train: {steps: 40, global_batch: 16, log_every_steps: 1}
checkpoint: {save_every_steps: 5, save_every_minutes: 0}
"""


def command(*words: str) -> str:
    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.slow
def test_a_run_needs_the_file_of_its_tokenizer_only_to_be_made(
    make_run: Callable[..., Any], tmp_path: Path, tokenizers: dict[str, Path]
) -> None:
    rows = [Row(line, (Literal(TEXT.encode(), "txt"),), split="test" if line >= 64 else "train") for line in range(80)]
    build_table(rows, tmp_path / "shards", label_names=(), samples_per_shard=32)
    own, config = tmp_path / "own.json", tmp_path / "run.yaml"
    shutil.copy(tokenizers["unigram"], own)
    config.write_text(CONFIG)
    undisturbed = make_run("undisturbed", config=config, shards=tmp_path / "shards")
    killed = make_run("killed", config=config, shards=tmp_path / "shards")
    status, _, errors = undisturbed.finish()[0]
    assert status == 0, errors
    killed.kill_after_checkpoint(step=10, rank=0)
    own.unlink()
    resumed = replace(killed, config=killed.folder / "config.yaml")
    status, _, errors = resumed.finish()[0]
    assert status == 0, errors
    assert killed.losses() == undisturbed.losses()
    assert killed.weights() == undisturbed.weights()

    losses = list(killed.losses().values())
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])

    command("eval", str(killed.folder))
    lines = (killed.folder / "pictures" / "filled_in_text.txt").read_text().splitlines()
    assert lines[2] == f"  true:   {TEXT}"
    assert "<mask>" in lines[1]
    assert "<mask>" not in lines[3]

    command("fork", str(killed.folder), str(tmp_path / "forked"), "seed=0", "train.log_every_steps=2")
    command("export", str(tmp_path / "forked"), str(tmp_path / "out"))
    exported = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    (copy,) = (killed.folder / "files").iterdir()
    section = TextConfig(tokenizer=str(copy), num_tokens=48)
    for text in (TEXT, "a cat", "wörter"):
        ids, length = fit(text.encode(), section, None)
        given = exported(text, padding="max_length", truncation=True)
        assert given["input_ids"] == ids.tolist()
        assert sum(given["attention_mask"]) == length
    assert exported.mask_token == "<mask>"
    network = transformers.AutoConfig.from_pretrained(tmp_path / "out")
    assert network.vocab_size == section.vocabulary
