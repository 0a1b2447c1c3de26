"""A field that is observed at some stations and decoded at others, each sample with its own: all that a user does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from launch.cli.main import app

CONFIG = """
data:
  inputs:
    observed: {modality: array, members: observed.npy, shape: [20, 1], coordinates: stations.npy, num_axes: 2,
      coordinates_min: [-90, -180], coordinates_max: [90, 180]}
    wanted: {modality: array, members: wanted.npy, shape: [12], axes: [place], nan: keep, coordinates: places.npy,
      num_axes: 2, coordinates_min: [-90, -180], coordinates_max: [90, 180]}
  lanes: 4
  window: 32
  num_threads: 1
model:
  inputs: {observed: {positions: {num_bands: 4, max_resolution: [8, 8]}}}
  outputs: {field: {kind: points, target: wanted, coordinates: wanted.coordinates, num_bands: 4, max_frequency: 4}}
  num_latents: 8
  latent_width: 32
  num_cross_attends: 1
  num_blocks: 1
  layers_per_block: 1
  self_attend: {num_heads: 2}
optimizer: {learning_rate: 0.005, warmup_steps: 10}
train: {steps: 150, global_batch: 32, log_every_steps: 1}
checkpoint: {save_every_steps: 50, save_every_minutes: 0}
"""


def field(weights: np.ndarray, places: np.ndarray) -> np.ndarray:
    """A few smooth waves over the globe: a sample's weather is their weights."""
    latitude, longitude = np.deg2rad(places.T)
    waves = [np.sin(latitude), np.cos(longitude) * np.cos(latitude), np.sin(longitude) * np.cos(latitude)]
    return np.tensordot(weights, waves, axes=1)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of 320 samples: 12 to 24 stations with what they observe, 12 places elsewhere with what it is there."""
    numbers = np.random.default_rng(0)
    rows = ["member.observed,member.stations,member.wanted,member.places,split"]
    for line in range(320):
        weights, files = numbers.normal(size=3), []
        count = int(numbers.integers(12, 25))
        for name, where, places in (("observed", "stations", count), ("wanted", "places", 12)):
            drawn = numbers.uniform((-90, -180), (90, 180), (places, 2))
            values = field(weights, drawn)
            if name == "wanted":
                values[numbers.integers(12)] = np.nan  # a place where nobody measured
            for kind, array in ((name, values[:, None] if name == "observed" else values), (where, drawn)):
                np.save(tmp_path / f"{kind}{line}.npy", array)
                files.append(f"{kind}{line}.npy")
        rows.append(",".join([*files, "test" if line >= 256 else "train"]))
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "table.csv"


@pytest.mark.slow
def test_a_field_is_interpolated_and_the_run_resumes_after_a_kill_with_equal_bits(
    make_run: Callable[..., Any], table: Path, tmp_path: Path
) -> None:
    shards, config = tmp_path / "shards", tmp_path / "weather.yaml"
    config.write_text(CONFIG)
    for words in (["build", "table", str(table), str(shards)], ["verify", str(shards), "--config", str(config)]):
        told = CliRunner().invoke(app, ["data", *words, "--jobs", "1"], catch_exceptions=False)
        assert told.exit_code == 0, told.output
    assert "320 samples, 0 bad" in told.output
    assert "observed.coordinates" in told.output
    undisturbed = make_run("undisturbed", config=config, shards=shards)
    killed = make_run("killed", config=config, shards=shards)
    status, _, errors = undisturbed.finish()[0]
    assert status == 0, errors
    killed.kill_after_checkpoint(step=50, rank=0)
    status, _, errors = killed.finish()[0]
    assert status == 0, errors
    assert killed.losses() == undisturbed.losses()
    assert killed.weights() == undisturbed.weights()
    told = CliRunner().invoke(app, ["eval", str(killed.folder), "--json"], catch_exceptions=False)
    assert told.exit_code == 0, told.output
    metrics = json.loads(told.stdout)["metrics"]["field"]
    # The mean of the split has 0.
    assert metrics["r2"]["all"] > 0.5, metrics
