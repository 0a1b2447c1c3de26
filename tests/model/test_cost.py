"""Formulas of cost against networks that are built, and against the figures that the papers print."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from launch.networks.network_files import network_config
from model.budget.flops import network_cost, shared_reads, total
from model.config.attention import AttentionConfig
from model.config.decoder import DecoderConfig
from model.config.grids import PositionsConfig
from model.config.perceiver import PerceiverConfig
from model.modalities.audio import AudioInput
from model.modalities.flow import FlowInput
from model.modalities.image import ImageInput
from model.modalities.label import LabelInput
from model.modalities.text import TextInput
from model.modalities.video import VideoInput
from model.outputs.flow import FlowOutput
from model.outputs.grid import GridOutput
from model.outputs.label import LabelOutput
from model.outputs.text import TextOutput
from model.perceiver import Perceiver

PAPER = Path(__file__).parents[2] / "configs" / "paper"
# Parameters in millions and forward operations in billions, as printed, or as the papers' own dimensions give them
# where their figures contradict each other (marked; the files say why). None: the papers print nothing.
PRINTED: dict[str, tuple[float | None, float | None]] = {
    "p1": (44.9, 707.2),
    "p1n": (326.2, 707.2),
    "p1a_1": (42.1, 404.3),
    "p1a_2": (44.9, 447.6),
    "p1a_4": (44.9, 534.1),
    "p1a_start": (44.912, 706.3),  # printed 41.1 for one cross-attend at the start; this is what eight weigh
    "p1c_4": (12.7, 173.1),
    "p1c_8": (23.8, 346.1),
    "p1c_12": (34.9, 519.2),
    "p2": (None, None),
    "p3": (None, None),
    "p4": (None, None),
    "p5": (None, None),
    "p6": (None, None),
    "p7": (None, None),
    "p7_mel": (None, None),
    "p8": (None, None),
    "i1": (48.4, 407.0),
    "i1p": (42.1, 404.0),
    "i2": (62.3, 471.4),  # printed 407
    "i2p": (55.9, 469.3),  # printed 404
    "i3": (48.6, 369.0),
    "i3p": (42.34, 367.0),  # printed 42.1
    "i4": (213.083, 334.6),  # printed 212 and 213, of different depths
    "i5": (212, 231.9),  # printed 176, of another depth
    "i6": (223, 133.6),  # printed 119, of another depth
    "i7": (201, 120.9),  # printed 113, of another depth
    "i8": (425.6, 241.0),
    "i8b_128": (None, 127.4),  # printed 120, of another depth
    "i8b_512": (None, 134.1),  # printed 125, of another depth
    "i9": (None, None),
    "i9_single": (None, None),
    "i10": (41.06, 1886.7),  # printed 27.9 and 987; the released model has 41.06
    "i11": (None, None),
    "i12": (None, None),
    "i12_separate": (None, None),
    "i12_light": (None, None),
    "i13": (19.86, 260.1),  # printed 20.0 and 310
    "i14": (24.9, 52.9),  # printed 25.0
    "i14p": (21.0, 52.3),
    "i15": (86.6, 129.5),  # printed 88.2
    "i15p": (21.0, 60.7),
}
POINTS = {"i13": {"video": 512, "audio": 512}}


def paper(name: str) -> PerceiverConfig:
    return network_config(PAPER / f"{name}.yaml", ())


def test_every_file_is_in_the_table() -> None:
    assert {path.stem for path in PAPER.glob("*.yaml")} == PRINTED.keys()


@pytest.mark.parametrize("name", PRINTED)
def test_the_papers_figures(name: str) -> None:
    config, (millions, billions) = paper(name), PRINTED[name]
    assert list(config.problems()) == []
    cost = total(network_cost(config, POINTS.get(name)))
    if millions is not None:
        # The papers round some figures and cut others off at their last digit.
        digits = len(str(millions).partition(".")[2])
        assert cost.parameters / 1e6 == pytest.approx(millions, abs=10**-digits)
    if billions is not None:
        assert cost.flops / 1e9 == pytest.approx(billions, rel=0.005)


@pytest.mark.parametrize(("name", "parameters"), [("i1", 48_440_627), ("i7", 201_108_230), ("i13", 19_858_855)])
def test_the_released_models_have_exactly_these_parameters(name: str, parameters: int) -> None:
    assert total(network_cost(paper(name))).parameters == parameters


@pytest.mark.parametrize(
    ("name", "num_tokens", "token_width"),
    [("i12", 11_408, 322), ("i12_separate", 22_816, 451), ("i12_light", 11_408, 322)],
)
def test_downsampled_flow_has_the_tokens_and_queries_of_the_paper(name: str, num_tokens: int, token_width: int) -> None:
    config = paper(name)
    assert (config.num_tokens, config.token_width, config.decoder_width) == (num_tokens, token_width, token_width)
    assert config.answers()["flow"].num_queries(config) == 11_408
    # The convolution and its norm; 64 channels after the decoder, 2 of motion, 16 x 9 shares of 3x3 cells.
    stem = 49 * (3 if name == "i12_separate" else 6) * 64 + 2 * 64
    head = token_width * 64 + 64 + (64 * 2 + 2) + (9 * 64 * 144 + 144)
    cross, reading = decoding_parameters(512, token_width), decoding_parameters(token_width, 512)
    layers = config.layers_per_block * (6 * 512**2 + 10 * 512)
    expected = stem + head + cross + reading + layers + config.num_latents * 512
    assert total(network_cost(config)).parameters == expected


def decoding_parameters(query_width: int, token_width: int) -> int:
    """Of a cross-attend whose projections have the tokens' width: four of them, the MLP and three norms."""
    D, C = query_width, token_width
    return (D * C + C) + 2 * (C * C + C) + (C * D + D) + 2 * (D * D + D) + 4 * D + 2 * C


