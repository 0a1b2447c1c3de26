"""Networks of lucidrains' perceiver-pytorch: outputs and gradients equal those of the package."""

import re
from typing import Any

import perceiver_pytorch
import pytest
import torch
from torch import Tensor, nn

from model.config.grids import PositionsConfig
from model.interop.lucidrains import from_lucidrains
from model.interop.lucidrains_tensors import kind_and_tensors
from model.perceiver import Perceiver

# Sums of some hundred fp32 terms in another order.
TOLERANCE = {"rtol": 0.0, "atol": 1e-5}
SMALL: dict[str, Any] = {"num_latents": 4, "latent_dim": 16, "latent_heads": 2, "cross_dim_head": 6,
                         "latent_dim_head": 5, "depth": 3}  # fmt: skip
SEEING: dict[str, Any] = {**SMALL, "num_freq_bands": 3, "max_freq": 10.0, "num_classes": 5}
ASKED: dict[str, Any] = {**SMALL, "dim": 7, "queries_dim": 9, "logits_dim": 5}
CONFIGS: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "image": ("Perceiver", SEEING, (4, 6)),
    "tied": ("Perceiver", {**SEEING, "weight_tie_layers": True, "self_per_cross_attn": 2, "cross_heads": 2}, (4, 6)),
    "clip": ("Perceiver", {**SEEING, "input_axis": 3, "input_channels": 2}, (2, 3, 4)),
    "plain tokens": ("Perceiver", {**SEEING, "input_axis": 1, "fourier_encode_data": False, "depth": 1}, (6,)),
    "asked": ("PerceiverIO", ASKED, (6,)),
    "asked once, tied": ("PerceiverIO", {**ASKED, "weight_tie_layers": True, "decoder_ff": True}, (6,)),
    "words": ("PerceiverLM", {**SMALL, "dim": 8, "num_tokens": 20, "max_seq_len": 6, "decoder_ff": True}, ()),
}


def built(name: str) -> tuple[nn.Module, dict[str, Tensor], dict[str, Any]]:
    """Return the package's network with random weights, its state dict and the content of config.json."""
    kind, arguments, shape = CONFIGS[name]
    theirs = getattr(perceiver_pytorch, kind)(**arguments).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    state = theirs.state_dict()
    if kind == "PerceiverIO":
        state["queries"] = torch.randn(1 if "once" in name else 3, 9, generator=generator)
    return theirs, state, {**arguments, "input_shape": list(shape)}


