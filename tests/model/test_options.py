"""The options beyond the papers' network, each against a plain implementation of its own: norms, gates, places."""

import dataclasses
from math import prod
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from model.attention.layers import CrossAttend, SelfAttend
from model.attention.mlp import Mlp
from model.attention.norms import HeadNorm, RmsNorm, normalised
from model.attention.read_forms import read_form
from model.attention.rotary import angles, rotated, token_angles
from model.budget.flops import network_cost, total
from model.config.attention import AttentionConfig
from model.config.decoder import DecoderConfig
from model.config.grids import PositionsConfig
from model.config.perceiver import PerceiverConfig
from model.interop.huggingface_config import config_to_hugging_face
from model.modalities.image import ImageInput
from model.modalities.points import PointsInput
from model.modalities.text import TextInput
from model.outputs.embedding import EmbeddingOutput
from model.outputs.label import LabelOutput
from model.outputs.text import TextOutput
from model.parameters import draw_parameters
from model.perceiver import Perceiver
from trainer.config import OptimizerConfig
from trainer.optim.groups import parameter_groups

F64 = torch.float64
# Sums of some hundred float64 terms in another order.
TOLERANCE = 1e-12
FEW = PositionsConfig(num_bands=3)
IMAGE = ImageInput(height=6, width=4, positions=FEW)
ASKED = LabelOutput(num_classes=3, pooling="query")
CONFIG = PerceiverConfig(
    inputs={"image": IMAGE},
    outputs={"label": LabelOutput(num_classes=5), "asked": ASKED},
    num_latents=6,
    latent_width=16,
    num_cross_attends=3,
    num_blocks=2,
    layers_per_block=1,
    self_attend=AttentionConfig(num_heads=2),
)
NO_BIAS = {
    "cross_attend": AttentionConfig(qkv_bias=False),
    "self_attend": AttentionConfig(num_heads=2, qkv_bias=False),
    "decoder": DecoderConfig(AttentionConfig(qkv_bias=False)),
}
QK_NORM = {
    "cross_attend": AttentionConfig(qk_norm=True),
    "self_attend": AttentionConfig(num_heads=2, qk_norm=True),
}
ROTARY = {
    "cross_attend": AttentionConfig(num_heads=2, qk_width=16, rotary=True),
    "self_attend": AttentionConfig(num_heads=2, rotary=True),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "rms": {"norm": "rms"},
    "geglu": {"mlp": "geglu"},
    "swiglu": {"mlp": "swiglu"},
    "qk_norm": QK_NORM,
    "rotary": ROTARY,
    "all": {"norm": "rms", "mlp": "swiglu", "dropout": 0.1}
    | {"cross_attend": AttentionConfig(num_heads=2, qk_width=16, rotary=True, qk_norm=True)}
    | {"self_attend": AttentionConfig(num_heads=2, rotary=True, qk_norm=True)},
}
OF_PEERS: dict[str, dict[str, Any]] = {
    "qkv_bias": NO_BIAS,
    "has_mlp": {"decoder": DecoderConfig(has_mlp=False)},
    "norm_mean": {"outputs": {"label": LabelOutput(num_classes=5, norm_mean=True), "asked": ASKED}},
    "blocks": {"share_blocks": "after_first", "num_blocks": 3},
    "cross_attends": {"share_cross_attends": "all"},
}
"""Options that networks of other libraries have."""
Form = Literal["plain", "absorbed", "separable"]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def perturbed(module: nn.Module, seed: int = 0) -> Any:  # noqa: ANN401  # the module, of its own type
    """Random values in every tensor: zero biases and unit scales would hide mistakes."""
    draw_parameters(module.double(), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=F64)
    return module


def network(config: PerceiverConfig) -> Perceiver:
    built: Perceiver = perturbed(Perceiver(config, seed=0))
    return built


def answers(built: Perceiver, **more: Tensor) -> Tensor:
    found = built({"image": random(3, 6, 4, 3)}, **more)
    return torch.cat(list(found.values()), dim=1)


def turned(values: Tensor, places: Tensor, pairs: int) -> Tensor:
    """Rotary positions as complex numbers: (B, H, S, c), pairs of one axis, then what stays."""
    frequencies = 10_000.0 ** (-torch.arange(pairs, dtype=F64) / pairs)
    turn = torch.polar(torch.ones(len(places), pairs, dtype=F64), places.to(F64)[:, None] * frequencies)
    pair = torch.complex(values[..., :pairs], values[..., pairs : 2 * pairs]) * turn
    return torch.cat([pair.real, pair.imag, values[..., 2 * pairs :]], dim=-1)


