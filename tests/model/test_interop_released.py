"""The released models of Hugging Face: their config.json says little of what their networks read."""

from pathlib import Path
from typing import Any

import pytest
import transformers

from launch.networks.network_files import network_config
from model.config.perceiver import PerceiverConfig
from model.interop.huggingface_config import config_from_hugging_face, config_to_hugging_face
from model.outputs.grid import GridOutput

PAPER = Path(__file__).parents[2] / "configs" / "paper"
VISION = {
    "num_latents": 512,
    "d_latents": 1024,
    "num_blocks": 8,
    "num_self_attends_per_block": 6,
    "num_self_attention_heads": 8,
    "num_cross_attention_heads": 1,
    "num_labels": 1000,
}
# What the released files set beside the defaults of their class, and the file of the same network in configs/paper.
RELEASED: dict[str, tuple[str, dict[str, Any]]] = {
    "PerceiverForImageClassificationFourier": ("i1", VISION | {"d_model": 261}),
    "PerceiverForImageClassificationLearned": ("i2", VISION | {"d_model": 512, "image_size": 224}),
    "PerceiverForImageClassificationConvProcessing": ("i3", VISION | {"d_model": 322}),
    "PerceiverForMaskedLM": ("i7", {"qk_channels": 256, "v_channels": 1280}),
    "PerceiverForOpticalFlow": (
        "i10",
        {
            "num_latents": 2048,
            "d_latents": 512,
            "d_model": 322,
            "num_self_attends_per_block": 24,
            "num_self_attention_heads": 16,
            "num_cross_attention_heads": 1,
        },
    ),
    "PerceiverForMultimodalAutoencoding": (
        "i13",
        {
            "num_latents": 784,
            "d_latents": 512,
            "d_model": 704,
            "num_self_attends_per_block": 8,
            "num_self_attention_heads": 8,
            "num_cross_attention_heads": 1,
            "num_labels": 700,
        },
    ),
}
SHAPES = {
    "i1": {"image": (224, 224, 3)},
    "i2": {"image": (224, 224, 3)},
    "i3": {"image": (224, 224, 3)},
    "i7": {"text": (2048,)},
    "i10": {"flow": (2, 368, 496, 3)},
    "i13": {"audio": (30720,), "label": (), "video": (16, 224, 224, 3)},
}


def released(architecture: str) -> dict[str, Any]:
    config = transformers.PerceiverConfig(**RELEASED[architecture][1])
    return config.to_dict() | {"architectures": [architecture]}


def of_paper(name: str) -> PerceiverConfig:
    return network_config(PAPER / f"{name}.yaml", ())


def places(grids: dict[str, Any]) -> dict[str, object]:
    """Bands, and the highest resolution of every axis, of each part that has Fourier positions."""
    found = {}
    for name, part in grids.items():
        positions = getattr(part, "positions", None)
        if positions is not None and positions.kind == "fourier":
            grid = getattr(part, "grid", part.shape)
            found[name] = (positions.num_bands, tuple(positions.max_resolution or grid))
    return found


@pytest.mark.parametrize("architecture", RELEASED)
def test_a_released_config_is_the_network_of_the_paper(architecture: str) -> None:
    found, name = config_from_hugging_face(released(architecture)), RELEASED[architecture][0]
    paper = of_paper(name)
    assert {name: modality.shape for name, modality in found.ordered_inputs.items()} == SHAPES[name]
    assert {name: modality.shape for name, modality in paper.ordered_inputs.items()} == SHAPES[name]
    assert (found.num_tokens, found.token_width) == (paper.num_tokens, paper.token_width)
    assert found.token_width == RELEASED[architecture][1].get("d_model", 768)
    assert places(found.ordered_inputs) == places(paper.ordered_inputs)
    assert places(found.answers()) == places(paper.answers())
    assert found.decoder_width == paper.decoder_width
    assert found.schedule() == paper.schedule()


def test_the_clip_of_the_released_autoencoder_has_positions_of_the_authors_code() -> None:
    found = config_from_hugging_face(released("PerceiverForMultimodalAutoencoding"))
    assert found.inputs["video"] is not None
    drawn = found.answers()["video"]
    assert isinstance(drawn, GridOutput)
    assert found.inputs["video"].positions.max_resolution == (16, 56, 56)
    assert drawn.positions.max_resolution == (16, 56, 56)
    assert drawn.shape == (16, 224, 224)


@pytest.mark.parametrize("architecture", [name for name in RELEASED if "Conv" not in name])
def test_a_released_config_goes_out_as_it_came(architecture: str) -> None:
    config = released(architecture)
    out = config_to_hugging_face(config_from_hugging_face(config))
    again = transformers.PerceiverConfig(**out).to_dict()
    for key in ("image_size", "num_frames", "audio_samples_per_frame", "d_model", "train_size", "output_shape"):
        if key != "image_size" or "Fourier" not in architecture:
            assert again[key] == config[key], key


def test_a_preprocessor_says_the_side_that_a_config_does_not() -> None:
    config = released("PerceiverForImageClassificationFourier")
    found = config_from_hugging_face(config, side=56).inputs["image"]
    assert found is not None
    assert found.shape == (56, 56, 3)
