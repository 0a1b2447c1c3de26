"""Random configurations: each is refused in sentences, or is a network that answers and learns."""

import dataclasses
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from model.budget import plan
from model.config.attention import AttentionConfig
from model.config.decoder import DecoderConfig
from model.config.grids import PositionsConfig
from model.config.perceiver import PerceiverConfig
from model.modalities.audio import AudioInput
from model.modalities.flow import FlowInput
from model.modalities.image import ImageInput
from model.modalities.input import Input
from model.modalities.label import LabelInput
from model.modalities.points import PointsInput
from model.modalities.text import TextInput
from model.modalities.video import VideoInput
from model.outputs.flow import FlowOutput
from model.outputs.grid import GridOutput
from model.outputs.label import LabelOutput
from model.outputs.output import Output
from model.outputs.text import TextOutput
from model.outputs.value import ValueOutput
from model.perceiver import Perceiver

NUMBERS = (0, -1, -7)
RATES = (0.0, -1.0, float("nan"), float("inf"))
SHAPES = ((), (0,), (-1, 2), (3,), (1, 1), (2, 3), (4, 5, 6))
LABELS = ("other", "type", "values", "train", "x.y", "", "label", "text")
WORDS = {
    "kind": ("fourier", "learned", "none"),
    "pixel_range": ("unit", "centred", "imagenet"),
    "norm": ("layer", "rms"),
    "mlp": ("gelu", "geglu", "swiglu"),
    "pooling": ("mean", "query"),
    "arrangement": ("interleaved", "at_start", "first_blocks"),
    "gelu": ("tanh", "erf"),
    "residual_dtype": ("fp32", "bf16"),
    "cross_attend_form": ("auto", "plain", "absorbed", "separable"),
    "activation_checkpointing": ("none", "blocks", "layers", "selective", "offload"),
}
BASE: dict[str, Any] = {
    "num_latents": 3,
    "latent_width": 12,
    "num_cross_attends": 2,
    "num_blocks": 2,
    "layers_per_block": 1,
    "self_attend": AttentionConfig(num_heads=2),
    "cross_attend": AttentionConfig(qk_width=12),
}


def inputs(draw: random.Random) -> dict[str, Input]:
    bands = PositionsConfig(num_bands=2)
    every: dict[str, Input] = {
        "audio": AudioInput(
            num_samples=12, num_channels=draw.choice((1, 2)), patch=draw.choice((1, 3)), positions=bands
        ),
        "flow": FlowInput(height=5, width=6, conv_stem=draw.random() < 0.3, project_to=4, positions=bands),
        "image": ImageInput(height=4, width=6, patch=draw.choice((1, 2)), positions=bands),
        "label": LabelInput(num_classes=3),
        "points": PointsInput(num_points=5, num_bands=2, max_frequency=4.0),
        "spectrogram": AudioInput(num_samples=4, num_channels=3, patch=1, patch_bins=1, positions=bands),
        "text": TextInput(max_tokens=6, embedding_width=10),
        "video": VideoInput(num_frames=2, height=4, width=4, patch=2, positions=bands),
    }
    names = draw.sample(sorted(every), draw.choice((1, 1, 1, 2, 3)))
    return {name: every[name] for name in names}


def outputs(draw: random.Random, read: dict[str, Input]) -> dict[str, Output]:
    label = LabelOutput(num_classes=3, pooling=draw.choice(("mean", "query")))
    grid = GridOutput(shape=(2, 3), num_channels=2, positions=PositionsConfig(num_bands=2))
    drawn: dict[str, Output | None] = {
        "label": None if draw.random() < 0.2 else label,
        draw.choice(LABELS): dataclasses.replace(label, target="a") if draw.random() < 0.3 else None,
        "text": TextOutput() if read.get("text") and draw.random() < 0.3 else None,
        "flow": FlowOutput() if read.get("flow") and draw.random() < 0.5 else None,
        "image": grid if draw.random() < 0.2 else None,
        "age": ValueOutput(pooling="query") if draw.random() < 0.2 else None,
    }
    return {name: output for name, output in drawn.items() if output is not None}


def changed(value: Any, draw: random.Random) -> Any:  # noqa: ANN401  # any dataclass of a config
    """The same dataclass with one of its fields, or of those inside it, at another value."""
    # A compiled network takes longer than all the others together.
    name = draw.choice([field.name for field in dataclasses.fields(value) if field.name not in ("compile", "modality")])
    before = getattr(value, name)
    options: tuple[Any, ...] = (before,)
    if dataclasses.is_dataclass(before):
        options = (changed(before, draw),)
    elif isinstance(before, dict) and name == "inputs":
        options = tuple({**before, key: changed(before[key], draw)} for key in before)
    elif isinstance(before, bool):
        options = (not before,)
    elif isinstance(before, int):
        options = (*NUMBERS, before + 1, before * 2, 5)
    elif isinstance(before, float):
        options = RATES
    elif isinstance(before, tuple):
        options = SHAPES
    elif isinstance(before, str):
        options = WORDS[name]
    return dataclasses.replace(value, **{name: draw.choice(options)})


def drawn(seed: int) -> PerceiverConfig:
    """A small network with none, one or several fields out of place."""
    draw = random.Random(seed)
    read = inputs(draw)
    config = PerceiverConfig(inputs=read, outputs=outputs(draw, read), decoder=DecoderConfig(), **BASE)
    for _ in range(draw.choice((0, 1, 1, 2, 4))):
        config = changed(config, draw)
    return config


def example(modality: Input) -> Tensor:
    shape = (2, *modality.shape)
    if isinstance(modality, TextInput):
        return torch.zeros(shape, dtype=torch.int64)
    if isinstance(modality, LabelInput):
        return torch.full(shape, -1)
    return torch.zeros(shape, dtype=torch.uint8) if hasattr(modality, "pixel_range") else torch.rand(shape)


def holds(config: PerceiverConfig) -> bool:
    """Check the claim for one configuration; return whether it is a network."""
    problems = list(config.problems())
    for key, sentence in problems:
        assert all(part not in f"{key} {sentence}" for part in ("\n", "Config(", "Input(", "Output(")), (key, sentence)
    if problems:
        with pytest.raises(ValueError, match=": "):
            Perceiver(config, seed=0)
        return False
    network = Perceiver(config, seed=0)
    plan.plan(config, device=plan.Device(2**30, 1e12))
    values = {name: example(modality) for name, modality in config.ordered_inputs.items()}
    answers = network(values)
    assert answers.keys() == config.answers().keys()
    assert all(answer.isfinite().all() for answer in answers.values())
    torch.stack([answer.sum() for answer in answers.values()]).sum().backward()
    # A mask token learns where tokens are hidden.
    unmoved = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert all("mask_tokens" in name for name in unmoved), unmoved
    return True


@pytest.mark.parametrize("seed", range(12))
def test_a_configuration_is_refused_in_sentences_or_is_a_network(seed: int) -> None:
    holds(drawn(seed))


@pytest.mark.slow
def test_many_configurations_are_refused_in_sentences_or_are_networks() -> None:
    networks = 0
    for seed in range(100, 250):
        try:
            networks += holds(drawn(seed))
        except Exception as error:
            raise AssertionError(f"seed {seed}: {drawn(seed)}") from error
    # Both kinds are many.
    assert 40 < networks < 110
