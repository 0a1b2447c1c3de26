"""Perceiver IO: every output, points of a grid, decoding in chunks, hidden tokens and masked queries."""

import dataclasses

import pytest
import torch
from torch import Tensor

from model.config.attention import AttentionConfig
from model.config.decoder import DecoderConfig
from model.config.grids import PositionsConfig
from model.config.perceiver import PerceiverConfig
from model.modalities.audio import AudioInput
from model.modalities.byte_array import check_tokens
from model.modalities.flow import FlowInput
from model.modalities.image import ImageInput
from model.modalities.input import Input
from model.modalities.label import LabelInput
from model.modalities.text import TextInput
from model.modalities.video import VideoInput
from model.outputs.flow import FlowOutput
from model.outputs.grid import GridOutput
from model.outputs.label import LabelOutput
from model.outputs.text import TextOutput
from model.perceiver import Perceiver

FEW = PositionsConfig(num_bands=3)
SMALL = PerceiverConfig(
    num_latents=6,
    latent_width=16,
    num_cross_attends=1,
    num_blocks=1,
    layers_per_block=2,
    self_attend=AttentionConfig(num_heads=4),
)
TEXT = dataclasses.replace(
    SMALL,
    inputs={"text": TextInput(max_tokens=8, embedding_width=12)},
    outputs={"text": TextOutput()},
    cross_attend=AttentionConfig(num_heads=2, qk_width=8, value_width=16),
    decoder=DecoderConfig(cross_attend=AttentionConfig(num_heads=2, qk_width=8, value_width=12)),
)
KINETICS = dataclasses.replace(
    SMALL,
    inputs={
        "audio": AudioInput(num_samples=24, patch=4, positions=FEW),
        "label": LabelInput(num_classes=5),
        "video": VideoInput(num_frames=2, height=8, width=8, patch=4, positions=FEW),
    },
    outputs={
        "audio": GridOutput(shape=(6,), num_channels=4, positions=FEW),
        "label": LabelOutput(num_classes=5, pooling="query"),
        "video": GridOutput(shape=(2, 8, 8), positions=FEW),
    },
    mask_tokens=True,
    decoder=DecoderConfig(output_width=10),
)
FLOW = dataclasses.replace(
    SMALL,
    inputs={"flow": FlowInput(height=4, width=6, project_to=5, positions=FEW)},
    outputs={"flow": FlowOutput()},
)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(config: PerceiverConfig) -> Perceiver:
    built = Perceiver(config, seed=0)
    with torch.no_grad():
        for index, parameter in enumerate(built.parameters()):
            parameter += 0.05 * random(*parameter.shape, seed=index)
    return built


def kinetics_inputs() -> dict[str, Tensor]:
    return {"audio": random(2, 24), "label": torch.tensor([1, 4]), "video": random(2, 2, 8, 8, 3)}


def text(*rows: list[int]) -> Tensor:
    return torch.tensor(rows, dtype=torch.int16)


def test_every_output_has_its_shape() -> None:
    answers = network(KINETICS)(kinetics_inputs())
    shapes = {name: tuple(answer.shape) for name, answer in answers.items()}
    assert shapes == {"audio": (2, 6, 4), "label": (2, 5), "video": (2, 2, 8, 8, 3)}
    assert network(TEXT)({"text": text([7, 8, 9])})["text"].shape == (1, 3, 262)
    assert network(FLOW)({"flow": random(2, 2, 4, 6, 3)})["flow"].shape == (2, 4, 6, 2)


def test_several_tasks_are_answered_by_a_query_each_as_if_each_were_alone() -> None:
    tasks = {name: LabelOutput(num_classes=n, pooling="query", hidden_layer=True) for name, n in (("a", 2), ("b", 3))}
    both = dataclasses.replace(KINETICS, outputs=tasks, decoder=DecoderConfig(min_padding=0))
    answers = network(both)(kinetics_inputs())
    assert {name: answer.shape[1] for name, answer in answers.items()} == {"a": 2, "b": 3}


