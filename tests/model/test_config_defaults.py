"""The defaults of a network's configuration."""

import dataclasses
from typing import Any

from model.config.decoder import DecoderConfig
from model.config.perceiver import PerceiverConfig
from model.modalities.audio import AudioInput
from model.modalities.flow import FlowInput
from model.modalities.image import ImageInput
from model.modalities.label import LabelInput
from model.modalities.points import PointsInput
from model.modalities.text import TextInput
from model.modalities.video import VideoInput
from model.outputs.embedding import EmbeddingOutput
from model.outputs.flow import FlowOutput
from model.outputs.grid import GridOutput
from model.outputs.label import LabelOutput, LabelsOutput
from model.outputs.masked import MaskedOutput
from model.outputs.points import PointsOutput
from model.outputs.text import TextOutput
from model.outputs.value import ValueOutput


def test_what_a_config_leaves_out_keeps_its_meaning() -> None:
    """A file of a run or of a paper names what it changes: another default would be another network."""
    bands = {"kind": "fourier", "num_bands": 64, "max_resolution": (), "learned_width": 256, "project_to": 0}
    attention = {"num_heads": 1, "qk_width": 0, "value_width": 0, "mlp_ratio": 1, "qkv_bias": True} | dict.fromkeys(
        ("qk_norm", "rotary"), False
    )
    of_any: dict[str, Any] = {"target": "", "loss_weight": 1.0}
    vector = {**of_any, "pooling": "mean", "query_width": 0, "hidden_layer": False, "norm_mean": False}
    classes = {**vector, "num_classes": 1_000, "class_weights": ()}
    pixels = {"num_channels": 0, "pixel_range": "unit"}
    square = {"height": 0, "width": 0}
    expected: dict[Any, dict[str, Any]] = {
        AudioInput: {
            "modality": "audio",
            "num_samples": 0,
            "num_channels": 0,
            "patch": 16,
            "patch_bins": 0,
            "positions": bands,
        },
        PointsInput: {
            "modality": "points",
            "num_points": 0,
            "num_dimensions": 0,
            "num_features": 0,
            "num_bands": 64,
            "max_frequency": 1_120.0,
        },
        TextInput: {"modality": "text", "max_tokens": 0, "vocabulary": 262, "embedding_width": 768},
        LabelInput: {"modality": "label", "num_classes": 700},
        ImageInput: {
            "modality": "image",
            **square,
            **pixels,
            "values": "",
            "patch": 1,
            "conv_stem": False,
            "project_to": 0,
            "positions": bands,
        },
        VideoInput: {
            "modality": "video",
            "num_frames": 0,
            **square,
            **pixels,
            "patch_frames": 1,
            "patch": 4,
            "project_to": 0,
            "positions": {**bands, "num_bands": 32},
        },
        FlowInput: {
            "modality": "flow",
            **square,
            **pixels,
            "pixel_range": "centred",
            "conv_stem": False,
            "project_to": 64,
            "separate_frames": False,
            "positions": bands,
        },
        LabelOutput: {**classes, "kind": "label"},
        LabelsOutput: {**classes, "kind": "labels", "loss": "sigmoid"},
        ValueOutput: {
            **vector,
            "kind": "value",
            "num_values": 1,
            "loss": "squared",
            "huber_delta": 1.0,
            "offset": 0.0,
            "scale": 1.0,
        },
        TextOutput: {**of_any, "kind": "text", "queries_from": "table", "is_tied": True},
        FlowOutput: {**of_any, "kind": "flow", "rescale": 100.0},
        GridOutput: {
            **of_any,
            "kind": "grid",
            "shape": (),
            "num_channels": 0,
            "positions": {**bands, "num_bands": 32},
            "train_queries": 0,
            "loss": "absolute",
            "value_range": 0.0,
        },
        EmbeddingOutput: {**vector, "kind": "embedding", "pair": (), "width": 256, "temperature": 0.07},
        PointsOutput: {
            **of_any,
            "kind": "points",
            "coordinates": "",
            "num_axes": 2,
            "num_channels": 1,
            "num_points": 1_024,
            "num_bands": 32,
            "max_frequency": 32.0,
            "train_points": 0,
            "loss": "squared",
        },
        MaskedOutput: {
            **of_any,
            "kind": "masked",
            "shape": (),
            "num_channels": 0,
            "positions": {**bands, "num_bands": 32},
            "train_queries": 0,
            "loss": "absolute",
            "value_range": 0.0,
            "fraction": 0.75,
            "token_grid": (),
        },
        DecoderConfig: {
            "cross_attend": attention,
            "query_residual": False,
            "has_mlp": True,
            "min_padding": 2,
            "output_width": 0,
        },
    }
    expected[PerceiverConfig] = {
        "inputs": {},
        "outputs": {},
        "network": None,
        "decoder": expected[DecoderConfig],
        "min_padding": 4,
        "mask_tokens": False,
        "num_latents": 512,
        "nested_latents": (),
        "latent_width": 1_024,
        "num_cross_attends": 8,
        "num_blocks": 8,
        "layers_per_block": 6,
        "arrangement": "interleaved",
        "share_cross_attends": True,
        "share_blocks": True,
        "cross_attend": attention,
        "self_attend": {**attention, "num_heads": 8},
        "gelu": "tanh",
        "norm": "layer",
        "mlp": "gelu",
        "dropout": 0.0,
        "drop_path": 0.0,
        "cross_attend_form": "auto",
        "activation_checkpointing": "none",
        "recompute_every_blocks": 1,
        "residual_dtype": "fp32",
        "compile": "auto",
    }
    for kind, fields in expected.items():
        assert dataclasses.asdict(kind()) == fields, kind