def test_rms_norm_is_pytorchs() -> None:
    norm: RmsNorm = perturbed(RmsNorm(7))
    values, own = random(2, 3, 7), nn.RMSNorm(7, eps=1e-5, dtype=F64)
    own.load_state_dict(norm.state_dict())
    torch.testing.assert_close(norm(values), own(values), rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(normalised(values, "rms") * norm.weight, own(values), rtol=0, atol=TOLERANCE)


def test_the_norm_of_a_head_does_not_see_the_zeros_after_its_channels() -> None:
    norm: HeadNorm = perturbed(HeadNorm(5))
    heads = random(2, 3, 4, 5)
    expected = nn.functional.rms_norm(heads, (5,), norm.weight, 1e-5)
    torch.testing.assert_close(norm(heads), expected, rtol=0, atol=TOLERANCE)
    padded = norm(functional.pad(heads, (0, 3)))
    torch.testing.assert_close(padded, functional.pad(expected, (0, 3)), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_norms_keep_the_precision_of_what_they_norm(dtype: torch.dtype) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        for norm in (RmsNorm(8), HeadNorm(8)):
            values = torch.randn(2, 3, 8, dtype=dtype)
            assert norm(values).dtype == dtype


@pytest.mark.parametrize("kind", ["geglu", "swiglu"])
def test_a_gated_mlp_is_its_formula(kind: Literal["geglu", "swiglu"]) -> None:
    mlp: Mlp = perturbed(Mlp(4, 3, "erf", kind))
    values = random(2, 5, 4)
    gate = values @ mlp.gate.weight.T + mlp.gate.bias
    gate = gate * gate.sigmoid() if kind == "swiglu" else gate * 0.5 * (1 + torch.erf(gate / 2**0.5))
    hidden = gate * (values @ mlp.widen.weight.T + mlp.widen.bias)
    torch.testing.assert_close(mlp(values), hidden @ mlp.narrow.weight.T + mlp.narrow.bias, rtol=0, atol=TOLERANCE)


def test_rotary_positions_are_products_with_complex_numbers_on_each_axis() -> None:
    heads = random(2, 3, 12, 11)
    torch.testing.assert_close(
        rotated(heads, angles((12,), 5, heads.device)), turned(heads, torch.arange(12), 5), rtol=0, atol=TOLERANCE
    )
    # Two axes share four of five pairs; the fifth is not turned.
    both = rotated(heads, angles((3, 4), 5, heads.device))
    x, y = heads[..., :5], heads[..., 5:10]
    rows, columns = torch.arange(12) // 4, torch.arange(12) % 4
    for places, part in ((rows, slice(0, 2)), (columns, slice(2, 4))):
        expected = turned(torch.cat([x[..., part], y[..., part]], dim=-1), places, 2)
        found = torch.cat([both[..., :5][..., part], both[..., 5:10][..., part]], dim=-1)
        torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)
    assert torch.equal(both[..., [4, 9, 10]], heads[..., [4, 9, 10]])


def test_scores_of_turned_queries_and_keys_depend_on_distances_alone() -> None:
    q, k = random(1, 1, 1, 8).expand(1, 1, 9, 8), random(1, 1, 1, 8, seed=1).expand(1, 1, 9, 8)
    turns = angles((9,), 4, q.device)
    scores = (rotated(q, turns) @ rotated(k, turns).mT)[0, 0]
    for distance in range(9):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=0, atol=TOLERANCE)
    assert scores[0].unique().numel() == 9


def test_several_inputs_have_places_of_their_own_and_as_many_as_there_are() -> None:
    device = torch.device("cpu")
    found = token_angles([((2, 3), 6), ((5,), 4)], 4, device)
    assert torch.equal(found, torch.cat([angles((2, 3), 4, device), angles((5,), 4, device)[:4]]))