def test_chunks_change_nothing() -> None:
    built, inputs = network(KINETICS), kinetics_inputs()
    whole = built(inputs)
    # Two chunks, many, and one that is larger than all.
    for chunk in (4, 7, 64, 1_000):
        chunked = built(inputs, chunk=chunk)
        for name, answer in whole.items():
            torch.testing.assert_close(chunked[name], answer, rtol=0, atol=1e-6)


def test_chunks_of_a_training_that_drops_are_refused() -> None:
    built = network(dataclasses.replace(KINETICS, dropout=0.5)).train()
    draws = torch.zeros(2, 2, dtype=torch.int64)
    built(kinetics_inputs(), draws=draws, chunk=1_000)
    with pytest.raises(AssertionError, match="chunks would all drop the same values"):
        built(kinetics_inputs(), draws=draws, chunk=4)


@pytest.mark.parametrize(
    ("shape", "num_samples", "is_right"),
    [
        ((2, 6, 9), 24, True),
        ((2, 1, 9), 24, False),
        # Of an array that is shorter than the input: a batch of short texts.
        ((2, 1, 9), 4, True),
        ((2, 7, 9), 24, False),
        ((3, 6, 9), 24, False),
        ((2, 6, 8), 24, False),
        ((2, 6), 24, False),
        ((2, 6, 9, 1), 24, False),
    ],
)
def test_an_adapter_makes_the_tokens_that_its_input_says(
    shape: tuple[int, ...], num_samples: int, is_right: bool
) -> None:
    audio = AudioInput(num_samples=24, patch=4, positions=FEW)
    assert (audio.num_tokens, audio.token_width) == (6, 4 + 2 * FEW.num_bands + 1)
    wanted = tuple(audio.token_width if length == 9 else length for length in shape)
    if is_right:
        check_tokens("sound", audio, torch.Size(wanted), torch.Size((2, num_samples)))
        return
    with pytest.raises(ValueError, match=r"^input sound: the adapter of AudioInput made tokens of shape"):
        check_tokens("sound", audio, torch.Size(wanted), torch.Size((2, num_samples)))


def test_points_are_asked_where_the_released_code_asks_them() -> None:
    built, inputs = network(KINETICS), kinetics_inputs()
    some = built(inputs, points={"video": torch.tensor([0, 77, 127])})["video"]
    assert some.shape == (2, 3, 3)
    whole = built(inputs)["video"].flatten(1, 3)
    # The first cell lies at -1 either way; the last lies at 1 on the whole grid and a cell short of it as a point.
    torch.testing.assert_close(some[:, 0], whole[:, 0], rtol=0, atol=1e-6)
    assert not torch.allclose(some[:, 2], whole[:, 127], atol=1e-4)


def test_a_hidden_label_changes_nothing() -> None:
    built, inputs = network(KINETICS), kinetics_inputs()
    other = {**inputs, "label": torch.tensor([0, 0])}
    hidden = {"label": torch.tensor([[True], [False]])}
    here, there = built(inputs, hidden=hidden)["label"], built(other, hidden=hidden)["label"]
    assert torch.equal(here[0], there[0])
    assert not torch.allclose(here[1], there[1], atol=1e-4)


def test_hiding_without_mask_tokens_is_refused() -> None:
    built = network(dataclasses.replace(KINETICS, mask_tokens=False))
    with pytest.raises(ValueError, match=r"hidden\.label: .* mask_tokens=true"):
        built(kinetics_inputs(), hidden={"label": torch.ones(2, 1, dtype=torch.bool)})


def test_a_padded_text_equals_the_text_alone() -> None:
    built = network(TEXT)
    padded = built({"text": text([7, 8, 9, 0, 0], [1, 2, 3, 4, 5])}, {"text": torch.tensor([3, 5])})["text"]
    alone = built({"text": text([7, 8, 9])})["text"]
    torch.testing.assert_close(padded[:1, :3], alone, rtol=0, atol=1e-6)


