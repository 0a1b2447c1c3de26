"""Networks of krasserm's perceiver-io: outputs and gradients equal those of the package, or of its formula.

Without the package a network of plain functions, written out below, stands for it.
"""

import math
from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from model.interop.krasserm import IMAGE, MASKED, TEXT, from_krasserm

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
    "masked": (MASKED, WORDS, {"num_output_query_channels": None, "vocab_size": 20, "max_seq_len": 6}),
}  # fmt: skip


def config(name: str, **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    kind, encoder, decoder = CONFIGS[name]
    sizes = {"encoder": {**ENCODER, **encoder}, "decoder": {**DECODER, **decoder}, "num_latents": 4}
    return {"model_type": kind, "model_config": {**sizes, "num_latent_channels": 16, **changes}}


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()}


def inputs(name: str, pad: bool) -> tuple[Tensor, dict[str, Tensor], Tensor | None]:
    """Return what their network takes, what ours takes, and which places are padding."""
    if name.startswith("image"):
        pixels = torch.arange(48 * (3 if "shared" in name else 1), dtype=torch.uint8).reshape(2, 4, 6, -1)
        return pixels / 127.5 - 1, {"image": pixels}, None
    ids = torch.arange(12).reshape(2, 6) % 20
    return ids, {"text": ids}, (torch.arange(6) >= torch.tensor([[6], [4]])) if pad else None


class Plain:
    """Their network as functions of a state dict."""

    def __init__(self, config: dict[str, Any], state: dict[str, Tensor]) -> None:
        self.kind, self.sizes, self.state = config["model_type"], config["model_config"], state

    def __call__(self, x: Tensor, pad_mask: Tensor | None) -> Tensor:
        encoder, decoder = self.sizes["encoder"], self.sizes["decoder"]
        tokens, latents = self.tokens(x), self.state["0.latent_provider._query"][None]
        shared = encoder["first_cross_attention_layer_shared"], encoder["first_self_attention_block_shared"]
        for block in range(encoder["num_self_attention_blocks"]):
            cross, own = ("1" if not block or is_shared else "n" for is_shared in shared)
            if block < encoder["num_cross_attention_layers"]:
                heads = encoder["num_cross_attention_heads"]
                latents = self.layer(f"0.cross_attn_{cross}", latents, tokens, heads, pad_mask)
            for layer in range(encoder["num_self_attention_layers_per_block"]):
                latents = self.layer(
                    f"0.self_attn_{own}.{layer}", latents, None, encoder["num_self_attention_heads"], None
                )
        query = self.state["1.output_query_provider._query"][None]
        residual = decoder["cross_attention_residual"]
        rows = self.layer("1.cross_attn", query, latents, decoder["num_cross_attention_heads"], None, residual=residual)
        if self.kind == MASKED:
            return rows @ self.state["0.input_adapter.txt_embedding.weight"].T + self.state["1.output_adapter.bias"]
        return self.linear("1.output_adapter.linear", rows)[:, 0]

    def tokens(self, x: Tensor) -> Tensor:
        if self.kind != IMAGE:
            places = self.state["0.input_adapter.pos_embedding.weight"]
            return functional.embedding(x, self.state["0.input_adapter.txt_embedding.weight"]) + places[: x.shape[1]]
        height, width, _ = self.sizes["encoder"]["image_shape"]
        axes = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
        bands = [torch.linspace(1, size / 2, self.sizes["encoder"]["num_frequency_bands"]) for size in (height, width)]
        angles = torch.cat([math.pi * axis[..., None] * band for axis, band in zip(axes, bands, strict=True)], dim=-1)
        positions = torch.cat([torch.stack(axes, dim=-1), angles.sin(), angles.cos()], dim=-1)
        return torch.cat([x, positions.expand(len(x), -1, -1, -1)], dim=-1).flatten(1, 2)

    def layer(
        self,
        name: str,
        queries: Tensor,
        tokens: Tensor | None,
        heads: int,
        pad: Tensor | None,
        *,
        residual: bool = True,
    ) -> Tensor:
        own = f"{name}.0.module" if residual else f"{name}.0"
        asked = self.norm(f"{own}.{'norm' if tokens is None else 'q_norm'}", queries)
        read = asked if tokens is None else self.norm(f"{own}.kv_norm", tokens)
        q, k, v = (
            self.linear(f"{own}.attention.{part}_proj", of).unflatten(-1, (heads, -1)).transpose(1, 2)
            for part, of in (("q", asked), ("k", read), ("v", read))
        )
        scores = q @ k.mT * q.shape[-1] ** -0.5
        if pad is not None:
            scores = scores.masked_fill(pad[:, None, None], -torch.finfo(scores.dtype).max)
        found = self.linear(f"{own}.attention.o_proj", (scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2))
        summed = queries + found if residual else found
        hidden = functional.gelu(self.linear(f"{name}.1.module.1", self.norm(f"{name}.1.module.0", summed)))
        return summed + self.linear(f"{name}.1.module.3", hidden)

    def norm(self, name: str, values: Tensor) -> Tensor:
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        return functional.layer_norm(values, values.shape[-1:], weight, bias)

    def linear(self, name: str, values: Tensor) -> Tensor:
        return functional.linear(values, self.state[f"{name}.weight"], self.state[f"{name}.bias"])