FEW = PositionsConfig(num_bands=3)
BASE = PerceiverConfig(
    inputs={"image": ImageInput(height=8, width=8, positions=FEW)},
    outputs={"label": LabelOutput(num_classes=5)},
    num_latents=6,
    latent_width=16,
    num_cross_attends=2,
    num_blocks=2,
    layers_per_block=2,
    share_cross_attends=False,
    self_attend=AttentionConfig(num_heads=4, qk_width=8, value_width=12, mlp_ratio=3),
)
LEARNED = PositionsConfig(kind="learned", learned_width=6, project_to=5)
NETWORKS = {
    "mean": BASE,
    "shared": dataclasses.replace(BASE, num_cross_attends=3, num_blocks=3, share_cross_attends=True),
    "unshared blocks": dataclasses.replace(BASE, share_blocks=False),
    "learned positions": dataclasses.replace(
        BASE, inputs={"image": ImageInput(height=8, width=8, patch=2, project_to=7, positions=LEARNED)}
    ),
    "conv": dataclasses.replace(BASE, inputs={"image": ImageInput(height=8, width=8, conv_stem=True, positions=FEW)}),
    "text": dataclasses.replace(
        BASE,
        inputs={"text": TextInput(max_tokens=8, embedding_width=12)},
        outputs={"text": TextOutput()},
        decoder=DecoderConfig(cross_attend=AttentionConfig(num_heads=2, qk_width=8, value_width=12)),
    ),
    "flow": dataclasses.replace(
        BASE,
        inputs={"flow": FlowInput(height=8, width=8, project_to=5, positions=FEW)},
        outputs={"flow": FlowOutput()},
    ),
    "downsampled flow": dataclasses.replace(
        BASE,
        inputs={"flow": FlowInput(height=9, width=14, conv_stem=True, project_to=0, positions=FEW)},
        outputs={"flow": FlowOutput()},
        decoder=DecoderConfig(output_width=10),
    ),
    "downsampled separate frames": dataclasses.replace(
        BASE,
        inputs={
            "flow": FlowInput(height=9, width=14, conv_stem=True, project_to=5, separate_frames=True, positions=FEW)
        },
        outputs={"flow": FlowOutput()},
    ),
    "autoencoder": dataclasses.replace(
        BASE,
        inputs={
            "audio": AudioInput(num_samples=24, patch=4, positions=FEW),
            "label": LabelInput(num_classes=5),
            "video": VideoInput(num_frames=2, height=8, width=8, patch=4, project_to=9, positions=FEW),
        },
        outputs={
            "audio": GridOutput(shape=(6,), num_channels=4, positions=LEARNED),
            "label": LabelOutput(num_classes=5, pooling="query", hidden_layer=True),
            "video": GridOutput(shape=(2, 8, 8), positions=FEW),
        },
        mask_tokens=True,
        decoder=DecoderConfig(output_width=10),
    ),
}


def inputs(config: PerceiverConfig) -> dict[str, Tensor]:
    chosen = config.ordered_inputs
    whole = {"text": torch.int16, "label": torch.int64}
    return {name: torch.zeros(1, *modality.shape, dtype=whole.get(name)) for name, modality in chosen.items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_are_those_of_the_network(name: str) -> None:
    built = Perceiver(NETWORKS[name], seed=0)
    parts = network_cost(NETWORKS[name])
    assert total(parts).parameters == sum(parameter.numel() for parameter in built.parameters())
    assert parts["inputs"].parameters == sum(parameter.numel() for parameter in built.inputs.parameters())
    assert parts["decoder"].parameters == sum(parameter.numel() for parameter in built.decoder.parameters())


@pytest.mark.parametrize("name", NETWORKS)
def test_operations_are_those_of_the_network(name: str) -> None:
    config = dataclasses.replace(NETWORKS[name], cross_attend_form="plain")
    built = Perceiver(config, seed=0).eval()
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        built(inputs(config))
    expected = total(network_cost(config)).flops - shared_reads(config)
    # The layers over learned positions run once a batch and are left out of the formula.
    projections = [m for n, m in built.named_modules() if n.endswith(("positions.project", "queries.audio.project"))]
    rows = {"learned positions": 16, "autoencoder": 6}.get(name, 0)
    extra = sum(2 * rows * m.weight.numel() for m in projections if isinstance(m, torch.nn.Linear))
    assert counter.get_total_flops() == expected + extra