def inputs(name: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Return what their network takes, and what ours does."""
    kind, arguments, shape = CONFIGS[name]
    generator = torch.Generator().manual_seed(1)
    if kind == "PerceiverLM":
        ids = torch.randint(20, (2, 6), generator=generator)
        return ids, {"text": ids}
    channels = arguments.get("dim") or arguments.get("input_channels", 3)
    if len(shape) == 2:
        pixels = torch.randint(256, (2, *shape, channels), generator=generator, dtype=torch.uint8)
        return pixels / 255, {"image": pixels}
    values = torch.randn(2, *shape, channels, generator=generator)
    return values, {"array": values}


@pytest.mark.parametrize("name", CONFIGS)
def test_outputs_and_gradients_are_those_of_the_package(name: str) -> None:
    theirs, state, config = built(name)
    ours, _ = from_lucidrains(config, state)
    given, own = inputs(name)
    asked = {"queries": state["queries"].requires_grad_()} if "queries" in state else {}
    expected = theirs(given, **asked)
    (found,) = ours.eval()(own).values()
    if found.dim() < expected.dim():
        expected = expected[:, 0]
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(found, expected, **TOLERANCE)
    expected.square().sum().backward()
    found.square().sum().backward()
    # The gradients are given our names as the weights were.
    gradients = {key: each.grad for key, each in theirs.named_parameters(remove_duplicate=False)}
    gradients |= {key: each.grad for key, each in asked.items()}
    named, _ = from_lucidrains(config, gradients)
    assert sum(each.numel() for each in ours.parameters()) == sum(
        each.numel() for each in [*theirs.parameters(), *asked.values()]
    )
    for key, parameter in ours.named_parameters():
        expected_gradient = dict(named.named_parameters())[key].detach()
        scale = max(float(expected_gradient.abs().max()), 1.0)
        torch.testing.assert_close(parameter.grad, expected_gradient, rtol=0, atol=1e-5 * scale, msg=key)


def test_padded_places_of_a_text_are_not_read() -> None:
    theirs, state, config = built("words")
    ours, _ = from_lucidrains(config, state)
    ids, own = inputs("words")
    mask = torch.arange(6) < torch.tensor([[6], [4]])
    found = ours.eval()(own, {"text": mask.sum(dim=1)})["text"]
    torch.testing.assert_close(found[mask], theirs(ids, mask=mask)[mask], **TOLERANCE)


@pytest.mark.parametrize("name", ["tied", "asked once, tied"])
def test_the_names_of_older_releases_are_known(name: str) -> None:
    _, state, config = built(name)
    new, _ = from_lucidrains(config, state)
    old, _ = from_lucidrains(config, {_older(key, CONFIGS[name][0]): each for key, each in state.items()})
    assert all(torch.equal(old.state_dict()[key], each) for key, each in new.state_dict().items())


def _older(name: str, kind: str) -> str:
    """Return a name as perceiver-pytorch 0.8 had it."""
    name = re.sub(r"^layers\.(\d+)\.cross_attn\.", r"layers.\1.0.", name)
    name = re.sub(r"^layers\.(\d+)\.cross_ff\.", r"layers.\1.1.", name)
    name = name.replace("cross_attend_block.cross_attn.", "cross_attend_blocks.0.")
    name = name.replace("cross_attend_block.cross_ff.", "cross_attend_blocks.1.")
    if kind == "PerceiverIO":
        return name.replace(".self_attns.0.", ".")
    return name.replace(".self_attns.", ".2.")


def test_weights_that_are_not_tied_are_named() -> None:
    _, state, config = built("image")
    with pytest.raises(ValueError, match=r"weight_tie_layers: is true, but layers\.2\..* is not equal to layers\.1\."):
        from_lucidrains({**config, "weight_tie_layers": True}, state)


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("image", {"input_shape": None}, r"input_shape: expected the lengths .* got None"),
        ("image", {"input_shape": [4]}, r"input_shape: expected 2 axes, as input_axis says, got \(4,\)"),
        ("image", {"input_shape": []}, r"input_shape: expected the lengths .* got \[\]"),
        ("image", {"input_shape": [4, 0]}, "input_shape: expected 2 whole numbers"),
        ("image", {"max_freq": 9.5}, r"max_freq: expected a whole number from 2, got 9\.5"),
        ("image", {"max_freq": 1}, "max_freq: expected a whole number from 2, got 1"),
        ("image", {"max_freq": "10"}, "max_freq: expected a whole number from 2, got '10'"),
        ("image", {"max_freq": None}, "max_freq: expected a whole number from 2, got None"),
        ("image", {"num_freq_bands": 0}, "num_freq_bands: expected a whole number"),
        ("image", {"self_per_cross_attn": 10**6}, "self_per_cross_attn: 1000000, with"),
        ("asked", {"queries_dim": 0}, "queries_dim: expected a whole number"),
        ("asked", {"logits_dim": -1}, "logits_dim: expected a whole number"),
        ("words", {"dim": 0}, "dim: expected a whole number"),
        ("image", {"inverted_cross_attn": [False, True, False]}, "inverted_cross_attn: expected none"),
        ("image", {"attn_residual": True}, "attn_residual: expected none"),
        ("image", {"freq_base": 2}, "freq_base: expected none"),
        ("image", {"final_classifier_head": False}, "final_classifier_head: expected true"),
        ("image", {"depth": 10**6}, "depth: "),
        ("image", {"depth": None}, "depth: expected a whole number"),
        ("image", {"latent_heads": 3}, "latent_heads|expected"),
        ("image", {"num_freq_bands": 4}, "expected"),
        ("image", {"depth": 2}, r"surplus layers\.2\."),
        ("asked", {"logits_dim": None}, "logits_dim: expected the width of the answer"),
    ],
)
def test_what_cannot_be_expressed_is_refused(name: str, change: dict[str, Any], sentence: str) -> None:
    _, state, config = built(name)
    with pytest.raises(ValueError, match=sentence):
        from_lucidrains(config | change, state)


@pytest.mark.parametrize("said", [{"num_latents": 2, "latent_dim": 8}, {"latent_heads": 1, "latent_dim_head": 8}])
def test_what_a_config_leaves_out_is_what_the_package_takes(said: dict[str, int]) -> None:
    arguments = {"num_freq_bands": 2, "depth": 1, "max_freq": 2.0, **said}
    theirs = perceiver_pytorch.Perceiver(**arguments).eval()
    ours, notes = from_lucidrains({**arguments, "input_shape": [3, 2]}, theirs.state_dict())
    assert notes == ("no preprocessor_config.json: pixels are taken to be scaled to [0, 1]",)
    pixels = torch.arange(18, dtype=torch.uint8).reshape(1, 3, 2, 3)
    # Zero biases, and a head that is drawn: what is left out must be right for the answers to be equal.
    torch.testing.assert_close(ours.eval()({"image": pixels})["label"], theirs(pixels / 255), **TOLERANCE)


def test_the_range_of_pixels_is_that_of_the_preprocessor() -> None:
    _, state, config = built("image")
    network, notes = from_lucidrains(config, state, {"size": 4, "image_mean": [0.5] * 3, "image_std": [0.5] * 3})
    image = network.config.inputs["image"]
    assert (image.shape, image.pixel_range, notes) == ((4, 6, 3), "centred", ())


@pytest.mark.parametrize("kind", ["Perceiver", "PerceiverIO"])
def test_a_network_of_as_many_layers_as_tensors_is_refused_for_what_it_lacks(kind: str) -> None:
    _, state, config = built("image" if kind == "Perceiver" else "asked")
    with pytest.raises(ValueError, match="missing layers"):
        from_lucidrains({**config, "depth": len(state)}, state)
    with pytest.raises(ValueError, match=f"depth: {len(state) + 1}, with {len(state)} tensors in all"):
        from_lucidrains({**config, "depth": len(state) + 1}, state)


def test_a_network_without_its_queries_is_refused() -> None:
    _, state, config = built("asked")
    del state["queries"]
    with pytest.raises(ValueError, match="expected the queries with which the network is called as a tensor `queries`"):
        from_lucidrains(config, state)
    assert kind_and_tensors(state)[0] == "PerceiverIO"
    with pytest.raises(ValueError, match="expected the queries with which the network is called as a tensor `queries`"):
        from_lucidrains(config, state | {"queries": torch.zeros(1, 3, 9)})


def test_options_that_are_off_are_none() -> None:
    _, state, config = built("image")
    off = {"inverted_cross_attn": [False] * 3, "attn_residual": False, "freq_base": 0, "seq_dropout_prob": 0.0}
    network, notes = from_lucidrains({**config, **off}, state)
    assert len(notes) == 1
    assert network.config.dropout == 0


def test_the_highest_frequency_is_half_of_max_freq_on_every_axis() -> None:
    _, state, config = built("image")
    image = from_lucidrains({**config, "max_freq": 2}, state)[0].config.inputs["image"]
    assert image.positions == PositionsConfig(num_bands=3, max_resolution=(2, 2))


def test_dropout_that_is_not_taken_is_told() -> None:
    _, state, config = built("image")
    network, notes = from_lucidrains({**config, "attn_dropout": 0.1, "ff_dropout": 0.1}, state)
    assert isinstance(network, Perceiver)
    assert any(note.startswith("attn_dropout, ff_dropout: not taken") for note in notes)
