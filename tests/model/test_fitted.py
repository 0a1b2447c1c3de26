"""What a first configuration makes of an input's sizes: whole patches, at most 1024 tokens where that can be had."""

from typing import Any

import pytest

from model.modalities.array import ArrayInput
from model.modalities.audio import AudioInput
from model.modalities.flow import FlowInput
from model.modalities.image import ImageInput
from model.modalities.input import Input
from model.modalities.points import PointsInput
from model.modalities.text import TextInput
from model.modalities.video import VideoInput


def image(height: int, width: int) -> ImageInput:
    return ImageInput(height=height, width=width)


def video(num_frames: int, height: int, width: int) -> VideoInput:
    return VideoInput(num_frames=num_frames, height=height, width=width)


@pytest.mark.parametrize(
    ("of", "patch", "num_bands"),
    [
        *[(image(side, side), {"patch": max(1, side // 32)}, min(16, side // 2)) for side in (8, 32, 64, 128)],
        *[(image(side, side), {"patch": min(32, side // 32)}, 16) for side in (256, 512, 1024)],
        # The coarsest there is, and a side that nothing divides.
        (image(2048, 2048), {"patch": 32}, 16),
        (image(33, 32), {"patch": 1}, 16),
        (image(1, 1), {"patch": 1}, 1),
        *[(AudioInput(num_samples=n), {"patch": max(16, n // 1024)}, 16) for n in (512, 2**14, 2**15, 2**17, 2**19)],
        (AudioInput(num_samples=2**22), {"patch": 4096}, 16),
        (AudioInput(num_samples=2**23), {"patch": 4096}, 16),
        (AudioInput(num_samples=48), {"patch": 16}, 1),
        (AudioInput(num_samples=1_000), {"patch": 1}, 16),
        (video(4, 16, 16), {"patch_frames": 1, "patch": 1}, 8),
        (video(8, 16, 16), {"patch_frames": 2, "patch": 1}, 8),
        (video(16, 16, 16), {"patch_frames": 1, "patch": 2}, 8),
        (video(15, 16, 16), {"patch_frames": 1, "patch": 2}, 7),
        (video(32, 16, 16), {"patch_frames": 2, "patch": 2}, 8),
        (video(16, 64, 64), {"patch_frames": 1, "patch": 8}, 8),
        (video(8, 128, 128), {"patch_frames": 2, "patch": 8}, 8),
        (video(16, 128, 128), {"patch_frames": 1, "patch": 16}, 8),
        (video(64, 256, 256), {"patch_frames": 2, "patch": 16}, 16),
        (FlowInput(height=32, width=32), {"conv_stem": False}, 4),
        (FlowInput(height=32, width=33), {"conv_stem": True}, 4),
        (ArrayInput(shape=(1024, 3)), {"patch": [1]}, 16),
        (ArrayInput(shape=(2048, 3)), {"patch": [2]}, 16),
        (ArrayInput(shape=(64, 96, 3)), {"patch": [2, 4]}, 16),
        # The longest axis that can be halved, and no odd one.
        (ArrayInput(shape=(1025, 8, 3)), {"patch": [1, 8]}, 16),
    ],
)
def test_patches_are_the_finest_that_leave_few_tokens(of: Input, patch: dict[str, Any], num_bands: int) -> None:
    assert of.fitted() == {**patch, "positions": {"num_bands": num_bands}}


def test_points_and_texts_are_a_token_each() -> None:
    assert PointsInput(num_points=5_000).fitted() == {"num_bands": 16, "max_frequency": 32.0}
    assert TextInput(max_tokens=5_000).fitted() == {"embedding_width": 64}