def shapes(name: str) -> dict[str, tuple[int, ...]]:  # noqa: C901  # a list
    """Return the shapes of a state dict of theirs."""
    kind, sizes = config(name)["model_type"], config(name)["model_config"]
    encoder, decoder, wide = sizes["encoder"], sizes["decoder"], sizes["num_latent_channels"]
    found: dict[str, tuple[int, ...]] = {"0.latent_provider._query": (sizes["num_latents"], wide)}
    if kind == IMAGE:
        tokens = encoder["image_shape"][2] + 2 * (2 * encoder["num_frequency_bands"] + 1)
        found["0.input_adapter.position_encoding.position_encoding"] = (24, tokens - encoder["image_shape"][2])
    else:
        tokens = encoder["num_input_channels"]
        found["0.input_adapter.txt_embedding.weight"] = (encoder["vocab_size"], tokens)
        found["0.input_adapter.pos_embedding.weight"] = (encoder["max_seq_len"], tokens)

    def linear(of: str, given: int, answered: int) -> None:
        found.update({f"{of}.weight": (answered, given), f"{of}.bias": (answered,)})

    def norm(of: str, width: int) -> None:
        found.update({f"{of}.weight": (width,), f"{of}.bias": (width,)})

    def layer(of: str, asks: int, read: int, qk: int, ratio: int, *, residual: bool = True, own: bool = False) -> None:
        attention = f"{of}.0.module" if residual else f"{of}.0"
        for part in ("norm",) if own else ("q_norm", "kv_norm"):
            norm(f"{attention}.{part}", read if part == "kv_norm" else asks)
        for part, given, answered in (("q", asks, qk), ("k", read, qk), ("v", read, qk), ("o", qk, asks)):
            linear(f"{attention}.attention.{part}_proj", given, answered)
        norm(f"{of}.1.module.0", asks)
        linear(f"{of}.1.module.1", asks, ratio * asks)
        linear(f"{of}.1.module.3", ratio * asks, asks)

    qk = encoder["num_cross_attention_qk_channels"] or (tokens if kind == IMAGE else wide)
    more = encoder["num_cross_attention_layers"] > 1 and not encoder["first_cross_attention_layer_shared"]
    for number in "1n" if more else "1":
        layer(f"0.cross_attn_{number}", wide, tokens, qk, encoder["cross_attention_widening_factor"])
    for number in "1" if encoder["first_self_attention_block_shared"] else "1n":
        for index in range(encoder["num_self_attention_layers_per_block"]):
            layer(
                f"0.self_attn_{number}.{index}", wide, wide, wide, encoder["self_attention_widening_factor"], own=True
            )
    asks = tokens if kind == MASKED else decoder["num_output_query_channels"]
    found["1.output_query_provider._query"] = (decoder["max_seq_len"] if kind == MASKED else 1, asks)
    residual = decoder["cross_attention_residual"]
    layer("1.cross_attn", asks, wide, asks, decoder["cross_attention_widening_factor"], residual=residual)
    if kind == MASKED:
        found["1.output_adapter.bias"] = (decoder["vocab_size"],)
    else:
        linear("1.output_adapter.linear", asks, decoder["num_classes"])
    return found