def test_places_without_a_byte_read_nothing() -> None:
    built, counts = network(TEXT), {"text": torch.tensor([3, 3])}
    answer = built({"text": text([7, 8, 9, 0, 0], [1, 2, 3, 4, 5])}, counts)["text"]
    # Whatever the latents hold, a query that reads 0 is answered alike.
    torch.testing.assert_close(answer[0, 3:], answer[1, 3:], rtol=0, atol=1e-6)
    assert not torch.allclose(answer[0, :3], answer[1, :3], atol=1e-4)


def test_text_weights_are_tied_to_the_embedding() -> None:
    built = network(TEXT)
    assert sum(parameter.numel() == 262 * 12 for parameter in built.parameters()) == 1
    built({"text": text([7])})["text"].square().sum().backward()
    gradient = built.get_parameter("inputs.adapters.text.embedding.weight").grad
    assert gradient is not None
    assert gradient[100].any()  # an id that was not read still has a logit


def test_flow_is_asked_with_the_tokens_and_starts_at_zero() -> None:
    assert not Perceiver(FLOW, seed=0)({"flow": random(1, 2, 4, 6, 3)})["flow"].any()
    rescaled = dataclasses.replace(FLOW, outputs={"flow": FlowOutput(rescale=50.0)})
    frames = {"flow": random(1, 2, 4, 6, 3)}
    torch.testing.assert_close(network(rescaled)(frames)["flow"], 2 * network(FLOW)(frames)["flow"])


def test_separate_frames_are_answered_for_the_first() -> None:
    flow = FlowInput(height=4, width=6, project_to=5, separate_frames=True, positions=FEW)
    config = dataclasses.replace(FLOW, inputs={"flow": flow})
    assert config.num_tokens == 48
    assert network(config)({"flow": random(1, 2, 4, 6, 3)})["flow"].shape == (1, 4, 6, 2)


@pytest.mark.parametrize(
    ("inputs", "value"),
    [
        ({"image": ImageInput(height=224, width=224, conv_stem=True, positions=FEW)}, (1, 224, 224, 3)),
        ({"image": ImageInput(height=9, width=10, conv_stem=True, positions=FEW)}, (1, 9, 10, 3)),
        ({"audio": AudioInput(num_samples=6, num_channels=5, patch=2, positions=FEW)}, (1, 6, 5)),
        ({"spectrogram": AudioInput(num_samples=5, num_channels=4, patch=1, patch_bins=1, positions=FEW)}, (1, 5, 4)),
        (
            {
                "image": ImageInput(
                    height=4,
                    width=4,
                    project_to=7,
                    positions=PositionsConfig(kind="learned", learned_width=6, project_to=5),
                )
            },
            (1, 4, 4, 3),
        ),
    ],
)
def test_the_other_inputs_give_the_tokens_that_the_config_counts(
    inputs: dict[str, Input], value: tuple[int, ...]
) -> None:
    config = dataclasses.replace(SMALL, inputs=inputs, outputs={"label": LabelOutput(num_classes=3)})
    built = network(config)
    tokens = built.inputs(dict.fromkeys(inputs, random(*value)), None, None, torch.float32)
    assert tokens.values.shape == (1, config.num_tokens, config.token_width)


def test_the_conv_stem_has_the_padding_of_the_released_code() -> None:
    image = ImageInput(height=224, width=224, conv_stem=True)
    assert image.grid == (56, 56)
    built = network(dataclasses.replace(SMALL, inputs={"image": image}, outputs={"label": LabelOutput()}))
    stem = built.get_submodule("inputs.adapters.image.stem").eval()
    pixels = random(1, 8, 8, 3)
    weight, norm = stem.get_parameter("convolution.weight"), stem.get_submodule("norm")
    # 2 before and 3 after the convolution, 0 before and 1 after the pool.
    padded = torch.nn.functional.pad(pixels.permute(0, 3, 1, 2), (2, 3, 2, 3))
    features = torch.relu(norm(torch.nn.functional.conv2d(padded, weight, stride=2)))
    expected = [
        [features[0, :, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3].amax(dim=(1, 2)) for column in range(2)]
        for row in range(2)
    ]
    torch.testing.assert_close(stem(pixels)[0], torch.stack([torch.stack(row) for row in expected]))
