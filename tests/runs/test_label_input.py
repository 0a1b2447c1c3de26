"""A run that reads the label it answers, hidden from half of the samples, as Perceiver IO on Kinetics."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launch.answers.loaded_run import load_run
from model.perceiver import Perceiver

INPUTS = """
data:
  inputs: {image: {modality: image, height: 8, width: 8}, label: {modality: label, num_classes: 10}}
  lanes: 8
  window: 64
  num_threads: 1
model:
  inputs: {image: {patch: 2, positions: {num_bands: 2}}}
  outputs:
    image: {kind: grid, positions: {num_bands: 2}, train_queries: 16}
    label: {kind: label, num_classes: 10, pooling: query, loss_weight: 0.1}
  mask_tokens: true
  num_latents: 8
  latent_width: 32
  num_cross_attends: 1
  num_blocks: 1
  layers_per_block: 1
  self_attend: {num_heads: 2}
train: {steps: 20, global_batch: 16, log_every_steps: 1}
checkpoint: {save_every_steps: 5, save_every_minutes: 0}
"""


@pytest.mark.slow
def test_the_mask_token_of_a_hidden_label_is_learned_and_a_run_resumes_with_equal_bits(
    make_run: Callable[..., Any],
    tmp_path: Path,
) -> None:
    config = tmp_path / "label.yaml"
    config.write_text(INPUTS.replace("model:\n  inputs: {", "model:\n  inputs: {label: {}, "))
    undisturbed, killed = make_run("undisturbed", config=config), make_run("killed", config=config)
    status, _, errors = undisturbed.finish()[0]
    assert status == 0, errors
    killed.kill_after_checkpoint(step=5, rank=0)
    status, _, errors = killed.finish()[0]
    assert status == 0, errors
    assert killed.losses() == undisturbed.losses()
    assert killed.weights() == undisturbed.weights()
    run = load_run(killed.folder)
    name = "inputs.mask_tokens.label.weight"
    before = Perceiver(run.config.model, seed=run.config.seed).state_dict()[name]
    assert (run.network.state_dict()[name] - before).abs().max() > 1e-4