@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_outputs_and_gradients_are_those_of_its_formula(name: str, pad: bool) -> None:
    state = weights(shapes(name))
    network, notes = from_krasserm(config(name), {f"backend_model.{key}": each for key, each in state.items()})
    theirs, ours, mask = inputs(name, pad)
    leaves = {key: each.clone().requires_grad_() for key, each in state.items()}
    expected = Plain(config(name), leaves)(theirs, mask)
    lengths = None if mask is None else {"text": (~mask).sum(dim=1)}
    (found,) = network.eval()(ours, lengths).values()
    # Of a padded place itself nothing is promised.
    shown = ~mask if mask is not None and found.dim() == 3 else slice(None)
    torch.testing.assert_close(found[shown], expected[shown], **TOLERANCE)
    expected[shown].square().sum().backward()
    found[shown].square().sum().backward()
    _compare_gradients(network, leaves)
    assert bool(notes) == (name in ("image", "image, all shared", "text"))


def _compare_gradients(network: torch.nn.Module, leaves: dict[str, Tensor]) -> None:
    """Of weights that were shared there and are not here the gradients add up."""
    total = {name: each.grad for name, each in leaves.items() if each.grad is not None}
    assert len(total) >= len(leaves) - 1
    ours = sorted((float(each.grad.norm()), each.numel()) for each in network.parameters() if each.grad is not None)
    assert ours
    by_name = dict(network.named_parameters())
    pairs = {
        "encoder.latents.weight": "0.latent_provider._query",
        "decoder.cross_attend.attention.key.weight": "1.cross_attn.0.module.attention.k_proj.weight",
        "decoder.cross_attend.mlp.widen.weight": "1.cross_attn.1.module.1.weight",
        "encoder.blocks.0.1.attention.value.weight": "0.self_attn_1.1.0.module.attention.v_proj.weight",
        "encoder.cross_attends.0.norm_tokens.weight": "0.cross_attn_1.0.module.kv_norm.weight",
        "encoder.cross_attends.0.mlp.narrow.bias": "0.cross_attn_1.1.module.3.bias",
    }
    for here, there in pairs.items():
        if there not in total or ("encoder.cross_attends.1.norm_query.weight" in by_name and "cross_attends" in here):
            continue
        scale = max(float(total[there].abs().max()), 1.0)
        torch.testing.assert_close(by_name[here].grad, total[there], rtol=0, atol=1e-5 * scale)


def test_the_packages_own_network_answers_the_same() -> None:
    backend = pytest.importorskip(
        "perceiver.model.vision.image_classifier.backend", reason="perceiver-io is not installed"
    )
    encoder = backend.ImageEncoderConfig(
        image_shape=(4, 6, 1), num_frequency_bands=3, num_cross_attention_heads=1, num_self_attention_heads=2
    )
    decoder = backend.ClassificationDecoderConfig(
        num_classes=3, num_output_query_channels=8, num_cross_attention_heads=2
    )
    theirs = backend.ImageClassifier(
        backend.ImageClassifierConfig(encoder, decoder, num_latents=4, num_latent_channels=16)
    ).eval()
    values = {"model_type": IMAGE, "model_config": asdict(theirs.config)}
    network, _ = from_krasserm(values, theirs.state_dict())
    given, ours, _ = inputs("image", pad=False)
    torch.testing.assert_close(network.eval()(ours)["label"], theirs(given), **TOLERANCE)


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("image", {"num_cross_attention_layers": 2, "num_self_attention_blocks": 4}, "1, or one for each block"),
        ("masked", {"max_seq_len": 7}, "max_seq_len: expected the same of encoder and decoder, got 7 and 6"),
        (
            "image",
            {"num_self_attention_layers_per_block": 10**9},
            "layers_per_block: 1000000000, with",
        ),
        ("image", {"num_self_attention_heads": 3}, "num_heads"),
    ],
)
def test_what_cannot_be_expressed_is_refused(name: str, change: dict[str, Any], sentence: str) -> None:
    values = config(name)
    values["model_config"]["encoder"].update(change)
    with pytest.raises(ValueError, match=sentence):
        from_krasserm(values, weights(shapes(name)))


def test_a_network_of_another_kind_is_named() -> None:
    with pytest.raises(ValueError, match=r"model_type: expected one of .*, got 'perceiver-ar-causal-language-model'"):
        from_krasserm({"model_type": "perceiver-ar-causal-language-model"}, {})
