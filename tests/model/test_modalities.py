"""What each modality says of itself to the network: shapes, widths and costs of small inputs."""

from typing import Any

import pytest

from model.config.cost import Cost, Kept
from model.config.grids import PositionsConfig
from model.modalities.array import ArrayInput
from model.modalities.audio import AudioInput
from model.modalities.flow import FlowInput
from model.modalities.image import ImageInput
from model.modalities.input import Input
from model.modalities.label import LabelInput
from model.modalities.points import PointsInput
from model.modalities.text import TextInput
from model.modalities.video import VideoInput

BANDS = PositionsConfig(num_bands=2)
"""5 channels an axis."""
TABLE = PositionsConfig(kind="learned", learned_width=6, project_to=5)
NONE = PositionsConfig(kind="none")
INPUTS: dict[str, Input] = {
    "pixels": ImageInput(height=6, width=4, positions=BANDS),
    "patches": ImageInput(height=6, width=4, num_channels=1, values="raw", patch=2, project_to=9, positions=TABLE),
    "stem": ImageInput(height=9, width=5, values="unit", conv_stem=True, positions=BANDS),
    "projected stem": ImageInput(height=9, width=5, conv_stem=True, project_to=7, positions=NONE),
    "clip": VideoInput(num_frames=4, height=6, width=8, patch_frames=2, patch=2, project_to=11, positions=BANDS),
    "clip of one colour": VideoInput(num_frames=4, height=4, width=8, num_channels=1, positions=TABLE),
    "sound": AudioInput(num_samples=12, patch=4, positions=BANDS),
    "two ears": AudioInput(num_samples=12, num_channels=2, patch=4, positions=BANDS),
    "spectrogram": AudioInput(num_samples=12, num_channels=6, patch=4, patch_bins=3, positions=BANDS),
    "frames": FlowInput(height=3, width=5, positions=BANDS),
    "frames apart": FlowInput(height=3, width=5, separate_frames=True, project_to=0, positions=BANDS),
    "frames of a stem": FlowInput(height=9, width=5, conv_stem=True, project_to=0, positions=BANDS),
    "frames of a stem, apart": FlowInput(height=9, width=5, conv_stem=True, separate_frames=True, positions=TABLE),
    "cloud": PointsInput(num_points=7, num_features=2, num_bands=3),
    "plane": PointsInput(num_points=7, num_dimensions=2, num_bands=3),
    "text": TextInput(max_tokens=9, vocabulary=11, embedding_width=6),
    "class": LabelInput(num_classes=4),
    "array": ArrayInput(shape=(6, 8, 3), patch=(2, 4), project_to=5, positions=BANDS),
    "values": ArrayInput(shape=(6, 8), axes=("row", "column"), positions=NONE),
    "channels first": ArrayInput(shape=(3, 6), axes=("channel", "time"), positions=TABLE),
    "placed": ArrayInput(shape=(6, 4, 3), num_axes=3, positions=BANDS),
}
SAID: dict[str, dict[str, Any]] = {
    "pixels": {
        "shape": (6, 4, 3),
        "grid": (6, 4),
        "entries_per_row": 1,
        "widths": (3, 13),
        "values": ("uint8", 1.0, None),
        "is": (True, True, False, False, True),
        "places": (None, (6, 4)),
        "cost": Cost(parameters=0, flops=0),
        "kept": Kept(values=0, other_bytes=0, gradients=0),
    },
    "patches": {
        "shape": (6, 4, 1),
        "grid": (3, 2),
        "entries_per_row": 2,
        "widths": (9, 14),
        "values": ("float32", 0.0, None),
        "is": (True, True, True, False, True),
        "places": (None, (3, 2)),
        "cost": Cost(parameters=116, flops=432),
        "kept": Kept(values=24, other_bytes=0, gradients=0),
    },
    "stem": {
        "shape": (9, 5, 3),
        "grid": (3, 2),
        "entries_per_row": 4,
        "widths": (64, 74),
        "values": ("float32", 1.0, None),
        "is": (True, True, True, True, True),
        "places": (None, (3, 2)),
        "cost": Cost(parameters=9536, flops=282240),
        "kept": Kept(values=1575, other_bytes=1440, gradients=1440),
    },
    "projected stem": {
        "shape": (9, 5, 3),
        "grid": (3, 2),
        "entries_per_row": 4,
        "widths": (7, 7),
        "values": ("uint8", 1.0, None),
        "is": (True, True, True, True, True),
        "places": (None, (3, 2)),
        "cost": Cost(parameters=9991, flops=287616),
        "kept": Kept(values=1959, other_bytes=1440, gradients=1440),
    },
    "clip": {
        "shape": (4, 6, 8, 3),
        "grid": (2, 3, 4),
        "entries_per_row": 2,
        "widths": (11, 26),
        "values": ("uint8", 1.0, None),
        "is": (False, True, True, False, True),
        "places": (None, (2, 3, 4)),
        "cost": Cost(parameters=275, flops=12672),
        "kept": Kept(values=576, other_bytes=0, gradients=0),
    },
    "clip of one colour": {
        "shape": (4, 4, 8, 1),
        "grid": (4, 1, 2),
        "entries_per_row": 1,
        "widths": (16, 21),
        "values": ("uint8", 1.0, None),
        "is": (False, True, True, False, True),
        "places": (None, (4, 1, 2)),
        "cost": Cost(parameters=83, flops=0),
        "kept": Kept(values=0, other_bytes=0, gradients=0),
    },
    "sound": {
        "shape": (12,),
        "grid": (3,),
        "entries_per_row": 4,
        "widths": (4, 9),
        "values": ("float32", 2.0, None),
        "is": (False, False, False, False, True),
        "places": (None, (3,)),
        "cost": Cost(parameters=0, flops=0),
        "kept": Kept(values=0, other_bytes=0, gradients=0),
    },
    "two ears": {
        "shape": (12, 2),
        "grid": (3,),
        "entries_per_row": 4,
        "widths": (8, 13),
        "values": ("float32", 2.0, None),
        "is": (False, False, False, False, True),
        "places": (None, (3,)),
        "cost": Cost(parameters=0, flops=0),
        "kept": Kept(values=0, other_bytes=0, gradients=0),
    },
    "spectrogram": {
        "shape": (12, 6),
        "grid": (3, 2),
        "entries_per_row": 4,
        "widths": (12, 22),
        "values": ("float32", 2.0, None),
        "is": (False, True, False, False, True),
        "places": (None, (3, 2)),
        "cost": Cost(parameters=0, flops=0),
        "kept": Kept(values=0, other_bytes=0, gradients=0),
    },
    "frames": {
        "shape": (2, 3, 5, 3),
        "grid": (3, 5),
        "entries_per_row": 0,
        "widths": (64, 74),
        "values": ("uint8", 0.0, None),
        "is": (True, False, True, False, True),
        "places": (None, (3, 5)),
        "cost": Cost(parameters=3520, flops=103680),
        "kept": Kept(values=810, other_bytes=0, gradients=0),
    },
    "frames apart": {
        "shape": (2, 3, 5, 3),
        "grid": (2, 3, 5),
        "entries_per_row": 1,
        "widths": (27, 42),
        "values": ("uint8", 0.0, None),
        "is": (True, False, False, False, True),
        "places": (None, (2, 3, 5)),
        "cost": Cost(parameters=0, flops=0),
        "kept": Kept(values=0, other_bytes=0, gradients=0),
    },
    "frames of a stem": {
        "shape": (2, 9, 5, 3),
        "grid": (3, 2),
        "entries_per_row": 0,
        "widths": (64, 74),
        "values": ("uint8", 0.0, None),
        "is": (True, False, True, True, True),
        "places": (None, (3, 2)),
        "cost": Cost(parameters=18944, flops=564480),
        "kept": Kept(values=1710, other_bytes=1440, gradients=1440),
    },
    "frames of a stem, apart": {
        "shape": (2, 9, 5, 3),
        "grid": (2, 3, 2),
        "entries_per_row": 1,
        "widths": (64, 69),
        "values": ("uint8", 0.0, None),
        "is": (True, False, True, True, True),
        "places": (None, (2, 3, 2)),
        "cost": Cost(parameters=13803, flops=662784),
        "kept": Kept(values=3918, other_bytes=2880, gradients=2880),
    },
    "cloud": {
        "shape": (7, 5),
        "grid": (7,),
        "entries_per_row": 1,
        "widths": (23, 23),
        "values": ("float32", 0.0, None),
        "is": (False, False, False, False, False),
        "places": (None, (7,)),
        "cost": Cost(parameters=0, flops=0),
        "kept": Kept(values=0, other_bytes=0, gradients=0),
    },
    "plane": {
        "shape": (7, 2),
        "grid": (7,),
        "entries_per_row": 1,
        "widths": (14, 14),
        "values": ("float32", 0.0, None),
        "is": (False, False, False, False, False),
        "places": (None, (7,)),
        "cost": Cost(parameters=0, flops=0),
        "kept": Kept(values=0, other_bytes=0, gradients=0),
    },
    "text": {
        "shape": (9,),
        "grid": (9,),
        "entries_per_row": 1,
        "widths": (6, 6),
        "values": ("int64", 0.0, (0, 11)),
        "is": (False, False, True, False, True),
        "places": (None, (9,)),
        "cost": Cost(parameters=120, flops=0),
        "kept": Kept(values=0, other_bytes=0, gradients=0),
    },
    "class": {
        "shape": (),
        "grid": (1,),
        "entries_per_row": 1,
        "widths": (4, 4),
        "values": ("int64", 0.0, (-1, 4)),
        "is": (True, False, False, False, True),
        "places": (None, (1,)),
        "cost": Cost(parameters=0, flops=0),
        "kept": Kept(values=0, other_bytes=0, gradients=0),
    },
    "array": {
        "shape": (6, 8, 3),
        "grid": (3, 2),
        "entries_per_row": 2,
        "widths": (5, 15),
        "values": ("float32", 0.0, None),
        "is": (False, True, True, False, True),
        "places": (None, (3, 2)),
        "cost": Cost(parameters=125, flops=1440),
        "kept": Kept(values=144, other_bytes=0, gradients=0),
    },
    "values": {
        "shape": (6, 8),
        "grid": (6, 8),
        "entries_per_row": 1,
        "widths": (1, 1),
        "values": ("float32", 0.0, None),
        "is": (False, True, False, False, True),
        "places": (None, (6, 8)),
        "cost": Cost(parameters=0, flops=0),
        "kept": Kept(values=0, other_bytes=0, gradients=0),
    },
    "channels first": {
        "shape": (3, 6),
        "grid": (6,),
        "entries_per_row": 0,
        "widths": (3, 8),
        "values": ("float32", 0.0, None),
        "is": (False, False, True, False, True),
        "places": (None, (6,)),
        "cost": Cost(parameters=71, flops=0),
        "kept": Kept(values=0, other_bytes=0, gradients=0),
    },
    "placed": {
        "shape": (6, 4, 3),
        "grid": (6, 4),
        "entries_per_row": 1,
        "widths": (3, 18),
        "values": ("float32", 0.0, None),
        "is": (False, False, False, False, False),
        "places": ((6, 4, 3), (64, 64, 64)),
        "cost": Cost(parameters=0, flops=0),
        "kept": Kept(values=0, other_bytes=0, gradients=0),
    },
}


