"""A run shows some inputs, and what its network drew again, on the first rank."""

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from data_shards.loading.batch import Batch
from data_shards.modalities.kinds.audio import AudioConfig
from data_shards.modalities.kinds.image import ImageConfig
from data_shards.modalities.kinds.video import VideoConfig
from data_shards.modalities.modality import Modality
from launch.pictures import drawing, predictions
from launch.pictures.predictions import shown
from model.outputs.grid import GridOutput
from model.outputs.label import LabelOutput
from trainer.distributed.world import World
from trainer.tasks.objective import Objective, objective

SEEN: dict[str, Modality] = {
    "image": ImageConfig(height=4, width=4),
    "video": VideoConfig(num_frames=2, height=4, width=4),
    "audio": AudioConfig(num_samples=8),
}
GOAL = objective({"image": GridOutput(target="image", shape=(4, 4), num_channels=3)})


class Gray(nn.Module):
    """Draws every picture gray."""

    def forward(self, arrays: dict[str, Tensor], _lengths: dict[str, Tensor], **_: object) -> dict[str, Tensor]:
        return {"image": torch.full((len(arrays["image"]), 4, 4, 3), 0.5)}


@pytest.fixture
def batch() -> Batch:
    return Batch(
        arrays={
            "image": torch.zeros(12, 4, 4, 3, dtype=torch.uint8),
            "video": torch.zeros(12, 2, 4, 4, 3, dtype=torch.uint8),
        },
        lengths={"image": torch.full((12,), 4), "video": torch.full((12,), 2)},
        labels=torch.zeros(12, dtype=torch.int64),
        weights=torch.ones(12),
        keys=tuple("abcdefghijkl"),
    )


def test_what_is_drawn_again_stands_below_its_input_and_other_inputs_alone(batch: Batch) -> None:
    world = World(0, 1, 0, torch.device("cpu"))
    found = shown(Gray(), GOAL, batch, world, SEEN)
    assert found.keys() == {"reconstructions/image", "inputs/video"}
    both, alone = found["reconstructions/image"], found["inputs/video"]
    assert len(both) == 2 * len(alone)
    # The lower row is gray where the upper one is black.
    assert (both[len(both) // 2 :] == 127).any()
    assert not (both[: len(both) // 2] == 127).all(axis=-1).sum() > 100
    assert shown(Gray(), GOAL, batch, replace(world, rank=1), SEEN) == {}


def test_as_many_samples_are_shown_as_divide_the_batch_and_all_that_a_person_can_see(
    batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[dict[str, np.ndarray]] = []
    monkeypatch.setattr(drawing, "samples", lambda of_name, **_: rows.append(of_name) or drawing.Figure())
    world, label = World(0, 1, 0, torch.device("cpu")), objective({"label": LabelOutput(num_classes=3)})
    batch.arrays["image"][:] = 255
    batch.arrays["audio"] = torch.zeros(12, 8, 1)
    batch.lengths["audio"] = torch.full((12,), 8)
    found = shown(nn.Identity(), label, batch, world, SEEN)
    assert list(found) == ["inputs/image", "inputs/video"]
    assert [list(row) for row in rows] == [["input"], ["input"]]
    # 4 of 12; 8 of 16 and of 8.
    assert rows[0]["input"].shape == (4, 4, 4, 3)
    assert (rows[0]["input"] == 1.0).all()
    shown(Gray(), GOAL, batch, world, SEEN)
    assert list(rows[-1]) == ["input", "drawn"]
    assert {value.shape for value in rows[-1].values()} == {(4, 4, 4, 3)}


def test_values_are_drawn_in_the_range_that_they_have_and_what_was_hidden_is_known(
    monkeypatch: pytest.MonkeyPatch, batch: Batch
) -> None:
    drawn: list[tuple[dict[str, np.ndarray], bool]] = []

    def samples(rows: dict[str, np.ndarray], *, is_unit: bool) -> drawing.Figure:
        drawn.append((rows, is_unit))
        return drawing.Figure()

    monkeypatch.setattr(drawing, "samples", samples)
    truth, seen = torch.full((4, 2, 8), 7.0), torch.full((4, 2, 8), 5.0)
    monkeypatch.setattr(predictions, "reconstructions", lambda *_: {"wave": (truth, truth + 1)})
    task = SimpleNamespace(seen=lambda _: seen, output=SimpleNamespace(target="sound"), shows_unit_range=False)
    inputs: dict[str, Modality] = {
        "image": ImageConfig(height=4, width=4),
        "depth": ImageConfig(height=4, width=4, values="raw"),
        "bright": ImageConfig(height=4, width=4, values="unit"),
        "sound": AudioConfig(num_samples=16),
    }
    batch.arrays["image"][:] = 51
    batch.arrays.update({name: torch.full((12, 4, 4, 3), 3.0) for name in ("depth", "bright")})
    batch.lengths.update({name: torch.full((12,), 4) for name in ("depth", "bright")})
    goal = cast("Objective", SimpleNamespace(tasks={"wave": task}))
    shown(nn.Identity(), goal, batch, World(0, 1, 0, torch.device("cpu")), inputs)
    found = [({name: float(values.max()) for name, values in rows.items()}, is_unit) for rows, is_unit in drawn]
    expected = {"shown": 5.0, "answer": 8.0, "true": 7.0}
    assert found == [({"input": 0.2}, True), ({"input": 3.0}, False), ({"input": 3.0}, True), (expected, False)]
    # Two patches of eight are a curve of sixteen.
    assert drawn[-1][0]["true"].shape == (4, 16, 1)


@pytest.mark.parametrize(("samples", "expected"), [(8, 8), (16, 8), (12, 4), (7, 1)])
def test_no_more_than_eight_samples_are_shown(monkeypatch: pytest.MonkeyPatch, samples: int, expected: int) -> None:
    rows: list[int] = []
    monkeypatch.setattr(drawing, "samples", lambda of_name, **_: rows.append(len(of_name["input"])) or drawing.Figure())
    batch = Batch(
        arrays={"image": torch.zeros(samples, 4, 4, 3, dtype=torch.uint8)},
        lengths={"image": torch.full((samples,), 4)},
        labels=torch.zeros(samples, dtype=torch.int64),
        weights=torch.ones(samples),
        keys=tuple(map(str, range(samples))),
    )
    label = objective({"label": LabelOutput(num_classes=3)})
    shown(nn.Identity(), label, batch, World(0, 1, 0, torch.device("cpu")), SEEN)
    assert rows == [expected]
