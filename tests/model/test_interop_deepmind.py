"""DeepMind's released networks, from arrays under Haiku's names: equal to Hugging Face's ports of them.

DeepMind's code needs JAX; Hugging Face's models hold its weights and, with the tanh GELU, compute what it does. Here
their tensors are given the names and the axes that Haiku has: each layer of DeepMind's code numbers its own modules in
the order in which it makes them, and a linear layer has its inputs first.
"""

import re
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from model.interop.deepmind import from_deepmind
from model.interop.huggingface import from_hugging_face
from model.interop.huggingface_config import config_from_hugging_face
from model.modalities.adapters.pixels import neighbourhoods
from model.modalities.image import ImageInput
from model.perceiver import Perceiver

FLOW, CLIPS = "PerceiverForOpticalFlow", "PerceiverForMultimodalAutoencoding"
CONV = "PerceiverForImageClassificationConvProcessing"
# What the arrays do not say.
SIZES: dict[str, dict[str, Any]] = {
    FLOW: {"train_size": [6, 8]},
    CLIPS: {"num_frames": 2, "image_size": 4, "audio_samples_per_frame": 32, "output_shape": [1, 2, 16, 16]},
}
SMALL: dict[str, Any] = {
    "num_latents": 4, "d_latents": 16, "num_self_attends_per_block": 3, "num_labels": 5,
    "attention_probs_dropout_prob": 0.0, "hidden_act": "gelu_pytorch_tanh", "num_self_attention_heads": 8,
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "PerceiverForMaskedLM": {
        "num_blocks": 1, "num_cross_attention_heads": 8, "d_model": 24, "max_position_embeddings": 6, "vocab_size": 20,
        "qk_channels": 8 * 32, "v_channels": 16,
    },
    "PerceiverForImageClassificationFourier": {"num_blocks": 8, "num_cross_attention_heads": 1, "d_model": 261},
    "PerceiverForImageClassificationLearned": {
        "num_blocks": 8, "num_cross_attention_heads": 1, "d_model": 512, "image_size": 4,
    },
    CONV: {"num_blocks": 8, "num_cross_attention_heads": 1, "d_model": 322},
    FLOW: {
        "num_blocks": 1, "num_cross_attention_heads": 1, "num_self_attention_heads": 16, "d_model": 322,
        **SIZES[FLOW],
    },
    CLIPS: {
        "num_blocks": 1, "num_cross_attention_heads": 1, "d_model": 704, "samples_per_patch": 16,
        "output_num_channels": 12, "_label_trainable_num_channels": 20, **SIZES[CLIPS],
    },
}  # fmt: skip