@pytest.mark.parametrize("qk_norm", [False, True])
def test_a_layer_of_latents_with_all_options_equals_the_plain_one(qk_norm: bool) -> None:
    config = AttentionConfig(num_heads=2, qk_norm=qk_norm, rotary=True)
    layer: SelfAttend = perturbed(SelfAttend(12, config, "tanh", norm="rms", mlp="swiglu"))
    latents, part = random(2, 5, 12), layer.attention

    def rms(values: Tensor, norm: nn.Module) -> Tensor:
        return values / (values.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt() * norm.weight

    normed = rms(latents, layer.norm_attention)
    q, k, v = (
        (normed @ linear.weight.T + linear.bias).view(2, 5, 2, 6).transpose(1, 2)
        for linear in (part.query, part.key, part.value)
    )
    if qk_norm:
        q, k = rms(q, part.norm_query), rms(k, part.norm_key)
    q, k = (turned(heads, torch.arange(5), 3) for heads in (q, k))
    mixed = ((q @ k.mT / 6**0.5).softmax(dim=-1) @ v).transpose(1, 2).flatten(2)
    middle = latents + mixed @ part.output.weight.T + part.output.bias
    expected = middle + layer.mlp(rms(middle, layer.norm_mlp))
    torch.testing.assert_close(layer(latents), expected, rtol=0, atol=TOLERANCE)


def test_a_layer_that_reads_with_all_options_equals_the_plain_one() -> None:
    config = AttentionConfig(num_heads=2, qk_width=8, value_width=6, qk_norm=True)
    layer: CrossAttend = perturbed(CrossAttend(12, 5, config, "tanh", norm="rms", mlp="geglu"))
    queries, tokens, part = random(2, 3, 12), random(2, 6, 5, seed=1), layer.attention

    def rms(values: Tensor, norm: nn.Module) -> Tensor:
        return values / (values.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt() * norm.weight

    def heads(values: Tensor, linear: nn.Linear) -> Tensor:
        return (values @ linear.weight.T + linear.bias).unflatten(-1, (2, -1)).transpose(1, 2)

    normed = rms(tokens, layer.norm_tokens)
    q = rms(heads(rms(queries, layer.norm_query), part.query), part.norm_query)
    k, v = turned(rms(heads(normed, part.key), part.norm_key), torch.arange(6), 2), heads(normed, part.value)
    mixed = ((q @ k.mT / 2).softmax(dim=-1) @ v).transpose(1, 2).flatten(2)
    middle = queries + mixed @ part.output.weight.T + part.output.bias
    expected = middle + layer.mlp(rms(middle, layer.norm_mlp))
    found = layer(queries, *layer.keys_values(normalised(tokens, "rms"), angles((6,), 2, tokens.device)))
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("options", [{"norm": "rms"}, {"norm": "rms", "mlp": "geglu"}, {"mlp": "swiglu"}, NO_BIAS])
def test_every_form_of_reading_has_the_norms_and_mlps(options: dict[str, Any]) -> None:
    forms: tuple[Form, ...] = ("plain", "absorbed", "separable")
    found = []
    for form in forms:
        built = network(dataclasses.replace(CONFIG, cross_attend_form=form, **options))
        out = answers(built)
        out.square().sum().backward()
        found.append({name: parameter.grad for name, parameter in built.named_parameters()} | {"out": out.detach()})
    for other in found[1:]:
        for name, value in found[0].items():
            torch.testing.assert_close(other[name], value, rtol=0, atol=1e-10, msg=name)


@pytest.mark.parametrize("name", [*OPTIONS, *OF_PEERS])
def test_the_gradient_of_a_network_with_an_option_is_that_of_finite_differences(name: str) -> None:
    built = network(dataclasses.replace(CONFIG, **(OPTIONS | OF_PEERS)[name]))
    draws = {"draws": torch.arange(6).view(3, 2)} if built.config.draws else {}
    answers(built, **draws).square().sum().backward()
    slopes, step = [], 1e-6
    directions = [random(*parameter.shape, seed=seed) for seed, parameter in enumerate(built.parameters())]
    with torch.no_grad():
        for sign in (step, -2 * step):
            for parameter, direction in zip(built.parameters(), directions, strict=True):
                parameter += sign * direction
            slopes.append(answers(built, **draws).square().sum())
    gradients = zip(built.parameters(), directions, strict=True)
    expected = sum(
        (parameter.grad * direction).sum() for parameter, direction in gradients if parameter.grad is not None
    )
    # The error of a central difference is of the order of the step's square.
    torch.testing.assert_close((slopes[0] - slopes[1]) / (2 * step), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("policy", ["layers", "selective", "offload"])
def test_every_policy_gives_the_same_bits_with_an_option(name: str, policy: str) -> None:
    config = dataclasses.replace(CONFIG, **OPTIONS[name])
    draws = {"draws": torch.arange(6).view(3, 2)} if config.draws else {}
    found = []
    for changed in (config, dataclasses.replace(config, activation_checkpointing=policy)):
        built = network(changed)
        answers(built, **draws).square().sum().backward()
        found.append([parameter.grad for parameter in built.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True) if one is not None)


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_changes_the_answers_and_its_parameters_are_counted(name: str) -> None:
    config = dataclasses.replace(CONFIG, **OPTIONS[name])
    built = network(config)
    assert total(network_cost(config)).parameters == sum(map(torch.numel, built.parameters()))
    if name in ("geglu", "swiglu"):
        gates = [module.gate for module in built.modules() if isinstance(module, Mlp)]
        assert len(gates) == 4
        # A linear layer is twice its weights, for each row and each time that it is used.
        rows = 6 * (config.num_cross_attends + config.num_blocks) + 1
        more = total(network_cost(config)).flops - total(network_cost(CONFIG)).flops
        widths = {gate.weight.shape for gate in gates}
        assert more == 2 * 16 * 16 * (rows - 1) + 2 * prod(built.decoder.cross_attend.mlp.gate.weight.shape)
        assert (16, 16) in widths
    if name != "all":
        plain = dataclasses.replace(
            config,
            norm="layer",
            mlp="gelu",
            cross_attend=dataclasses.replace(config.cross_attend, qk_norm=False, rotary=False),
            self_attend=dataclasses.replace(config.self_attend, qk_norm=False, rotary=False),
        )
        other = Perceiver(plain, seed=0).double()
        other.load_state_dict({key: built.state_dict().get(key, value) for key, value in other.state_dict().items()})
        assert not torch.allclose(answers(other), answers(built))


@pytest.mark.parametrize("name", OF_PEERS)
def test_an_option_of_a_peer_has_its_parameters_and_no_others(name: str) -> None:
    built, plain = (network(dataclasses.replace(CONFIG, **changes)) for changes in (OF_PEERS[name], {}))
    assert total(network_cost(built.config)).parameters == sum(map(torch.numel, built.parameters()))
    own, papers = set(built.state_dict()), set(plain.state_dict())
    biases = {
        f"{of}.attention.{part}.bias"
        for part in ("query", "key", "value")
        for of in ("encoder.cross_attends.0", "encoder.cross_attends.1", "encoder.blocks.0.0", "decoder.cross_attend")
    }
    mlp = {
        f"decoder.cross_attend.{part}.{kind}"
        for part in ("norm_mlp", "mlp.widen", "mlp.narrow")
        for kind in ("weight", "bias")
    }
    gone = {"qkv_bias": biases, "has_mlp": mlp}.get(name, set())
    if name == "cross_attends":
        gone = {key for key in papers if key.startswith("encoder.cross_attends.1.")}
    assert papers - own == gone
    more = {"norm_mean": "decoder.means.label.norm.", "blocks": "encoder.blocks.1."}.get(name, "-")
    assert own - papers == {key for key in own if key.startswith(more)}
    assert (own - papers != set()) == (name in ("norm_mean", "blocks"))


def test_the_schedule_says_which_layers_share_their_weights() -> None:
    steps = dataclasses.replace(CONFIG, num_blocks=3, share_blocks="after_first", share_cross_attends="all").schedule()
    assert [index for kind, index in steps if kind == "block"] == [0, 1, 1]
    assert [index for kind, index in steps if kind == "cross_attend"] == [0, 0, 0]


def test_the_mean_of_the_latents_is_normed_before_its_layer() -> None:
    built = network(dataclasses.replace(CONFIG, **OF_PEERS["norm_mean"]))
    value, head = random(3, 6, 4, 3), built.decoder.means["label"]
    mean = functional.layer_norm(built.latents({"image": value}).mean(dim=1), (16,), head.norm.weight, head.norm.bias)
    expected = functional.linear(mean, head.logits.weight, head.logits.bias)
    torch.testing.assert_close(built({"image": value})["label"], expected, rtol=0, atol=TOLERANCE)


def test_a_norm_of_the_mean_without_a_mean_is_refused() -> None:
    for output in (LabelOutput(norm_mean=True, pooling="query"), EmbeddingOutput(pair=("a", "b"), norm_mean=True)):
        [(key, sentence)] = output.problems()
        assert (key, "has no meaning" in sentence) == ("norm_mean", True)


def test_the_scales_of_all_norms_are_exempt_from_weight_decay() -> None:
    built = Perceiver(dataclasses.replace(CONFIG, norm="rms", **QK_NORM), seed=0)
    decayed, exempt = (group["params"] for group in parameter_groups(built, OptimizerConfig(weight_decay=0.1)))
    scales = [module.weight for module in built.modules() if isinstance(module, nn.RMSNorm)]
    assert len(scales) == 3 * 3 + 2 + 2 * 3
    assert {id(scale) for scale in scales} <= {id(parameter) for parameter in exempt}
    assert all(parameter.dim() == 2 for parameter in decayed)


def test_reading_with_norms_or_places_of_keys_is_plain_and_every_other_form_is_refused() -> None:
    for attention in (AttentionConfig(qk_norm=True), AttentionConfig(rotary=True)):
        config = dataclasses.replace(CONFIG, cross_attend=attention)
        assert read_form(config) == read_form(config, "cuda") == "plain"
        forms: tuple[Form, ...] = ("absorbed", "separable")
        for form in forms:
            [(key, sentence)] = dataclasses.replace(config, cross_attend_form=form).problems()
            assert key == "cross_attend_form"
            assert "makes no keys that cross_attend.qk_norm or cross_attend.rotary could change; use auto" in sentence
    # What is done between the latents leaves the fast forms alone.
    assert read_form(dataclasses.replace(CONFIG, self_attend=QK_NORM["self_attend"])) == read_form(CONFIG)


CLOUD = {"cloud": PointsInput(num_points=9, num_bands=4)}


@pytest.mark.parametrize(
    ("changes", "key", "sentence"),
    [
        ({"inputs": CLOUD, "cross_attend": AttentionConfig(rotary=True)}, "cross_attend", "which inputs.cloud has not"),
        ({"cross_attend": AttentionConfig(qk_width=2, rotary=True)}, "cross_attend", "got 2 of them for 2 axes; raise"),
        ({"self_attend": AttentionConfig(16, rotary=True)}, "self_attend", "got 0 of them for 1 axes; raise qk_width"),
        (
            {"decoder": dataclasses.replace(CONFIG.decoder, cross_attend=AttentionConfig(rotary=True))},
            "decoder.cross_attend",
            "has no places of queries and latents on the same axes; leave it out",
        ),
    ],
)
def test_rotary_positions_without_places_or_channels_are_refused(
    changes: dict[str, Any], key: str, sentence: str
) -> None:
    [(found, told)] = dataclasses.replace(CONFIG, **changes).problems()
    assert (found, sentence in told) == (f"{key}.rotary", True)


def test_text_of_fewer_places_has_the_places_that_are_there() -> None:
    text = TextInput(max_tokens=8, embedding_width=12)
    config = dataclasses.replace(CONFIG, inputs={"text": text}, **ROTARY)
    built = network(config)
    ids = torch.arange(6).view(2, 3)
    whole = functional.pad(ids, (0, 5))
    short = built({"text": ids}, {"text": torch.tensor([3, 3])})["label"]
    torch.testing.assert_close(short, built({"text": whole}, {"text": torch.tensor([3, 3])})["label"])


@pytest.mark.parametrize("name", [*OPTIONS, "qkv_bias", "has_mlp"])
def test_hugging_face_has_no_such_network(name: str) -> None:
    config = dataclasses.replace(
        CONFIG,
        inputs={"image": ImageInput(height=224, width=224)},
        outputs={"label": LabelOutput(num_classes=5, pooling="query")},
        num_cross_attends=1,
        num_blocks=1,
        **(OPTIONS | OF_PEERS)[name],
    )
    option = {"geglu": "mlp", "swiglu": "mlp", "rms": "norm", "all": "norm"}.get(name, name)
    with pytest.raises(ValueError, match=rf"cannot express this network: .*{option} is "):
        config_to_hugging_face(config)


def test_a_text_is_asked_by_its_tokens_and_answered_by_a_layer_of_its_own() -> None:
    text = TextInput(max_tokens=6, vocabulary=20, embedding_width=12)
    output = TextOutput(queries_from="tokens", is_tied=False)
    config = dataclasses.replace(CONFIG, inputs={"text": text}, outputs={"text": output})
    built = network(config)
    assert total(network_cost(config)).parameters == sum(map(torch.numel, built.parameters()))
    ids = torch.arange(12).view(2, 6)
    tokens = built.inputs.adapters["text"](ids, F64)
    layer, latents = built.decoder.cross_attend, built.latents({"text": ids})
    rows = layer(tokens, *layer.keys_values(normalised(latents)))
    head = built.decoder.heads["text"]
    expected = functional.linear(rows, head.weight, head.bias)
    torch.testing.assert_close(built({"text": ids})["text"], expected, rtol=0, atol=TOLERANCE)
    # Of a shorter batch, and beside another input, whose tokens are as wide.
    short = built({"text": ids[:, :4]}, {"text": torch.tensor([4, 4])})["text"]
    assert short.shape == (2, 4, 20)
    both = network(dataclasses.replace(config, inputs={"image": IMAGE, "text": text}))
    assert both({"image": random(2, 6, 4, 3), "text": ids})["text"].shape == (2, 6, 20)
