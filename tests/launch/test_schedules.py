"""The commands of docs/training.md for the learning rate give the rates that the page says."""

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from data_shards.sources import table
from launch.cli.main import app

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
PEAK = 0.01
CONFIG = f"""
data: {{inputs: {{text: {{modality: text, num_bytes: 12}}}}, lanes: 2}}
model:
  inputs: {{text: {{max_tokens: 12, embedding_width: 8}}}}
  outputs: {{label: {{kind: label, num_classes: 3}}}}
  num_latents: 2
  latent_width: 8
  num_cross_attends: 1
  num_blocks: 1
  layers_per_block: 1
  self_attend: {{num_heads: 2}}
optimizer: {{learning_rate: {PEAK}}}
train: {{global_batch: 8, log_every_steps: 1}}
"""
# Of each command, with a hundredth of its steps.
EXPECTED = {
    "stable_decay": [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25],
    "step": [1.0] * 7 + [0.1] * 2 + [0.01],
}


@pytest.mark.slow
def test_the_commands_train_at_the_rates_of_their_schedules(tmp_path: Path) -> None:
    rows = [{"text": f"{n} times", "label": n % 3} for n in range(24)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table.build(tmp_path / "rows.jsonl", tmp_path / "shards")
    (tmp_path / "text.yaml").write_text(CONFIG)
    [block] = [part for part in re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL) if "schedule=" in part]
    places = {
        "configs/digits.yaml": str(tmp_path / "text.yaml"),
        "data.shards=data/digits": f"data.shards={tmp_path}/shards",
    }
    small = re.sub(r"\d+00\b", lambda steps: str(int(steps[0]) // 100), block)
    for line in small.replace("\\\n", " ").splitlines():
        words = [places.get(word, word) for word in shlex.split(line)]
        run = tmp_path / words[words.index("--run") + 1]
        words[words.index("--run") + 1] = str(run)
        done = CliRunner().invoke(app, words[1:], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        records = [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]
        rates = [record["learning_rate"] / PEAK for record in records if record["kind"] == "train"]
        [schedule] = [word.partition("=")[2] for word in words if word.startswith("optimizer.schedule=")]
        assert rates == pytest.approx(EXPECTED.pop(schedule))
    assert not EXPECTED
