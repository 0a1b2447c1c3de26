"""Networks of krasserm's perceiver-io: outputs and gradients equal those of the package.

It asks for an older Python and for libraries that a forward pass does not need: it is installed without them, and what
stands in their place here does nothing.
"""

import importlib
import sys
import warnings
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model.config.attention import AttentionConfig
from model.config.decoder import DecoderConfig
from model.config.perceiver import PerceiverConfig
from model.interop.krasserm import IMAGE, MASKED, TEXT, _config, from_krasserm
from model.modalities.text import TextInput
from model.outputs.label import LabelOutput

TOLERANCE = {"rtol": 0.0, "atol": 1e-5}
ENCODER = {
    "num_cross_attention_heads": 1, "num_cross_attention_qk_channels": None, "num_cross_attention_v_channels": None,
    "num_cross_attention_layers": 1, "first_cross_attention_layer_shared": False, "cross_attention_widening_factor": 2,
    "num_self_attention_heads": 2, "num_self_attention_qk_channels": None, "num_self_attention_v_channels": None,
    "num_self_attention_layers_per_block": 2, "num_self_attention_blocks": 2,
    "first_self_attention_block_shared": True, "self_attention_widening_factor": 1, "dropout": 0.0, "init_scale": 0.02,
    "freeze": False,
}  # fmt: skip
DECODER = {
    "num_cross_attention_heads": 2, "num_cross_attention_qk_channels": None, "num_cross_attention_v_channels": None,
    "cross_attention_widening_factor": 1, "cross_attention_residual": True, "dropout": 0.0, "init_scale": 0.02,
    "freeze": False,
}  # fmt: skip
WORDS = {"vocab_size": 20, "max_seq_len": 6, "num_input_channels": 12, "params": None}
CLASSES = {"num_output_queries": 1, "num_output_query_channels": 8, "num_classes": 3}
CONFIGS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "image": (IMAGE, {"image_shape": (4, 6, 1), "num_frequency_bands": 3}, CLASSES),
    "image, all shared": (
        IMAGE,
        {"image_shape": (4, 6, 3), "num_frequency_bands": 3, "num_cross_attention_layers": 2,
         "first_cross_attention_layer_shared": True},
        {**CLASSES, "cross_attention_residual": False},
    ),
    "text": (TEXT, {**WORDS, "num_cross_attention_layers": 3, "num_self_attention_blocks": 3,
                    "first_self_attention_block_shared": False, "num_cross_attention_qk_channels": 4}, CLASSES),
    "text, fewer reads than blocks": (
        TEXT, {**WORDS, "num_cross_attention_layers": 2, "num_self_attention_blocks": 4,
               "first_self_attention_block_shared": False}, CLASSES,
    ),
    "image, two reads before four blocks, shared": (
        IMAGE,
        {"image_shape": (4, 6, 3), "num_frequency_bands": 3, "num_cross_attention_layers": 2,
         "num_self_attention_blocks": 4, "first_cross_attention_layer_shared": True},
        CLASSES,
    ),
    "masked": (MASKED, WORDS, {"num_output_query_channels": None, "vocab_size": 20, "max_seq_len": 6}),
}  # fmt: skip


