"""A network whose latents are the last places of a stream: what it sees, and what it equals."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from model.budget.flops import network_cost, total
from model.config.attention import AttentionConfig
from model.config.grids import PositionsConfig
from model.config.perceiver import PerceiverConfig
from model.interop.huggingface import to_hugging_face
from model.interop.onnx_export import onnx_program
from model.modalities.array import ArrayInput
from model.modalities.image import ImageInput
from model.modalities.text import TextInput
from model.outputs.autoregressive import AutoregressiveOutput, StreamShape
from model.outputs.label import LabelOutput
from model.perceiver import Perceiver

F64 = torch.float64
PLACES, LATENTS, WIDTH = 12, 5, 16
HEADS = AttentionConfig(num_heads=2, mlp_ratio=2)
TEXT = PerceiverConfig(
    inputs={"text": TextInput(max_tokens=PLACES, embedding_width=WIDTH)},
    outputs={"text": AutoregressiveOutput()},
    num_latents=LATENTS,
    latent_width=WIDTH,
    num_cross_attends=1,
    num_blocks=2,
    layers_per_block=2,
    cross_attend=HEADS,
    self_attend=HEADS,
)
ARRAY = replace(
    TEXT,
    inputs={"wave": ArrayInput(shape=(PLACES, 3), project_to=8, positions=PositionsConfig(num_bands=2))},
    outputs={"wave": AutoregressiveOutput(num_levels=7)},
    cross_attend=AttentionConfig(),
    num_cross_attends=2,
)


def perturbed(config: PerceiverConfig) -> Perceiver:
    """Random values in every tensor: zero biases and unit scales would hide mistakes."""
    network = Perceiver(config, seed=0).double().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator, dtype=F64)
    return network


def texts(rows: int = 2, places: int = PLACES) -> Tensor:
    return torch.randint(6, 262, (rows, places), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("form", ["none", "selective", "layers", "blocks"])
def test_no_answer_of_an_array_has_a_gradient_from_itself_or_from_what_follows(form: Any) -> None:  # noqa: ANN401
    network = perturbed(replace(ARRAY, activation_checkpointing=form))
    values = torch.rand(1, PLACES, 3, dtype=F64).requires_grad_()
    for latent in range(LATENTS):
        place, answer = PLACES - LATENTS + latent, network({"wave": values})["wave"]
        (gradient,) = torch.autograd.grad(answer[0, latent].sin().sum(), values)
        assert not gradient[0, place:].any()
        assert gradient[0, :place].abs().amin(dim=1).gt(0).all(), "all that was before is read"


TURNED = replace(HEADS, rotary=True)
ROTARY = replace(TEXT, cross_attend=TURNED, self_attend=TURNED)


@pytest.mark.parametrize("length", [PLACES, 9, 3])
@pytest.mark.parametrize("config", [TEXT, ROTARY], ids=["learned", "rotary"])
def test_no_answer_of_a_text_depends_on_itself_or_on_what_follows(config: PerceiverConfig, length: int) -> None:
    network, ids = perturbed(config), texts(1)
    lengths = {"text": torch.tensor([length])}
    answer = network({"text": ids}, lengths)["text"]
    first = max(length - LATENTS, 0)
    for place in range(length):
        changed = ids.clone()
        changed[0, place] = (changed[0, place] - 6 + 1) % 256 + 6
        other = network({"text": changed}, lengths)["text"]
        is_same = (other == answer).all(dim=-1)[0, : length - first]
        assert is_same.tolist() == [first + latent <= place for latent in range(length - first)]


@pytest.mark.parametrize("config", [TEXT, ROTARY], ids=["learned", "rotary"])
def test_a_shorter_text_is_answered_as_if_nothing_had_come_after_it(config: PerceiverConfig) -> None:
    network, ids = perturbed(config), texts(3)
    mixed = network({"text": ids}, {"text": torch.tensor([PLACES, 9, 3])})["text"]
    alone = network({"text": ids[1:2, :9]})["text"]
    torch.testing.assert_close(mixed[1:2], alone, rtol=0, atol=1e-12)
    torch.testing.assert_close(mixed[2:, :3], network({"text": ids[2:, :3]})["text"], rtol=0, atol=1e-12)
    torch.testing.assert_close(mixed[:1], network({"text": ids[:1]})["text"], rtol=0, atol=1e-12)


def test_what_is_hidden_of_the_prefix_is_not_read_and_the_latents_see_their_own_places() -> None:
    network, ids = perturbed(TEXT), texts()
    hidden = torch.rand(2, PLACES, generator=torch.Generator().manual_seed(4)) < 0.5
    first = PLACES - LATENTS
    answer = network({"text": ids}, hidden={"text": hidden})["text"]
    assert not torch.equal(answer, network({"text": ids})["text"])
    # The token at the place before the first latent's stands at that latent's place, and is seen.
    unread = functional.pad(hidden[:, : first - 1], (0, LATENTS + 1))
    changed = torch.where(unread, (ids - 6 + 1) % 256 + 6, ids)
    assert torch.equal(network({"text": changed}, hidden={"text": hidden})["text"], answer)
    assert torch.equal(network({"text": ids}, hidden={"text": unread})["text"], answer)
    for place in (~unread[0, :-1]).nonzero().flatten().tolist():
        other = ids.clone()
        other[0, place] = (other[0, place] - 6 + 1) % 256 + 6
        assert not torch.equal(network({"text": other}, hidden={"text": hidden})["text"][0], answer[0])


def test_rotary_positions_tell_the_places_where_there_are_no_learned_ones() -> None:
    answers = {}
    for config in (TEXT, ROTARY):
        network = perturbed(config)
        with torch.no_grad():
            network.inputs.adapters["text"].places.weight.zero_()  # type: ignore[union-attr, operator]
        for place in (2, 5):
            ids = torch.full((1, PLACES), 9)
            ids[0, place] = 10
            answers[config.cross_attend.rotary, place] = network({"text": ids})["text"][0, -1]
    torch.testing.assert_close(answers[False, 2], answers[False, 5], rtol=0, atol=1e-12)
    assert (answers[True, 2] - answers[True, 5]).abs().max() > 1e-3


def norm(values: Tensor, layer: nn.Module) -> Tensor:
    return functional.layer_norm(values, values.shape[-1:], layer.weight, layer.bias)  # type: ignore[arg-type]


def linear(values: Tensor, layer: nn.Module) -> Tensor:
    return values @ layer.weight.mT + layer.bias  # type: ignore[operator, union-attr]


def transformer_layer(values: Tensor, layer: Any, norms: tuple[Any, Any]) -> Tensor:  # noqa: ANN401
    """A pre-norm layer of a plain causal transformer; the first layer norms queries and keys by themselves."""
    part, num_places = layer.attention, values.shape[1]
    asking, asked = (norm(values, each) for each in norms)
    q, k, v = (
        linear(given, projection).unflatten(-1, (2, -1)).transpose(1, 2)
        for given, projection in ((asking, part.query), (asked, part.key), (asked, part.value))
    )
    scores = q @ k.mT / q.shape[-1] ** 0.5
    future = torch.ones(num_places, num_places, dtype=torch.bool).triu(1)
    mixed = scores.masked_fill(future, -torch.inf).softmax(dim=-1) @ v
    values = values + linear(mixed.transpose(1, 2).flatten(2), part.output)
    hidden = functional.gelu(linear(norm(values, layer.norm_mlp), layer.mlp.widen), approximate="tanh")
    return values + linear(hidden, layer.mlp.narrow)


def test_with_latents_at_all_places_it_is_a_plain_causal_transformer() -> None:
    network, ids = perturbed(replace(TEXT, num_latents=PLACES)), texts()
    adapter, encoder = network.inputs.adapters["text"], network.encoder
    embedded = adapter.embedding.weight[ids] + adapter.places.weight  # type: ignore[union-attr, operator]
    values = torch.cat([encoder.latents.weight.expand(2, 1, -1), embedded[:, :-1]], dim=1)
    (first,) = encoder.cross_attends
    values = transformer_layer(values, first, (first.norm_query, first.norm_tokens))
    # One block, twice: its weights are shared.
    for layer in [*encoder.blocks[0], *encoder.blocks[0]]:  # type: ignore[misc]
        values = transformer_layer(values, layer, (layer.norm_attention, layer.norm_attention))
    head = network.decoder.means["text"]
    logits = norm(values, head.norm) @ adapter.embedding.weight.mT + head.ids.bias  # type: ignore[arg-type, union-attr]
    expected = functional.cross_entropy(logits.flatten(0, 1), ids.flatten())
    found = network({"text": ids})["text"]
    torch.testing.assert_close(found, logits, rtol=0, atol=1e-11)
    assert functional.cross_entropy(found.flatten(0, 1), ids.flatten()).item() == pytest.approx(expected.item(), 1e-12)


def krasserms_attention(asking: Tensor, asked: Tensor, part: Any) -> Tensor:  # noqa: ANN401
    """MultiHeadAttention of perceiver-io 0.6.0 with causal_attention=True, as it is written there."""
    q, k, v = (
        (given @ projection.weight.mT).unflatten(-1, (2, -1)).transpose(1, 2)
        for given, projection in ((asking, part.query), (asked, part.key), (asked, part.value))
    )
    scores = (q * q.shape[-1] ** -0.5) @ k.mT
    num_queries, num_keys = scores.shape[2:]
    future = torch.ones(num_queries, num_keys, dtype=torch.bool).triu(num_keys - num_queries + 1)
    shares = scores.masked_fill(future, -torch.finfo(scores.dtype).max).softmax(dim=-1)
    return linear((shares @ v).transpose(1, 2).flatten(2), part.output)


def krasserms_mlp(values: Tensor, layer: Any) -> Tensor:  # noqa: ANN401
    hidden = functional.gelu(norm(values, layer.norm_mlp) @ layer.mlp.widen.weight.mT)
    return values + hidden @ layer.mlp.narrow.weight.mT


@pytest.mark.parametrize("num_kept", [PLACES - LATENTS, 4])
def test_with_the_same_weights_it_is_krasserms_causal_model(num_kept: int) -> None:
    """PerceiverAR of perceiver-io 0.6.0, whose installation would want a PyTorch below 1.13; no channels are rotated.

    It norms latents as queries also where they are keys, drops what is hidden of the prefix from its array, and has
    biases in the cross-attention's last layer alone.
    """
    network, ids = perturbed(replace(TEXT, gelu="erf")), texts()
    (cross,), (block,) = network.encoder.cross_attends, network.encoder.blocks
    with torch.no_grad():
        for name, parameter in network.encoder.named_parameters():
            if name.endswith("bias") and "norm" not in name and name != "cross_attends.0.attention.output.bias":
                parameter.zero_()
        cross.norm_tokens.load_state_dict(cross.norm_query.state_dict())  # type: ignore[union-attr]
    tokens = network.inputs({"text": ids}, None, None, F64)
    x = network.encoder.latents.placed(tokens.values)  # type: ignore[union-attr, operator]
    # The first place has no token, and is not hidden here.
    order = functional.pad(
        torch.rand(2, PLACES - LATENTS - 1, generator=torch.Generator().manual_seed(5)), (1, 0), value=2
    )
    keep = order.topk(num_kept).indices
    kept = torch.zeros(2, PLACES - LATENTS, dtype=torch.bool).scatter(1, keep, 1)
    latents, prefix = x[:, -LATENTS:], x[:, :-LATENTS][kept].view(2, num_kept, WIDTH)
    asking = norm(latents, cross.norm_query)
    asked = torch.cat([norm(prefix, cross.norm_tokens), asking], dim=1)
    latents = krasserms_mlp(latents + krasserms_attention(asking, asked, cross.attention), cross)
    for layer in [*block, *block]:  # type: ignore[misc]
        normed = norm(latents, layer.norm_attention)
        latents = krasserms_mlp(latents + krasserms_attention(normed, normed, layer.attention), layer)
    # A token stands one place after its own.
    hidden = functional.pad(~kept[:, 1:], (0, LATENTS + 1))
    found = network.encoder(tokens, hidden)
    torch.testing.assert_close(found, latents, rtol=0, atol=1e-11)


@pytest.mark.parametrize("config", [TEXT, ARRAY, replace(TEXT, latent_width=24)], ids=["text", "array", "wider"])
def test_the_parameters_of_the_plan_are_those_of_the_network(config: PerceiverConfig) -> None:
    parameters = sum(parameter.numel() for parameter in Perceiver(config, seed=0).parameters())
    assert total(network_cost(config)).parameters == parameters


def test_the_plan_counts_the_products_of_all_latents() -> None:
    small, large = (total(network_cost(replace(TEXT, num_latents=number))).flops for number in (2, 4))
    assert large > 1.5 * small
    logits = network_cost(TEXT)["decoder"].flops
    assert logits == 2 * LATENTS * WIDTH * 262


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_latents": PLACES + 1}, f"its latents at the last of {PLACES} places, but num_latents is {PLACES + 1}"),
        ({"mask_tokens": True}, "set mask_tokens=false"),
        ({"cross_attend_form": "absorbed"}, "cannot hide the places after each latent of inputs.wave; use auto"),
        ({"outputs": {"next": AutoregressiveOutput()}}, "needs the text or the array inputs.next, which is not there"),
        ({"outputs": {"a": AutoregressiveOutput(target="wave"), "b": LabelOutput()}}, "must be the only output"),
        (
            {"inputs": {"wave": ARRAY.inputs["wave"], "a": TEXT.inputs["text"]}},
            "must be the only output of the only input",
        ),
        ({"outputs": {"wave": AutoregressiveOutput(prefix_dropout=1.0)}}, "less than 1, got 1.0"),
        ({"outputs": {"wave": AutoregressiveOutput(num_levels=1)}}, "num_levels: must be at least 2"),
        ({"outputs": {"wave": AutoregressiveOutput(lowest=2.0)}}, "above lowest, which is 2.0, got 1.0"),
        ({"outputs": {"wave": AutoregressiveOutput(stream=StreamShape(3))}}, "follows from the network; leave it out"),
        ({"inputs": {"wave": ImageInput(height=4, width=4)}}, "which is image"),
        ({"inputs": {"wave": replace(ARRAY.inputs["wave"], patch=(2,))}}, "a token for each cell"),
        ({"inputs": {"wave": replace(ARRAY.inputs["wave"], shape=(4, 6, 3), patch=(1, 2))}}, "a token for each cell"),
        ({"inputs": {"wave": replace(ARRAY.inputs["wave"], num_axes=2)}}, "without coordinates of its own"),
        ({"inputs": {"wave": replace(ARRAY.inputs["wave"], axes=("channel", "x"))}}, "channels are its last axis"),
    ],
)
def test_what_cannot_be_continued_is_refused_in_a_sentence(change: dict[str, Any], words: str) -> None:
    found = [f"{key}: {sentence}" for key, sentence in replace(ARRAY, **change).problems()]
    assert any(words in line for line in found), found


def test_exports_that_cannot_say_it_refuse_it() -> None:
    network = Perceiver(TEXT, seed=0)
    with pytest.raises(ValueError, match=r"Hugging Face has no Perceiver that continues inputs\.text"):
        to_hugging_face(network)
    with pytest.raises(ValueError, match=r"ONNX file keeps no keys of what inputs\.text had before"):
        onnx_program(network)