@pytest.mark.parametrize("name", INPUTS)
def test_what_an_input_says_of_itself(name: str) -> None:
    each = INPUTS[name]
    assert list(each.problems()) == []
    said = {
        "shape": each.shape,
        "grid": each.grid,
        "entries_per_row": each.entries_per_row,
        "widths": (each.content_width, each.token_width),
        "values": (each.dtype, each.value_range, each.ids),
        "is": (each.is_whole, each.is_separable, each.learns, each.has_stem, each.has_axes),
        "places": (each.places, each.position_grid),
        "cost": each.cost(),
        "kept": each.kept(),
    }
    assert said == SAID[name]


def test_an_array_names_where_its_channels_are() -> None:
    assert [INPUTS[name].channel_axis for name in ("array", "values", "channels first")] == [2, None, 0]  # type: ignore[attr-defined]
    assert [INPUTS[name].raw_width for name in ("array", "values", "placed")] == [24, 1, 3]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pixels", "uint8 (batch, 6, 4, 3), red, green and blue from 0 to 255: the network scales them itself"),
        ("patches", "float32 (batch, 6, 4, 1), as the files have them"),
        ("stem", "float32 (batch, 9, 5, 3), from 0 to 1"),
        ("sound", "float32 (batch, 12), as data.inputs.sound of the run's config.yaml prepares it"),
        ("class", "int64 (batch), classes below 4, or -1 for none"),
    ],
)
def test_the_values_of_an_input_are_explained(name: str, words: str) -> None:
    assert INPUTS[name].meaning(name) == words


