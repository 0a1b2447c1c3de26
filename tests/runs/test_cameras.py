"""Several inputs of one modality: two cameras, a depth map of 16 bits and a multispectral image, all the way."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from warm_start import finished

from configs.run import load
from data_shards.building.inspection.contact_sheet import contact_sheet
from data_shards.building.inspection.verification import verify
from data_shards.sources import table

CONFIG = """
data:
  inputs:
    left: {modality: image, members: left.jpg, height: 8, width: 8}
    right: {modality: image, members: right.jpg, height: 8, width: 8}
    depth: {modality: image, members: depth.png, height: 8, width: 8, num_channels: 1, values: unit, resize: nearest}
    bands: {modality: image, members: bands.tif, height: 8, width: 8, num_channels: 13, values: raw}
  lanes: 4
  window: 16
model:
  mask_tokens: true
  inputs:
    left: {patch: 2, positions: {num_bands: 2}}
    right: {patch: 2, positions: {num_bands: 2}}
    depth: {patch: 2, positions: {num_bands: 2}}
    bands: {patch: 2, positions: {num_bands: 2}}
  outputs:
    label: {kind: label, num_classes: 2, pooling: query}
    depth: {kind: grid, positions: {num_bands: 2}}
    bands: {kind: masked, positions: {num_bands: 2}}
  num_latents: 8
  latent_width: 32
  num_cross_attends: 1
  num_blocks: 1
  layers_per_block: 1
  self_attend: {num_heads: 2}
optimizer: {learning_rate: 0.01, warmup_steps: 2}
train: {steps: 40, global_batch: 16, log_every_steps: 1}
"""


def perceiver(folder: Path, *words: str) -> str:
    command = [sys.executable, "-m", "launch", *words]
    done = finished(command, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_two_cameras_a_depth_map_and_a_multispectral_image_go_the_whole_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    draws = np.random.default_rng(0)
    with (tmp_path / "samples.csv").open("w") as file:
        rows = csv.writer(file)
        rows.writerow(["member.left", "member.right", "member.depth", "member.bands", "label", "split"])
        for number in range(80):
            # The depth alone knows the class, in bits that 8 bits would lose.
            label, names = number % 2, [f"{number}{name}" for name in ("l.jpg", "r.jpg", "d.png", "b.tif")]
            for name in names[:2]:
                Image.fromarray(draws.integers(0, 256, (10, 12, 3), np.uint8)).save(tmp_path / name)
            depth = draws.integers(0, 100, (8, 8)) + 40_000 * label
            Image.fromarray(depth.astype(np.uint16)).save(tmp_path / names[2])
            # Thirteen pages, one a channel.
            bands = draws.random((13, 8, 8), np.float32)
            tifffile.imwrite(tmp_path / names[3], bands, photometric="minisblack")
            rows.writerow([*names, label, "train" if number < 64 else "test"])
    (tmp_path / "run.yaml").write_text(CONFIG)

    shards = tmp_path / "shards"
    table.build(tmp_path / "samples.csv", shards)
    report = verify(shards, load(tmp_path / "run.yaml").data)
    assert (report.samples, report.bad) == (80, [])
    assert {name: least for name, (least, _) in report.shapes.items()} == {
        "bands": [8, 8, 13], "depth": [8, 8, 1], "left": [10, 12, 3], "right": [10, 12, 3]
    }  # fmt: skip
    assert contact_sheet(shards, tmp_path / "sheet.png", num_samples=2) == 2
    perceiver(tmp_path, "train", "run.yaml", "data.shards=shards", "--run", "run")
    found = json.loads(perceiver(tmp_path, "eval", "run", "--json"))["metrics"]
    assert found["label"]["accuracy"]["all"] == found["label"]["accuracy"]["depth"] == 1
    assert found["depth"]["psnr"]["all"] > 10
    assert "root_mean_squared_error" in found["bands"]
    assert "psnr" not in found["bands"]
    pictures = {path.name for path in (tmp_path / "run" / "pictures").iterdir()}
    assert {"predictions.png", "reconstructed_bands.png", "reconstructed_depth.png"} <= pictures
