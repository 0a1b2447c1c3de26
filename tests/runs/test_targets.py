"""Runs whose targets are not one class a sample, through the real command."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from warm_start import finished

from data_shards.building.builder import build_table
from data_shards.building.raw_sample import Literal, Row

SMALL = """
  num_latents: 8
  latent_width: 32
  num_cross_attends: 1
  num_blocks: 1
  layers_per_block: 1
  self_attend: {num_heads: 2}
optimizer: {learning_rate: 0.01, warmup_steps: 2}
train: {steps: 30, global_batch: 16, log_every_steps: 1}
"""
WORDS = f"""
data:
  inputs: {{text: {{modality: text, num_bytes: 24, masking: {{probability: 0.3}}}}}}
  lanes: 4
  window: 16
model:
  inputs: {{text: {{max_tokens: 24, embedding_width: 16}}}}
  outputs: {{text: {{kind: text}}}}
  cross_attend: {{num_heads: 2, qk_width: 16, value_width: 16}}
  decoder: {{cross_attend: {{num_heads: 2, qk_width: 16, value_width: 16}}}}
{SMALL}"""
CLASSES = f"""
data:
  inputs: {{image: {{modality: image, height: 4, width: 4}}}}
  LABELS
  lanes: 4
  window: 16
model:
  inputs: {{image: {{height: 4, width: 4, positions: {{num_bands: 2}}}}}}
  outputs: {{label: {{kind: KIND, num_classes: 2}}}}
{SMALL}"""
AGAIN = f"""
data:
  inputs: {{image: {{modality: image, height: 4, width: 4}}}}
  lanes: 4
  window: 16
model:
  inputs: {{image: {{height: 4, width: 4, positions: {{num_bands: 2}}}}}}
  outputs:
    image: {{kind: grid, shape: [4, 4], train_queries: 5, positions: {{num_bands: 2}}}}
    label: {{kind: label, num_classes: 2, pooling: query, loss_weight: 0.1}}
{SMALL}"""
NAMED = f"""
data:
  inputs: {{image: {{modality: image, height: 4, width: 4}}}}
  labels: [shade]
  lanes: 4
  window: 16
model:
  inputs: {{image: {{height: 4, width: 4, positions: {{num_bands: 2}}}}}}
  outputs:
    label: {{kind: label, num_classes: 2, pooling: query}}
    shade: {{kind: label, target: shade, num_classes: 2, pooling: query}}
{SMALL}"""
PAIRS = f"""
data:
  inputs: {{flow: {{modality: flow, height: 8, width: 8, test_height: 12, test_width: 16}}}}
  lanes: 4
  window: 16
model:
  inputs: {{flow: {{height: 8, width: 8, project_to: 12, positions: {{num_bands: 2}}}}}}
  outputs: {{flow: {{kind: flow, rescale: 1.0}}}}
  decoder: {{output_width: 16}}
{SMALL}"""
VALUE = f"""
data:
  inputs: {{image: {{modality: image, height: 4, width: 4}}}}
  values: [brightness]
  lanes: 4
  window: 16
model:
  inputs: {{image: {{height: 4, width: 4, positions: {{num_bands: 2}}}}}}
  outputs: {{brightness: {{kind: value, loss: huber, offset: 100, scale: 125}}}}
{SMALL}"""
CASES = {
    "value": VALUE,
    "again": AGAIN,
    "named": NAMED,
    "pairs": PAIRS,
    "words": WORDS,
    "mixed": CLASSES.replace("LABELS", "mixup: {mixup_alpha: 0.2}").replace("KIND", "label"),
    "several": CLASSES.replace("LABELS", "multi_label: true").replace("KIND", "labels"),
}
MEASURES = {
    "value": {"brightness/root_mean_squared_error", "brightness/mean_absolute_error", "brightness/r2"},
    "again": {"label/accuracy", "image/psnr"},
    "named": {"label/accuracy", "shade/accuracy"},
    "pairs": {"flow/end_point_error"},
    "words": {"text/accuracy"},
    "mixed": {"label/accuracy"},
    "several": {"label/mean_average_precision"},
}


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def pair(line: int) -> tuple[Literal, Literal, Literal]:
    """The second frame is as bright as the first has moved to the right and down."""
    motion = np.random.default_rng(line).uniform(-2, 2, 2).astype("<f4")
    first, second = np.zeros((12, 16, 3), np.uint8), np.zeros((12, 16, 3), np.uint8)
    second[..., :2] = 128 + 60 * motion
    moved = b"PIEH" + np.array([16, 12], "<i4").tobytes() + np.tile(motion, 12 * 16).tobytes()
    return Literal(png(first), "first.png"), Literal(png(second), "second.png"), Literal(moved, "flo")


def row(line: int) -> Row:
    """A picture as bright as its class, a sentence that is always the same, and frames that say how far they moved."""
    picture = Literal(png(np.full((4, 4), 250 * (line % 2), np.uint8)), "png")
    members = (picture, Literal(b"every word is known", "txt"), *pair(line))
    # Every fourth sample has no shade.
    named = {"shade": 1 - line % 2} if line % 4 else {}
    # Every fifth sample has no brightness.
    values = {"brightness": (250.0 * (line % 2),)} if line % 5 else {}
    return Row(
        line, members, label=line % 2, named_labels=named, values=values, split="test" if line >= 64 else "train"
    )


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_run_learns_what_its_targets_say(tmp_path: Path, case: str) -> None:
    rows, shades = [row(line) for line in range(80)], {"shade": ["bright", "dark"]}
    build_table(rows, tmp_path / "shards", label_names="ab", named_labels=shades, samples_per_shard=32)
    (tmp_path / "run.yaml").write_text(CASES[case])
    words = [tmp_path / "run.yaml", "--run", tmp_path / "run", f"data.shards={tmp_path / 'shards'}"]
    trained = finished([sys.executable, "-m", "launch", "train", *map(str, words)])
    assert trained.returncode == 0, trained.stderr
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert MEASURES[case] <= {key for record in records if record["kind"] == "evaluation" for key in record}
    seen = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload().Tags()["images"]
    assert seen == {"again": ["reconstructions/image"], "pairs": [], "words": []}.get(case, ["inputs/image"])
    losses = [record["loss"] for record in records if record["kind"] == "train"]
    assert len(losses) == 30
    # Mixed labels keep the entropy of their shares, which nothing can learn away.
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:3])