@pytest.mark.parametrize(
    ("image", "keys"),
    [
        (ImageInput(height=4, width=4, values="raw"), []),
        (ImageInput(height=4, width=4, values="unit", pixel_range="centred"), []),
        (ImageInput(height=4, width=4, values="raw", pixel_range="centred"), ["pixel_range"]),
        (ImageInput(height=4, width=4, pixel_range="imagenet"), []),
        (AudioInput(num_samples=8, num_channels=6, patch=4, patch_bins=4), ["num_channels"]),
        (AudioInput(num_samples=8, num_channels=6, patch=4, patch_bins=-1), ["patch_bins"]),
        (ImageInput(), ["height", "width"]),
        (ImageInput(height=-1), ["width", "height"]),
        (PointsInput(num_points=1, num_features=-1), ["num_features"]),
        (TextInput(), ["max_tokens"]),
        (ArrayInput(shape=(1, 1)), []),
        (ArrayInput(shape=(1,), axes=("t",)), []),
        (ArrayInput(shape=(4, 2), num_axes=1, positions=BANDS), []),
        (PointsInput(num_points=1, num_bands=1, max_frequency=1.0), []),
        (PointsInput(num_points=1, max_frequency=float("inf")), ["max_frequency"]),
        (VideoInput(num_frames=3, height=4, width=4, patch_frames=2), ["num_frames"]),
        (ImageInput(height=4, width=4, conv_stem=True, patch=1), []),
        (ArrayInput(shape=(4, 2), num_axes=1, patch=(2,)), ["patch"]),
        (ArrayInput(shape=(4, 6, 2), patch=(2, 4)), ["shape"]),
    ],
)
def test_a_problem_of_an_input_names_its_key(image: Input, keys: list[str]) -> None:
    assert [key for key, _ in image.problems()] == keys


def test_sizes_that_are_said_stay_and_those_of_the_data_fill_the_others() -> None:
    sizes: dict[str, Any] = {"height": 7, "width": 8, "num_channels": 1}
    image = ImageInput(height=5).with_sizes(sizes)
    assert image == ImageInput(height=5, width=8, num_channels=1)
    assert image.equal_sizes(sizes) == ["width", "num_channels"]
    assert image.equal_sizes({}) == []


def test_a_text_takes_fewer_places_and_an_image_takes_its_own_shape_alone() -> None:
    text, image = INPUTS["text"], INPUTS["pixels"]
    assert [text.takes(shape) for shape in ((0,), (9,), (10,), (), (3, 3))] == [True, True, False, False, False]
    assert [image.takes(shape) for shape in ((6, 4, 3), (6, 3, 3), (6, 4))] == [True, False, False]
