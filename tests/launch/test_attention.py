"""Where the latents look is drawn for one sample of the first evaluated batch, a picture a modality."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "trainer"))
from checkpoints import save

from configs.run import RunConfig, load
from data_shards.sources import table
from launch.lifecycle.run_folder import RunFolder
from launch.report import attention_pictures
from launch.run.creation import open_run
from launch.run.loaders import identity
from model.perceiver import Perceiver
from trainer.checkpoint.names import MANIFEST
from trainer.distributed.world import World

CONFIG = """
data:
  inputs:
    image: {modality: image, height: 8, width: 8, shift_pixels: 0}
    text: {modality: text, num_bytes: 8}
  lanes: 2
  window: 8
model:
  inputs: {image: {height: 8, width: 8}, text: {max_tokens: 8, embedding_width: 16}}
  outputs: {label: {kind: label, num_classes: 3}}
  num_latents: 4
  latent_width: 16
  num_cross_attends: 1
  num_blocks: 1
  layers_per_block: 1
  self_attend: {num_heads: 2}
train: {steps: 8, global_batch: 8}
"""


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run with checkpoints of other networks at steps 4 and 8, the first the better; five pictures are evaluated."""
    rows = []
    for number in range(13):
        pixels = np.full((8, 8, 3), 10 * number, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        split = "test" if number < 5 else "train"
        rows.append({"image": f"{number}.png", "text": f"n {number}", "label": number % 3, "split": split})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table.build(tmp_path / "rows.jsonl", tmp_path / "shards")
    (tmp_path / "config.yaml").write_text(CONFIG)
    config = load(tmp_path / "config.yaml", [f"data.shards={tmp_path}/shards"])
    folder = RunFolder(tmp_path / "run")
    open_run(config, folder)
    for step, score in ((4, 0.9), (8, 0.1)):
        weights = Perceiver(config.model, seed=step).state_dict()
        save(folder.checkpoints_folder, step, weights, identity=identity(config), score=score)
    return folder


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What was drawn; it is drawn all the same."""
    calls: list[dict[str, Any]] = []
    draw, close = attention_pictures.draw, World.close

    def noted(maps: Any, modality: str, sample: int, values: np.ndarray, out: Path) -> None:  # noqa: ANN401
        calls.append({"maps": maps, "modality": modality, "sample": sample, "values": values, "out": out})
        draw(maps, modality, sample, values, out)

    def left(world: World) -> None:
        calls.append({"modality": "leaves"})
        close(world)

    monkeypatch.setattr(attention_pictures, "draw", noted)
    monkeypatch.setattr(World, "close", left)
    return calls


def test_a_sample_is_drawn_a_picture_a_modality_of_its_own_values(run: RunFolder, drawn: list[dict[str, Any]]) -> None:
    found = attention_pictures.main(run.path, 1)
    assert found == [run.pictures_folder / f"attention_{name}.png" for name in ("image", "text")]
    assert all(path.is_file() for path in found)
    assert [call["modality"] for call in drawn] == ["image", "text", "leaves"]
    assert [call["out"] for call in drawn[:2]] == found
    assert [call["sample"] for call in drawn[:2]] == [1, 1]
    image, text = drawn[0]["values"], drawn[1]["values"].ravel() - 6
    assert image.shape == (8, 8, 3)
    number = int(image.max()) // 10
    # The ids of a text are its bytes and 6.
    assert bytes(text[:3].tolist()) == f"n {number}".encode()


def test_the_checkpoint_that_is_named_is_looked_into(run: RunFolder, drawn: list[dict[str, Any]]) -> None:
    for which in ("newest", "8", "best"):
        attention_pictures.main(run.path, 0, which)
    newest, eighth, best = (call["maps"][0].weights["image"] for call in drawn if call["modality"] == "image")
    assert torch.equal(newest, eighth)
    assert not torch.equal(newest, best)


def test_a_damaged_checkpoint_is_passed_over_and_told(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    (run.checkpoints_folder / "step_00000008" / MANIFEST).write_text("{")
    attention_pictures.main(run.path, 0)
    assert "skipped a damaged checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("sample", [8, 9])
def test_a_sample_beyond_the_first_batch_is_refused(run: RunFolder, sample: int) -> None:
    with pytest.raises(
        ValueError, match=f"--sample {sample}: the first batch of split 'test' has [58] samples, from 0"
    ):
        attention_pictures.main(run.path, sample)
    assert list(run.pictures_folder.iterdir()) == []


def test_the_network_of_a_plug_in_has_no_attention_that_is_known(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def theirs(path: Path) -> RunConfig:
        config = load(path)
        return replace(config, model=replace(config.model, network=SimpleNamespace(kind="mine")))

    monkeypatch.setattr(attention_pictures, "load", theirs)
    with pytest.raises(
        ValueError, match=r"run: model\.network is mine, whose attention is not known; maps are drawn of"
    ):
        attention_pictures.main(run.path, 0)
