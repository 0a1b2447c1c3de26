"""Pixels become tokens: boxes, ranges, neighbourhoods; and which tokens a length leaves."""

import dataclasses
from typing import Literal

import pytest
import torch
from torch import Tensor

from model.config.attention import AttentionConfig
from model.config.grids import PositionsConfig
from model.config.perceiver import PerceiverConfig
from model.modalities.adapters.pixels import boxes, neighbourhoods, scaled_pixels
from model.modalities.adapters.values import LabelAdapter, PointsAdapter, TextAdapter
from model.modalities.audio import AudioInput
from model.modalities.byte_array import valid_tokens
from model.modalities.flow import FlowInput
from model.modalities.image import ImageInput
from model.modalities.input import Input
from model.modalities.label import LabelInput
from model.modalities.points import PointsInput
from model.modalities.text import TextInput
from model.modalities.video import VideoInput
from model.outputs.label import LabelOutput
from model.perceiver import Perceiver
from model.positions import cell_places

FEW = PositionsConfig(num_bands=2)
LEARNED = PositionsConfig(kind="learned", learned_width=5)
CLIP = VideoInput(num_frames=4, height=2, width=4, patch_frames=2, patch=2, positions=FEW)
F32 = torch.float32


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("shape", "sides"), [((4, 6), (2, 3)), ((4, 6, 2), (2, 3, 1)), ((6,), (3,))])
def test_a_box_is_a_token_row_by_row_and_its_channels_are_its_pixels_row_by_row(
    shape: tuple[int, ...], sides: tuple[int, ...]
) -> None:
    values = random(2, *shape, 3)
    counts = [length // side for length, side in zip(shape, sides, strict=True)]
    expected = []
    for box in torch.cartesian_prod(*(torch.arange(n) for n in counts)).reshape(-1, len(counts)).tolist():
        part = tuple(slice(at * side, (at + 1) * side) for at, side in zip(box, sides, strict=True))
        expected.append(values[(slice(None), *part)].flatten(1))
    assert torch.equal(boxes(values, sides), torch.stack(expected, dim=1))


def test_neighbours_come_row_by_row_and_are_zero_outside_of_the_frame() -> None:
    frames = random(1, 2, 3, 4, 2)
    found = neighbourhoods(frames).view(1, 2, 3, 4, 3, 3, 2)
    assert torch.equal(found[0, :, 1, 2], frames[0, :, 0:3, 1:4])
    assert not found[0, :, 0, :, 0].any()
    assert not found[0, :, :, 3, :, 2].any()
    assert torch.equal(found[0, :, 2, 3, :2, :2], frames[0, :, 1:3, 2:4])


def test_bytes_are_scaled_and_floats_are_taken_as_they_are() -> None:
    pixels = torch.tensor([[0, 51, 255]], dtype=torch.uint8)
    torch.testing.assert_close(scaled_pixels(pixels, "unit", F32), torch.tensor([[0, 0.2, 1]]))
    torch.testing.assert_close(scaled_pixels(pixels, "centred", F32), torch.tensor([[-1, -0.6, 1]]))
    imagenet = [[(0 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, (1 - 0.406) / 0.225]]
    torch.testing.assert_close(scaled_pixels(pixels, "imagenet", F32), torch.tensor(imagenet))
    for kind in ("unit", "centred", "imagenet"):
        assert torch.equal(scaled_pixels(pixels.float(), kind, F32), pixels.float())  # type: ignore[arg-type]
        assert scaled_pixels(pixels, kind, torch.bfloat16).dtype == torch.bfloat16  # type: ignore[arg-type]


def test_a_label_is_one_hot_and_an_unknown_one_is_all_zeros() -> None:
    found = LabelAdapter(LabelInput(num_classes=3))(torch.tensor([0, 2, -1]), F32)
    assert found.tolist() == [[[1, 0, 0]], [[0, 0, 1]], [[0, 0, 0]]]


def test_a_point_is_its_place_and_waves_up_to_the_highest_frequency() -> None:
    adapter = PointsAdapter(PointsInput(num_points=1, num_dimensions=2, num_bands=3, max_frequency=5.0))
    places = torch.tensor([0.25, -0.7])
    angles = torch.pi * (places[:, None] * torch.tensor([1.0, 3.0, 5.0])).flatten()
    expected = torch.cat([places, angles.sin(), angles.cos()])
    torch.testing.assert_close(adapter(places[None, None], F32)[0, 0], expected)
    # Frequencies are as high as half precision has no digits for.
    sharp = PointsAdapter(PointsInput(num_points=1, num_bands=4))
    point = torch.full((1, 1, 3), 0.3)
    torch.testing.assert_close(sharp(point, torch.bfloat16), sharp(point, F32).bfloat16())


def test_a_character_is_its_embedding_plus_its_place() -> None:
    adapter = TextAdapter(TextInput(max_tokens=4, vocabulary=7, embedding_width=3))
    torch.nn.init.normal_(adapter.embedding.weight, generator=torch.Generator().manual_seed(0))
    torch.nn.init.normal_(adapter.places.weight, generator=torch.Generator().manual_seed(1))
    found = adapter(torch.tensor([[6, 0, 2]], dtype=torch.int16), F32)
    expected = torch.stack(
        [adapter.embedding.weight[id_] + adapter.places.weight[i] for i, id_ in enumerate([6, 0, 2])]
    )
    torch.testing.assert_close(found[0], expected)


@pytest.mark.parametrize(
    ("modality", "length", "tokens"),
    [
        (AudioInput(num_samples=12, patch=4, positions=FEW), 5, [True, True, False]),
        (AudioInput(num_samples=12, patch=4, positions=FEW), 4, [True, False, False]),
        (AudioInput(num_samples=3, num_channels=2, patch=1, patch_bins=1, positions=FEW), 2, [True] * 4 + [False] * 2),
        (ImageInput(height=4, width=2, patch=2, positions=FEW), 1, [True, False]),
        (ImageInput(height=9, width=4, conv_stem=True, positions=FEW), 5, [True, True, False]),
        (ImageInput(height=9, width=4, conv_stem=True, positions=FEW), 9, [True, True, True]),
        (VideoInput(num_frames=4, height=2, width=4, patch_frames=2, patch=2, positions=FEW), 3, [True] * 4),
        (
            VideoInput(num_frames=4, height=2, width=4, patch_frames=2, patch=2, positions=FEW),
            2,
            [True, True] + 2 * [False],
        ),
        (FlowInput(height=1, width=2, positions=FEW), 2, [True, True]),
        (FlowInput(height=1, width=2, positions=FEW), 0, [False, False]),
        (FlowInput(height=1, width=2, separate_frames=True, positions=FEW), 1, [True, True, False, False]),
        (TextInput(max_tokens=3), 2, [True, True, False]),
        (PointsInput(num_points=2), 1, [True, False]),
        (LabelInput(), 1, [True]),
        (LabelInput(), 0, [False]),
    ],
)
def test_a_token_is_there_if_any_of_its_entries_is(modality: ImageInput, length: int, tokens: list[bool]) -> None:
    assert valid_tokens(modality, modality.num_tokens, torch.tensor([length]))[0].tolist() == tokens


SMALL = PerceiverConfig(
    outputs={"label": LabelOutput(num_classes=2)},
    num_latents=3,
    latent_width=8,
    num_cross_attends=1,
    num_blocks=1,
    layers_per_block=1,
    self_attend=AttentionConfig(num_heads=2),
)
IMAGE = ImageInput(height=4, width=4, positions=FEW)
READS: dict[str, tuple[dict[str, Input], bool]] = {
    "pixels": ({"image": IMAGE}, False),
    "projected": ({"image": dataclasses.replace(IMAGE, project_to=4)}, True),
    "convolved": ({"image": dataclasses.replace(IMAGE, conv_stem=True)}, True),
    "learned": ({"image": dataclasses.replace(IMAGE, positions=LEARNED)}, True),
    "without positions": ({"image": dataclasses.replace(IMAGE, positions=PositionsConfig("none"))}, False),
    "video": ({"video": VideoInput(num_frames=2, height=4, width=4, project_to=4, positions=FEW)}, True),
    "audio": ({"audio": AudioInput(num_samples=8, patch=2, positions=FEW)}, False),
    "spectrogram": (
        {"spectrogram": AudioInput(num_samples=4, num_channels=3, patch=1, patch_bins=1, positions=LEARNED)},
        True,
    ),
    "points": ({"points": PointsInput(num_points=3, num_bands=2)}, False),
    "label": ({"label": LabelInput(num_classes=4)}, False),
    "text": ({"text": TextInput(max_tokens=3, embedding_width=4)}, True),
    "two": ({"image": IMAGE, "label": LabelInput(num_classes=4)}, True),
}


@pytest.mark.parametrize("name", READS)
def test_tokens_learn_where_a_parameter_lies_before_them_and_are_as_wide_as_the_config_says(name: str) -> None:
    inputs, learn = READS[name]
    config = dataclasses.replace(SMALL, inputs=inputs)
    whole = {"text": torch.int64, "label": torch.int64}
    values = {n: torch.zeros(2, *m.shape, dtype=whole.get(n)) for n, m in inputs.items()}
    tokens = Perceiver(config, seed=0).inputs(values, None, None, F32).values
    assert tokens.shape == (2, config.num_tokens, config.token_width)
    assert tokens.requires_grad == config.tokens_learn == learn
    assert dataclasses.replace(config, mask_tokens=True).tokens_learn


def test_a_mask_token_takes_the_place_of_what_is_hidden_alone() -> None:
    built = Perceiver(dataclasses.replace(SMALL, inputs={"image": IMAGE}, mask_tokens=True), seed=0)
    pixels, hidden = random(2, 4, 4, 3), torch.zeros(2, 16, dtype=torch.bool)
    hidden[1, 5] = True
    seen, masked = (built.inputs({"image": pixels}, None, h, F32).values for h in (None, {"image": hidden}))
    assert torch.equal(masked[1, 5], built.get_parameter("inputs.mask_tokens.image.weight")[0])
    assert torch.equal(masked[~hidden], seen[~hidden])


def test_a_single_cell_lies_at_its_lower_edge_of_the_grid() -> None:
    found = cell_places(torch.tensor([0, 5, 11]), (3, 4), dtype=F32)
    expected = [[-1, -1], [-1 + 2 / 3, -0.5], [-1 + 4 / 3, 0.5]]
    torch.testing.assert_close(found, torch.tensor(expected))


@pytest.mark.parametrize(
    ("values", "pixel_range", "given", "expected"),
    [
        ("", "centred", torch.tensor([0, 51, 255], dtype=torch.uint8), [-1.0, -0.6, 1.0]),
        ("bytes", "unit", torch.tensor([0, 51, 255], dtype=torch.uint8), [0.0, 0.2, 1.0]),
        ("unit", "centred", torch.tensor([0.0, 0.2, 1.0]), [-1.0, -0.6, 1.0]),
        ("raw", "unit", torch.tensor([0.0, 51.0, -7.0]), [0.0, 51.0, -7.0]),
    ],
)
def test_an_image_is_scaled_as_its_values_are(
    values: Literal["", "bytes", "unit", "raw"],
    pixel_range: Literal["unit", "centred"],
    given: Tensor,
    expected: list[float],
) -> None:
    image = ImageInput(height=1, width=1, values=values, pixel_range=pixel_range, positions=PositionsConfig("none"))
    tokens = image.adapter()(given.view(1, 1, 1, 3), F32)
    torch.testing.assert_close(tokens, torch.tensor(expected).view(1, 1, 3))