def config(name: str, **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    kind, encoder, decoder = CONFIGS[name]
    sizes = {"encoder": {**ENCODER, **encoder}, "decoder": {**DECODER, **decoder}, "num_latents": 4}
    return {"model_type": kind, "model_config": {**sizes, "num_latent_channels": 16, **changes}}


BACKENDS = {
    "image": ("vision.image_classifier", "ImageClassifier", "ImageEncoderConfig", "ClassificationDecoderConfig"),
    "text": ("text.classifier", "TextClassifier", "TextEncoderConfig", "ClassificationDecoderConfig"),
    "masked": ("text.mlm", "MaskedLanguageModel", "TextEncoderConfig", "TextDecoderConfig"),
}


@pytest.fixture(scope="module", autouse=True)
def without_what_a_forward_pass_does_not_need() -> Any:  # noqa: ANN401
    with pytest.MonkeyPatch.context() as patch:
        wrappers = ModuleType("fairscale.nn")
        vars(wrappers)["checkpoint_wrapper"] = lambda layer, **_: layer
        stood_in = {"fairscale": ModuleType("fairscale"), "fairscale.nn": wrappers}
        import perceiver.model

        for folder, *_ in BACKENDS.values():
            # The modules alone: the packages around them import Lightning.
            package = ModuleType(f"perceiver.model.{folder}")
            package.__path__ = [str(Path(perceiver.model.__path__[0], *folder.split(".")))]
            stood_in[package.__name__] = package
        for name, module in stood_in.items():
            module.__spec__ = ModuleSpec(name, None)
            patch.setitem(sys.modules, name, module)
        yield


def built(name: str) -> nn.Module:
    """Return the package's network with random weights."""
    folder, kind, *parts = BACKENDS[name.partition(",")[0]]
    backend = importlib.import_module(f"perceiver.model.{folder}.backend")
    values = config(name)["model_config"]
    sizes = {
        key: getattr(backend, part)(**values[key]) for key, part in zip(("encoder", "decoder"), parts, strict=True)
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is older than this PyTorch
        theirs = getattr(backend, kind)(getattr(backend, f"{kind}Config")(**values | sizes)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    assert isinstance(theirs, nn.Module)
    return theirs


def inputs(name: str, pad: bool) -> tuple[Tensor, dict[str, Tensor], Tensor | None]:
    """Return what their network takes, what ours takes, and which places are padding."""
    if name.startswith("image"):
        pixels = torch.arange(48 * (3 if "shared" in name else 1), dtype=torch.uint8).reshape(2, 4, 6, -1)
        return pixels / 127.5 - 1, {"image": pixels}, None
    ids = torch.arange(12).reshape(2, 6) % 20
    return ids, {"text": ids}, (torch.arange(6) >= torch.tensor([[6], [4]])) if pad else None


@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_outputs_and_gradients_are_those_of_the_package(name: str, pad: bool) -> None:
    theirs = built(name)
    state = {f"backend_model.{key}": each for key, each in theirs.state_dict().items()}
    network, notes = from_krasserm(config(name), state)
    given, ours, mask = inputs(name, pad)
    expected = theirs(given) if mask is None else theirs(given, pad_mask=mask)
    lengths = None if mask is None else {"text": (~mask).sum(dim=1)}
    (found,) = network.eval()(ours, lengths).values()
    # Of a padded place itself nothing is promised.
    shown = ~mask if mask is not None and found.dim() == 3 else slice(None)
    torch.testing.assert_close(found[shown], expected[shown], **TOLERANCE)
    expected[shown].square().sum().backward()
    found[shown].square().sum().backward()
    # The gradients are given our names as the weights were; shared weights are shared here, too.
    gradients = theirs.state_dict() | {key: each.grad for key, each in theirs.named_parameters()}
    named = dict(from_krasserm(config(name), gradients)[0].named_parameters())
    assert sum(map(torch.numel, network.parameters())) == sum(map(torch.numel, theirs.parameters()))
    for key, parameter in network.named_parameters():
        scale = max(float(named[key].detach().abs().max()), 1.0)
        torch.testing.assert_close(parameter.grad, named[key].detach(), rtol=0, atol=1e-5 * scale, msg=key)
    assert bool(notes) == name.startswith("image")


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("image", {"num_cross_attention_layers": 3, "num_self_attention_blocks": 2}, "3 of them for 2 blocks"),
        ("masked", {"max_seq_len": 7}, "max_seq_len: expected the same of encoder and decoder, got 7 and 6"),
        (
            "image",
            {"num_self_attention_layers_per_block": 10**9},
            "layers_per_block: 1000000000, with",
        ),
        ("image", {"num_self_attention_heads": 3}, "num_heads"),
        ("image", {"num_cross_attention_layers": 0}, "0 of them for 2 blocks; expected from 1"),
        ("masked", {"vocab_size": 21}, "vocab_size: expected the same of encoder and decoder, got 21 and 20"),
    ],
)
def test_what_cannot_be_expressed_is_refused(name: str, change: dict[str, Any], sentence: str) -> None:
    values = config(name)
    values["model_config"]["encoder"].update(change)
    with pytest.raises(ValueError, match=sentence):
        from_krasserm(values, built(name).state_dict())


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("image", {"num_output_queries": 2}, "num_output_queries: expected 1 of a classifier, got 2"),
        ("masked", {"num_output_query_channels": 8}, "num_output_query_channels: expected none, .* got 8"),
    ],
)
def test_answers_that_cannot_be_expressed_are_refused(name: str, change: dict[str, Any], sentence: str) -> None:
    values = config(name)
    values["model_config"]["decoder"].update(change)
    with pytest.raises(ValueError, match=sentence):
        from_krasserm(values, {})


def test_the_range_of_pixels_is_that_of_the_preprocessor_and_else_is_told() -> None:
    state = built("image").state_dict()
    said, notes = from_krasserm(config("image"), state, {"size": 4, "do_normalize": False})
    assert (said.config.inputs["image"].pixel_range, notes) == ("unit", ())
    unsaid, notes = from_krasserm(config("image"), state)
    assert unsaid.config.inputs["image"].pixel_range == "centred"
    assert notes == ("no preprocessor_config.json: pixels are taken to be scaled to [-1, 1]",)
    # A text has no pixels, and nothing is missing.
    assert from_krasserm(config("text"), built("text").state_dict(), {"size": 4})[1] == ()


def test_a_config_says_the_whole_network() -> None:
    widths = {"num_cross_attention_qk_channels": 6, "num_cross_attention_v_channels": 10}
    own = {"num_self_attention_qk_channels": 4, "num_self_attention_v_channels": 14}
    values = config("text, fewer reads than blocks")
    values["model_config"]["encoder"].update(**widths, **own)
    values["model_config"]["decoder"].update(num_cross_attention_qk_channels=4, cross_attention_widening_factor=3)
    sizes = values["model_config"]
    found = _config(TEXT, sizes, sizes["encoder"], sizes["decoder"], "unit")
    assert found == PerceiverConfig(
        inputs={"text": TextInput(max_tokens=6, vocabulary=20, embedding_width=12)},
        outputs={"label": LabelOutput(num_classes=3, pooling="query", query_width=8)},
        decoder=DecoderConfig(AttentionConfig(2, qk_width=4, value_width=4, mlp_ratio=3), query_residual=True),
        num_latents=4,
        latent_width=16,
        num_cross_attends=2,
        num_blocks=4,
        layers_per_block=2,
        arrangement="first_blocks",
        share_cross_attends=True,
        share_blocks="after_first",
        cross_attend=AttentionConfig(1, qk_width=6, value_width=10, mlp_ratio=2),
        self_attend=AttentionConfig(2, qk_width=4, value_width=14, mlp_ratio=1),
        gelu="erf",
    )


def test_a_network_without_its_sizes_is_refused() -> None:
    for sizes in ({}, {"model_config": None}, {"model_config": {}}):
        with pytest.raises(ValueError, match="model_config: expected the sizes of the network"):
            from_krasserm({"model_type": TEXT, **sizes}, {})


def test_a_network_of_another_kind_is_named() -> None:
    with pytest.raises(ValueError, match=r"model_type: expected one of .*, got 'perceiver-ar-causal-language-model'"):
        from_krasserm({"model_type": "perceiver-ar-causal-language-model"}, {})