def theirs_of(architecture: str) -> torch.nn.Module:
    config = transformers.PerceiverConfig(**(SMALL | MODELS[architecture]))
    network = getattr(transformers, architecture)(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    assert isinstance(network, torch.nn.Module)
    return network


def haiku(state: dict[str, Tensor], architecture: str = "") -> dict[str, Tensor]:
    """Return Hugging Face's tensors as DeepMind's code names and turns them."""
    arrays = {}
    for name, tensor in state.items():
        turned = name.endswith(".weight") and "embeddings" not in name and "layernorm" not in name
        key = PLACES_OF_CLIPS.get(name) if architecture == CLIPS else None
        key = key or haikus_name(name)
        if architecture in DECODERS and not key.endswith("pos_embs"):
            key = key.replace("classification_decoder/", f"{DECODERS[architecture]}/")
        if architecture == CLIPS:
            key = key.replace("perceiver_encoder/", "encoder/")
        arrays[key] = turned_back(tensor) if turned else tensor
    return arrays


def turned_back(tensor: Tensor) -> Tensor:
    return tensor.T if tensor.dim() == 2 else tensor.permute(2, 3, 1, 0)


LAYER = {
    "attention.self.query": "attention/linear", "attention.self.key": "attention/linear_1",
    "attention.self.value": "attention/linear_2", "attention.output.dense": "attention/linear_3",
    "mlp.dense1": "mlp/linear", "mlp.dense2": "mlp/linear_1",
}  # fmt: skip
PLACES = {
    "perceiver.embeddings.latents": "perceiver_encoder/~/trainable_position_encoding/pos_embs",
    "perceiver.input_preprocessor.embeddings.weight": "embed/embeddings",
    "perceiver.input_preprocessor.position_embeddings.weight": "trainable_position_encoding/pos_embs",
    "embedding_decoder.bias": "embedding_decoder/bias",
    "perceiver.input_preprocessor.position_embeddings.position_embeddings":
        "image_preprocessor/~_build_network_inputs/trainable_position_encoding/pos_embs",
    "perceiver.decoder.decoder.output_position_encodings.position_embeddings":
        "classification_decoder/~/basic_decoder/~/trainable_position_encoding/pos_embs",
    "perceiver.decoder.output_position_encodings.position_embeddings":
        "basic_decoder/~/trainable_position_encoding/pos_embs",
}  # fmt: skip
PLACES_OF_CLIPS = {
    "perceiver.embeddings.latents": "encoder/~/trainable_position_encoding/pos_embs",
    "perceiver.decoder.modalities.label.decoder.output_position_encodings.position_embeddings":
        "classification_decoder/~/basic_decoder/~/trainable_position_encoding/pos_embs",
    **{f"perceiver.input_preprocessor.{kind}.{of}": f"multimodal_preprocessor/{of}_{name}/pos_embs"
       for of in ("audio", "image", "label") for kind, name in (("padding", "padding"), ("mask", "mask_token"))},
    **{f"perceiver.decoder.padding.{of}": f"multimodal_decoder/~decoder_query/{of}_padding/pos_embs"
       for of in ("audio", "image", "label")},
}  # fmt: skip
DECODERS = {FLOW: "flow_decoder", CLIPS: "multimodal_decoder"}
MODULES = {
    **{f"perceiver.output_postprocessor.modalities.{of}.classifier": f"{name}_postprocessor/linear"
       for of, name in (("audio", "audio"), ("image", "projection"), ("label", "classification"))},
    "perceiver.input_preprocessor.conv_after_patches": "image_preprocessor/patches_linear",
    "perceiver.encoder.cross_attention": "perceiver_encoder/~/cross_attention",
    "perceiver.decoder.decoder.decoding_cross_attention": "classification_decoder/~/basic_decoder/cross_attention",
    "perceiver.decoder.decoding_cross_attention": "basic_decoder/cross_attention",
    "perceiver.decoder.decoder.final_layer": "classification_decoder/~/basic_decoder/output",
    "perceiver.input_preprocessor.convnet_1x1": "image_preprocessor/~/conv2_d",
    "perceiver.input_preprocessor.positions_projection":
        "image_preprocessor/~_build_network_inputs/position_encoding_projector/linear",
}  # fmt: skip


def haikus_name(name: str) -> str:
    if name in PLACES:
        return PLACES[name]
    module, _, kind = name.rpartition(".")
    module = re.sub(
        r"^perceiver\.encoder\.self_attends\.(\d+)",
        lambda found: "perceiver_encoder/~/self_attention" + (f"_{found[1]}" if found[1] != "0" else ""),
        module,
    )
    module = next((new + module.removeprefix(old) for old, new in MODULES.items() if module.startswith(old)), module)
    of_latents = "self_attention" in module
    norms = {
        "attention.self.layernorm1": "layer_norm",
        "attention.self.layernorm2": "layer_norm_1",
        "layernorm": "layer_norm_1" if of_latents else "layer_norm_2",
    }
    for old, new in (*norms.items(), *LAYER.items()):
        if module.endswith(f".{old}"):
            module = f"{module.removesuffix(f'.{old}')}/{new}"
            break
    is_norm = "layer_norm" in module
    return f"{module}/{ {'weight': 'scale', 'bias': 'offset'}[kind] if is_norm else kind[0] }"


@pytest.mark.parametrize("architecture", ["PerceiverForMaskedLM", "PerceiverForImageClassificationFourier"])
def test_outputs_and_gradients_are_those_of_the_port(architecture: str) -> None:
    theirs = theirs_of(architecture)
    ours = from_deepmind(haiku(theirs.state_dict())).eval()
    if architecture == "PerceiverForMaskedLM":
        ids = torch.arange(12).reshape(2, 6) % 20
        expected, found = theirs(inputs=ids).logits, ours({"text": ids})["text"]
        pair = (
            "encoder.cross_attends.0.attention.key.weight",
            theirs.perceiver.encoder.cross_attention.attention.self.key,
        )
    else:
        pixels = torch.rand(1, 224, 224, 3, generator=torch.Generator().manual_seed(1))
        small = Perceiver(_small(ours), seed=0).eval()
        small.load_state_dict(ours.state_dict())
        expected = theirs(inputs=pixels[:, :8, :8].permute(0, 3, 1, 2)).logits
        found = small({"image": pixels[:, :8, :8]})["label"]
        pair = ("decoder.heads.label.logits.weight", theirs.perceiver.decoder.decoder.final_layer)
        ours = small
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    expected.square().sum().backward()
    found.square().sum().backward()
    gradient, scale = pair[1].weight.grad, float(pair[1].weight.grad.abs().max())
    torch.testing.assert_close(dict(ours.named_parameters())[pair[0]].grad, gradient, rtol=0, atol=1e-5 * max(scale, 1))
    latents = theirs.perceiver.embeddings.latents.grad
    torch.testing.assert_close(
        dict(ours.named_parameters())["encoder.latents.weight"].grad,
        latents,
        rtol=0,
        atol=1e-5 * float(latents.abs().max()),
    )


@pytest.mark.parametrize("architecture", [FLOW, CLIPS])
def test_motion_and_clips_and_their_gradients_are_those_of_the_port(architecture: str) -> None:
    theirs = theirs_of(architecture)
    released = from_deepmind(haiku(theirs.state_dict(), architecture))
    # The file does not say the sizes of frames and clips: they are the released ones, whatever the weights.
    sizes = SIZES[architecture].keys()
    values = theirs.config.to_dict() | {"architectures": [architecture]}
    assert released.config == config_from_hugging_face({key: each for key, each in values.items() if key not in sizes})
    ours = Perceiver(config_from_hugging_face(values), seed=0).eval()
    ours.load_state_dict(released.state_dict())
    expected, found = _motion(theirs, ours) if architecture == FLOW else _clips(theirs, ours)
    for name, answer in expected.items():
        largest = float(answer.detach().abs().max())
        assert largest > 1e-2
        torch.testing.assert_close(found[name], answer, rtol=0, atol=1e-5 * max(largest, 1))
    for answers in (expected, found):
        sum(answer.square().mean() for answer in answers.values()).backward()
    named = dict(ours.named_parameters())
    encoder = theirs.perceiver.encoder
    for here, there in (
        ("encoder.latents.weight", theirs.perceiver.embeddings.latents),
        ("encoder.cross_attends.0.attention.key.weight", encoder.cross_attention.attention.self.key.weight),
        ("encoder.blocks.0.2.mlp.widen.weight", encoder.self_attends[2].mlp.dense1.weight),
    ):
        scale = float(there.grad.abs().max())
        torch.testing.assert_close(named[here].grad / scale, there.grad / scale, rtol=0, atol=1e-5)


def _motion(theirs: Any, ours: Perceiver) -> tuple[dict[str, Tensor], dict[str, Tensor]]:  # noqa: ANN401
    frames = torch.randn(2, 2, 6, 8, 3, generator=torch.Generator().manual_seed(1))
    patches = neighbourhoods(frames).permute(0, 1, 4, 2, 3)
    return {"flow": theirs(inputs=patches).logits}, ours({"flow": frames})


def _clips(theirs: Any, ours: Perceiver) -> tuple[dict[str, Tensor], dict[str, Tensor]]:  # noqa: ANN401
    """Theirs runs with subsampled points only, and hides every label."""
    generator = torch.Generator().manual_seed(1)
    video, audio = torch.randn(2, 2, 16, 16, 3, generator=generator), torch.randn(2, 64, generator=generator)
    labels = torch.tensor([1, 3])
    points = {"image": torch.tensor([0, 5, 77, 127]), "audio": torch.tensor([0, 3])}
    inputs = {"image": video.permute(0, 1, 4, 2, 3), "audio": audio[..., None], "label": torch.eye(5)[labels]}
    logits = theirs(inputs=inputs, subsampled_output_points={**points, "label": None}).logits
    found = ours(
        {"audio": audio, "label": labels, "video": video},
        hidden={"label": torch.ones(2, 1, dtype=torch.bool)},
        points={"video": points["image"], "audio": points["audio"]},
    )
    found["audio"] = found["audio"].flatten(1)
    return {"video": logits["image"], "audio": logits["audio"], "label": logits["label"]}, found


def _small(network: Perceiver) -> Any:  # noqa: ANN401
    """The same network for pictures of 8 x 8, which cost nothing."""
    from dataclasses import replace

    image = network.config.input_of(ImageInput)
    assert image is not None
    assert image.shape == (224, 224, 3)
    # Numbers as they are, since Hugging Face's model takes them so.
    return replace(
        network.config, inputs={"image": replace(image, height=8, width=8, values="raw", pixel_range="unit")}
    )


def test_the_network_with_learned_positions_has_no_residual_of_its_query() -> None:
    ours = from_deepmind(haiku(theirs_of("PerceiverForImageClassificationLearned").state_dict()))
    assert ours.config.decoder.query_residual is False
    assert ours.config.gelu == "tanh"


STEM = "image_preprocessor/~/conv2_d_downsample/~/"
CONVNET = {
    "conv.weight": "conv/w",
    "batchnorm.weight": "batchnorm/scale",
    "batchnorm.bias": "batchnorm/offset",
    "batchnorm.running_mean": "batchnorm/~/mean_ema/average",
    "batchnorm.running_var": "batchnorm/~/var_ema/average",
}


def test_the_network_with_a_convolution_has_the_tensors_of_the_port() -> None:
    theirs: Any = theirs_of(CONV)
    state, own = theirs.state_dict(), "perceiver.input_preprocessor.convnet."
    arrays = haiku({name: each for name, each in state.items() if not name.startswith(own)})
    arrays |= {STEM + there: state[own + here] for here, there in CONVNET.items()}
    # Rows, columns, what comes in, what goes out; and the averages have counters beside them.
    arrays[f"{STEM}conv/w"] = arrays[f"{STEM}conv/w"].permute(2, 3, 1, 0)
    arrays |= {f"{STEM}batchnorm/~/mean_ema/{name}": torch.ones(()) for name in ("counter", "hidden")}
    ours = from_deepmind(arrays)
    values = theirs.config.to_dict() | {"architectures": [CONV]}
    assert ours.config == config_from_hugging_face(values)
    expected = from_hugging_face(values, state).state_dict()
    assert ours.state_dict().keys() == expected.keys()
    for name, each in ours.state_dict().items():
        assert torch.equal(each, torch.zeros_like(each) if "num_batches" in name else expected[name]), name


def test_arrays_may_stand_under_params_and_counters_are_left_out() -> None:
    arrays = haiku(theirs_of("PerceiverForMaskedLM").state_dict())
    counter = {"state/perceiver_encoder/~/mean_ema/counter": torch.zeros(())}
    found = from_deepmind({**{f"params/{name}": each for name, each in arrays.items()}, **counter})
    assert len(found.state_dict()) == len(arrays)


def test_other_arrays_are_refused_and_a_missing_one_is_named() -> None:
    with pytest.raises(ValueError, match=r"is none of DeepMind's .* got a, b"):
        from_deepmind({"a": torch.zeros(1), "b": torch.zeros(1)})
    arrays = haiku(theirs_of("PerceiverForMaskedLM").state_dict())
    with pytest.raises(ValueError, match="missing embedding_decoder/bias; surplus nothing"):
        from_deepmind({name: each for name, each in arrays.items() if name != "embedding_decoder/bias"})
    with pytest.raises(ValueError, match="lacks the array perceiver_encoder/~/trainable_position_encoding/pos_embs"):
        from_deepmind({name: each for name, each in arrays.items() if "perceiver_encoder/~/train" not in name})
