"""A network of a user's own is trained as the Perceiver is: killed, resumed with equal bits, evaluated, exported."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from launch.cli.main import app

MakeRun = Callable[..., Any]
EXAMPLES = Path(__file__).parents[2] / "examples" / "networks"
CONFIG = """
plugins: [resnet.py]
data: {inputs: {image: {modality: image, height: 8, width: 8}}, lanes: 8, window: 64, num_threads: 1}
model:
  network: {kind: resnet, width: 8, num_stages: 2}
  inputs: {image: {}}
  outputs: {label: {kind: label, num_classes: 10}}
optimizer: {learning_rate: 0.002}
train: {steps: 20, global_batch: 16, log_every_steps: 1, zero_stage: 2}
checkpoint: {save_every_steps: 5, save_every_minutes: 0}
"""


@pytest.mark.slow
def test_it_resumes_with_equal_bits_under_zero_with_random_layers_and_batch_norms(make_run: MakeRun) -> None:
    plain = make_run("plain", 2)
    source = (EXAMPLES / "resnet.py").read_text()
    # What PyTorch's own modules draw and average is resumed, too.
    source = (
        source.replace("nn.GroupNorm(4, width)", "nn.BatchNorm2d(width)")
        .replace("self.logits(self", "self.logits(functional.dropout(self")
        .replace(".mean(dim=(2, 3))", ".mean(dim=(2, 3)), 0.2, self.training)")
    )
    config = plain.config.with_name("custom.yaml")
    (config.parent / "resnet.py").write_text(source)
    config.write_text(CONFIG)
    plain = make_run("plain", 2, config=config)
    killed = make_run("killed", 2, config=config)
    assert [status for status, _, _ in plain.finish()] == [0, 0]
    killed.kill_after_checkpoint(step=10, rank=1)
    assert [status for status, _, _ in killed.finish()] == [0, 0]
    assert killed.weights() == plain.weights()
    assert killed.losses() == plain.losses()
    assert plain.losses()[20] < plain.losses()[1]
    runner = CliRunner()
    found = runner.invoke(app, ["eval", str(plain.folder), "--trust-code", "--json"], catch_exceptions=False)
    assert json.loads(found.stdout)["metrics"]["label"]["accuracy"]["all"] > 0.1
    shutil.rmtree(killed.folder)
