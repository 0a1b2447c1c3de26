"""Hugging Face's models and ours, with the same weights: outputs, gradients, and files both ways.

Every tensor is perturbed, since zero biases and unit scales hide mistakes. Tolerances in float32, where sums run in
another order: 1e-5 for outputs, 1e-5 of the network's largest gradient and 1e-4 of its tensor's largest for gradients.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from transformers import PerceiverConfig as TheirConfig

from model.config.grids import PositionsConfig
from model.config.perceiver import PerceiverConfig as OurConfig
from model.interop.huggingface import from_hugging_face, to_hugging_face
from model.interop.huggingface_config import config_from_hugging_face
from model.modalities.adapters.pixels import neighbourhoods
from model.modalities.byte_array import Tokens
from model.outputs.flow import FlowOutput
from model.outputs.label import LabelOutput
from model.outputs.text import TextOutput
from model.perceiver import Perceiver

SMALL: dict[str, Any] = {
    "num_latents": 8,
    "d_latents": 32,
    "num_blocks": 2,
    "num_self_attends_per_block": 2,
    "num_self_attention_heads": 4,
    "num_cross_attention_heads": 1,
    "attention_probs_dropout_prob": 0.0,
    "num_labels": 5,
}
MODELS: dict[str, dict[str, Any]] = {
    "PerceiverForImageClassificationFourier": {"image_size": 8, "d_model": 261},
    "PerceiverForImageClassificationLearned": {"image_size": 8, "d_model": 512},
    "PerceiverForMaskedLM": {
        "d_model": 48,
        "max_position_embeddings": 12,
        "vocab_size": 40,
        "qk_channels": 16,
        "v_channels": 32,
        "num_cross_attention_heads": 8,
        "num_self_attention_heads": 8,
    },
    "PerceiverForSequenceClassification": {"d_model": 24, "max_position_embeddings": 12, "vocab_size": 40},
    "PerceiverForOpticalFlow": {"train_size": [6, 8], "d_model": 322},
    "PerceiverForMultimodalAutoencoding": {
        "num_frames": 2,
        "audio_samples_per_frame": 32,
        "samples_per_patch": 16,
        "image_size": 8,
        "output_shape": [1, 2, 8, 8],
        "output_num_channels": 24,
        "_label_trainable_num_channels": 40,
        "d_model": 704,
    },
}
# Its padding is another: docs/parity.md. Compared part by part.
CONV: dict[str, Any] = {"image_size": 32, "d_model": 322}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def their_model(architecture: str, gelu: str) -> torch.nn.Module:
    config = TheirConfig(**SMALL | MODELS.get(architecture, CONV) | {"hidden_act": gelu})
    config.architectures = [architecture]
    model = getattr(transformers, architecture)(config).eval()
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            deviation = 0.1 if parameter.dim() == 1 else parameter[0].numel() ** -0.5
            parameter += deviation * random(*parameter.shape, seed=index)
    assert isinstance(model, torch.nn.Module)
    return model


def our_model(theirs: Any) -> Perceiver:  # noqa: ANN401
    return from_hugging_face(theirs.config.to_dict(), theirs.state_dict()).eval()


def both_answers(theirs: Any, ours: Perceiver) -> tuple[dict[str, Tensor], dict[str, Tensor]]:  # noqa: ANN401
    """The same inputs in their layout (channels first) and in ours."""
    match theirs.config.architectures[0]:
        case "PerceiverForMaskedLM":
            ids = torch.arange(24).reshape(2, 12) % 40
            return {"text": theirs(inputs=ids).logits}, ours({"text": ids})
        case "PerceiverForSequenceClassification":
            ids = torch.arange(24).reshape(2, 12) % 40
            return {"label": theirs(inputs=ids).logits}, ours({"text": ids})
        case "PerceiverForOpticalFlow":
            frames = random(2, 2, 6, 8, 3)
            patches = neighbourhoods(frames).permute(0, 1, 4, 2, 3)
            return {"flow": theirs(inputs=patches).logits}, ours({"flow": frames})
        case "PerceiverForMultimodalAutoencoding":
            return multimodal_answers(theirs, ours)
    pixels = random(2, 8, 8, 3)
    return {"label": theirs(inputs=pixels.permute(0, 3, 1, 2)).logits}, ours({"image": pixels})


def multimodal_answers(theirs: Any, ours: Perceiver) -> tuple[dict[str, Tensor], dict[str, Tensor]]:  # noqa: ANN401
    """Theirs runs with subsampled points only, and hides every label."""
    video, audio, labels = random(2, 2, 8, 8, 3), random(2, 64), torch.tensor([1, 3])
    points = {"image": torch.tensor([0, 5, 77, 127]), "audio": torch.tensor([0, 3])}
    inputs = {"image": video.permute(0, 1, 4, 2, 3), "audio": audio[..., None], "label": torch.eye(5)[labels]}
    logits = theirs(inputs=inputs, subsampled_output_points={**points, "label": None}).logits
    hidden = {"label": torch.ones(2, 1, dtype=torch.bool)}
    asked = {"video": points["image"], "audio": points["audio"]}
    answers = ours({"audio": audio, "label": labels, "video": video}, hidden=hidden, points=asked)
    answers["audio"] = answers["audio"].flatten(1)
    return {"video": logits["image"], "audio": logits["audio"], "label": logits["label"]}, answers


@pytest.mark.parametrize("gelu", ["gelu", "gelu_pytorch_tanh"])
@pytest.mark.parametrize("architecture", MODELS)
def test_outputs_and_gradients_agree(architecture: str, gelu: str) -> None:
    theirs = their_model(architecture, gelu)
    ours = our_model(theirs)
    expected, found = both_answers(theirs, ours)
    for name, answer in expected.items():
        torch.testing.assert_close(found[name], answer, rtol=0, atol=1e-5)
    for answers in (expected, found):
        sum(answer.square().mean() for answer in answers.values()).backward()  # type: ignore[union-attr]
    # Gradients have the names and layouts of their tensors.
    _, found_gradients = to_hugging_face(gradients_of(ours))
    largest = max(tensor.abs().max().item() for tensor in found_gradients.values())
    for name, parameter in theirs.named_parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        # Biases of keys have no gradient but rounding: no tensor is held to less than a hundredth of the largest.
        scale = max(gradient.abs().max().item(), largest / 100)
        torch.testing.assert_close(found_gradients[name] / scale, gradient / scale, rtol=0, atol=1e-4, msg=name)
        torch.testing.assert_close(found_gradients[name], gradient, rtol=0, atol=1e-5 * largest, msg=name)


def gradients_of(ours: Perceiver) -> Perceiver:
    """A network whose tensors are the gradients of another."""
    holder = Perceiver(ours.config, seed=0)
    values = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in ours.named_parameters()}
    holder.load_state_dict(values)
    return holder


def test_the_other_gelu_is_seen() -> None:
    theirs = their_model("PerceiverForImageClassificationFourier", "gelu")
    ours = from_hugging_face(theirs.config.to_dict() | {"hidden_act": "gelu_new"}, theirs.state_dict())  # type: ignore[operator, union-attr]
    expected, found = both_answers(theirs, ours)
    assert (expected["label"] - found["label"]).abs().max() > 2e-5


def test_a_padding_mask_gives_the_same_logits_at_valid_places() -> None:
    theirs: Any = their_model("PerceiverForMaskedLM", "gelu")
    ids, lengths = torch.arange(24).reshape(2, 12) % 40, torch.tensor([12, 7])
    mask = torch.arange(12) < lengths[:, None]
    expected = theirs(inputs=ids, attention_mask=mask.float()).logits
    found = our_model(theirs)({"text": ids}, {"text": lengths})["text"]
    torch.testing.assert_close(found[mask], expected[mask], rtol=0, atol=1e-5)
    # DeepMind masks the queries of padding too, Hugging Face does not: docs/parity.md.
    assert (found[~mask] - expected[~mask]).abs().max() > 1e-3


def test_the_conv_stem_differs_in_its_padding_alone() -> None:
    theirs: Any = their_model("PerceiverForImageClassificationConvProcessing", "gelu")
    for index, buffer in enumerate(theirs.buffers()):
        buffer.copy_(random(*buffer.shape, seed=index).abs() + 1)
    ours, pixels = our_model(theirs), random(2, 32, 32, 3)
    channels_first = pixels.permute(0, 3, 1, 2)
    expected = theirs(inputs=channels_first).logits
    # From their tokens on, ours computes what theirs does.
    values, _, _ = theirs.perceiver.input_preprocessor(channels_first)
    tokens = Tokens(values, None, {"image": (0, values.shape[1])})
    found = ours.decoder(ours.encoder(tokens), tokens)["label"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    # And its stem, with their padding, gives their features.
    stem: Any = ours.get_submodule("inputs.adapters.image.stem")
    features = functional.conv2d(channels_first, stem.convolution.weight, stride=2, padding=3)
    features = functional.max_pool2d(stem.norm(features).relu(), 3, stride=2)
    torch.testing.assert_close(features.flatten(2).mT, values[..., :64], rtol=0, atol=1e-5)
    # With its own, DeepMind's, there are more tokens, and other answers.
    assert ours.inputs({"image": pixels}, None, None, torch.float32).values.shape[1] > values.shape[1]
    assert (ours({"image": pixels})["label"] - expected).abs().max() > 1e-3


@pytest.mark.parametrize("architecture", MODELS)
def test_their_files_come_back_as_they_were(architecture: str) -> None:
    theirs: Any = their_model(architecture, "gelu")
    config, state = to_hugging_face(our_model(theirs))
    assert state.keys() == theirs.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in theirs.state_dict().items())
    assert from_hugging_face(config, state).config == our_model(theirs).config


@pytest.mark.parametrize("architecture", MODELS)
def test_an_exported_folder_is_loaded_by_transformers(architecture: str, tmp_path: Path) -> None:
    ours = our_model(their_model(architecture, "gelu_pytorch_tanh"))
    config, state = to_hugging_face(ours)
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = getattr(transformers, architecture).from_pretrained(tmp_path).eval()
    expected, found = both_answers(loaded, ours)
    for name, answer in expected.items():
        torch.testing.assert_close(found[name], answer, rtol=0, atol=1e-5)
    again = from_hugging_face(
        json.loads((tmp_path / "config.json").read_text()), load_file(tmp_path / "model.safetensors")
    )
    assert again.config == ours.config


def test_the_encoder_of_an_exported_folder_is_loaded_by_perceiver_model(tmp_path: Path) -> None:
    ours = our_model(their_model("PerceiverForImageClassificationFourier", "gelu"))
    config, state = to_hugging_face(ours)
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    theirs = transformers.PerceiverModel.from_pretrained(tmp_path).eval()
    tokens = ours.inputs({"image": random(2, 8, 8, 3)}, None, None, torch.float32)
    expected = theirs(inputs=tokens.values).last_hidden_state
    torch.testing.assert_close(ours.encoder(tokens), expected, rtol=0, atol=1e-5)


def test_an_output_may_have_any_name() -> None:
    ours = our_model(their_model("PerceiverForImageClassificationFourier", "gelu"))
    outputs = {"attention": ours.config.outputs["label"]}
    named = Perceiver(dataclasses.replace(ours.config, outputs=outputs), seed=0)
    old = ours.state_dict()
    own = {
        name.replace("heads.label", "heads.attention").replace("queries.label", "queries.attention"): name
        for name in old
    }
    named.load_state_dict({name: old[source] for name, source in own.items()})
    (config, state), (expected_config, expected) = to_hugging_face(named), to_hugging_face(ours)
    assert config == expected_config
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_missing_and_surplus_tensors_are_all_named() -> None:
    theirs: Any = their_model("PerceiverForMaskedLM", "gelu")
    state = theirs.state_dict()
    bias = state.pop("embedding_decoder.bias")
    latents = state.pop("perceiver.embeddings.latents")
    sentence = "missing embedding_decoder.bias, perceiver.embeddings.latents; surplus other, wrong"
    with pytest.raises(ValueError, match=sentence):
        from_hugging_face(theirs.config.to_dict(), {**state, "other": bias, "wrong": bias})
    shapes = {**state, "embedding_decoder.bias": bias[1:], "perceiver.embeddings.latents": latents}
    with pytest.raises(ValueError, match=r"embedding_decoder\.bias: expected \(40,\), got \(39,\)"):
        from_hugging_face(theirs.config.to_dict(), shapes)


def test_what_hugging_face_cannot_express_is_refused() -> None:
    ours = our_model(their_model("PerceiverForImageClassificationFourier", "gelu"))
    other = dataclasses.replace(ours.config, num_cross_attends=2)
    with pytest.raises(ValueError, match=r"cannot express this network: model\.num_cross_attends is 2, there 1;"):
        to_hugging_face(Perceiver(other, seed=0))


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected one of PerceiverForMaskedLM, .* got BertModel"):
        from_hugging_face({"architectures": ["BertModel"]}, {})


@pytest.mark.parametrize("architecture", MODELS)
def test_what_goes_out_comes_back_and_what_comes_in_goes_out_to_the_bit(architecture: str) -> None:
    theirs: Any = their_model(architecture, "gelu")
    ours = our_model(theirs)
    config, state = to_hugging_face(ours)
    original = theirs.state_dict()
    # Their tensors: the same names, and each to the bit.
    assert {name: (*each.shape,) for name, each in state.items()} == {n: (*e.shape,) for n, e in original.items()}
    assert all(torch.equal(state[name], tensor) for name, tensor in original.items())
    again = from_hugging_face(config, state).eval()
    assert again.config == ours.config
    assert again.state_dict().keys() == ours.state_dict().keys()
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in ours.state_dict().items())
    (_, before), (_, after) = both_answers(theirs, ours), both_answers(theirs, again)
    assert all(torch.equal(after[name], answer) for name, answer in before.items())


GRID = PositionsConfig(num_bands=32)
NOT_THEIRS: dict[str, tuple[str, Callable[[OurConfig], OurConfig]]] = {
    "a norm of the mean": (
        "PerceiverForSequenceClassification",
        lambda ours: dataclasses.replace(ours, outputs={"label": LabelOutput(num_classes=5, norm_mean=True)}),
    ),
    "a hidden layer": (
        "PerceiverForSequenceClassification",
        lambda ours: dataclasses.replace(
            ours, outputs={"label": LabelOutput(num_classes=5, pooling="query", hidden_layer=True)}
        ),
    ),
    "another divisor of motion": (
        "PerceiverForOpticalFlow",
        lambda ours: dataclasses.replace(ours, outputs={"flow": FlowOutput(rescale=1.0)}),
    ),
    "another range of the pixels of frames": (
        "PerceiverForOpticalFlow",
        lambda ours: dataclasses.replace(
            ours, inputs={"flow": dataclasses.replace(ours.inputs["flow"], pixel_range="unit")}
        ),
    ),
    "learned positions of another width": (
        "PerceiverForImageClassificationLearned",
        lambda ours: dataclasses.replace(
            ours,
            inputs={
                "image": dataclasses.replace(
                    ours.inputs["image"], positions=PositionsConfig("learned", learned_width=8, project_to=256)
                )
            },
        ),
    ),
    "other bands of the queries": (
        "PerceiverForMultimodalAutoencoding",
        lambda ours: dataclasses.replace(
            ours, outputs={**ours.outputs, "audio": dataclasses.replace(ours.outputs["audio"], positions=GRID)}
        ),
    ),
    "another MLP of the decoder": (
        "PerceiverForMaskedLM",
        lambda ours: dataclasses.replace(
            ours,
            decoder=dataclasses.replace(
                ours.decoder, cross_attend=dataclasses.replace(ours.decoder.cross_attend, mlp_ratio=3)
            ),
        ),
    ),
    "text that its tokens ask for": (
        "PerceiverForMaskedLM",
        lambda ours: dataclasses.replace(ours, outputs={"text": TextOutput(queries_from="tokens")}),
    ),
}


@pytest.mark.parametrize("name", NOT_THEIRS)
def test_a_network_that_their_files_would_change_is_refused_in_one_sentence(name: str) -> None:
    architecture, change = NOT_THEIRS[name]
    config = TheirConfig(**SMALL | MODELS[architecture]).to_dict() | {"architectures": [architecture]}
    ours = Perceiver(change(config_from_hugging_face(config)), seed=0)
    with pytest.raises(ValueError, match=rf"^{architecture} cannot express this network: ") as caught:
        to_hugging_face(ours)
    assert "\n" not in str(caught.value)
