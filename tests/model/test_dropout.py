"""Dropout and stochastic depth: masks that follow from two numbers of each sample, and layers that apply them."""

import dataclasses
from typing import Literal

import pytest
import torch
from torch import Tensor

from model.attention.layers import SelfAttend
from model.attention.norms import normalised
from model.config.attention import AttentionConfig
from model.config.grids import PositionsConfig
from model.config.perceiver import ActivationCheckpointing, PerceiverConfig
from model.modalities.audio import AudioInput
from model.modalities.image import ImageInput
from model.outputs.label import LabelOutput
from model.parameters import draw_parameters
from model.perceiver import Perceiver
from model.training.dropout import LayerDraws, dropped, kept, layer_draws, mixed

FEW = PositionsConfig(num_bands=3)
IMAGE = ImageInput(height=6, width=4, positions=FEW)
CONFIG = PerceiverConfig(
    inputs={"image": IMAGE, "audio": AudioInput(num_samples=24, patch=4, positions=FEW)},
    outputs={"label": LabelOutput(num_classes=5), "asked": LabelOutput(num_classes=3, pooling="query")},
    num_latents=6,
    latent_width=16,
    num_cross_attends=3,
    num_blocks=3,
    layers_per_block=2,
    self_attend=AttentionConfig(num_heads=4),
    dropout=0.3,
    drop_path=0.5,
)
SAMPLES = 4


def numbers(count: int = SAMPLES, seed: int = 0) -> Tensor:
    return torch.randint(0, 2**32, (count, 2), generator=torch.Generator().manual_seed(seed))


def network(config: PerceiverConfig = CONFIG) -> Perceiver:
    """A network without zeros in its weights: the last layer starts at 0, and nothing before it would be seen."""
    built = Perceiver(config, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return built


def inputs(config: PerceiverConfig = CONFIG) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.rand(SAMPLES, *each.shape, generator=generator) for name, each in config.inputs.items()}


def test_mixing_is_a_bijection_of_32_bits_in_which_each_bit_is_set_half_the_time() -> None:
    bits = mixed(torch.arange(2**16) * 65_537 % 2**32)
    assert bits.unique().numel() == 2**16
    assert (bits.min() >= 0, bits.max() < 2**32) == (True, True)
    shares = torch.stack([(bits >> place & 1).double().mean() for place in range(32)])
    # Three deviations of a mean over 65 536 flips, and a little more for 32 of them.
    assert (shares - 0.5).abs().max() < 0.008


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_keeps_values_at_its_rate_and_independently_over_samples_rows_channels_and_layers(rate: float) -> None:
    layers = layer_draws(numbers(8), 2)
    masks = torch.stack([kept(each.streams_B2[:, branch], 32, 64, rate) for each in layers for branch in (0, 1)])
    # Four deviations of a mean over 65 536 draws.
    assert abs(masks.double().mean().item() - (1 - rate)) < 4 * (rate * (1 - rate) / masks.numel()) ** 0.5
    centred = masks.double() - masks.double().mean()
    for axis in range(4):
        neighbours = (centred * centred.roll(1, axis)).mean() / centred.square().mean()
        assert neighbours.abs() < 0.02, f"axis {axis} of layers and branches, samples, rows, channels"


def test_what_the_first_rows_drop_does_not_depend_on_how_many_there_are() -> None:
    (layer,) = layer_draws(numbers(), 1)
    stream = layer.streams_B2[:, 0]
    assert torch.equal(kept(stream, 5, 7, 0.5), kept(stream, 20, 7, 0.5)[:, :5])


def test_a_dropped_branch_keeps_its_expectation() -> None:
    draws = layer_draws(numbers(4_000), 3, drop_path=0.4)[-1]
    found = dropped(torch.ones(4_000, 4, 8), draws, 1, 0.25)
    assert set(found.unique().tolist()) == {0.0, found.max().item()}
    assert found.max().item() == pytest.approx(1 / (0.75 * 0.6))
    # Four deviations of the mean of 4 000 samples that are skipped or not.
    assert found.mean().item() == pytest.approx(1, abs=4 * (0.4 / 0.6 / 4_000) ** 0.5)


def test_stochastic_depth_skips_nothing_of_the_first_layer_and_more_from_layer_to_layer() -> None:
    layers = layer_draws(numbers(4_000), 5, drop_path=0.4)
    skipped = [(each.factors_B2 == 0).double().mean().item() for each in layers if each.factors_B2 is not None]
    assert skipped[0] == 0
    assert skipped == pytest.approx([0, 0.1, 0.2, 0.3, 0.4], abs=0.03)


def unmixed(bits: int) -> int:
    """The number of which `mixed` makes these bits: its steps undone, the last one first."""
    bits ^= bits >> 15 ^ bits >> 30
    for factor, shift in ((0x735A_2D97, 15), (0x21F0_AAAD, 16)):
        bits = bits * pow(factor, -1, 2**32) % 2**32
        bits ^= bits >> shift ^ bits >> 2 * shift
    return bits


@pytest.mark.parametrize("bits", [0, 1, 2**32 - 1])
def test_the_first_layer_is_never_skipped_whatever_is_drawn(bits: int) -> None:
    # The stream of its attention, of which the bits come: the second number of the sample moves it anywhere.
    stream = unmixed(bits) ^ 0xFFFF_FFFF
    second = (unmixed(stream) - int(mixed(torch.tensor(0)))) % 2**32
    first_layer, _ = layer_draws(torch.tensor([[0, second]]), 2, drop_path=0.5)
    assert first_layer.streams_B2[0, 0] == stream
    assert first_layer.factors_B2 is not None
    assert first_layer.factors_B2[0, 0] == 1


@pytest.mark.parametrize("rate", [0.25, 0.5])
def test_values_are_dropped_below_the_rate_and_kept_from_there_on(rate: float) -> None:
    limit = round(rate * 2**32)
    for bits, is_kept in ((0, False), (limit - 1, False), (limit, True), (2**32 - 1, True)):
        # Of the first row and channel, whose numbers are 0 and change nothing.
        stream = torch.tensor([unmixed(unmixed(bits))])
        assert kept(stream, 1, 1, rate).item() is is_kept


def test_a_device_draws_on_its_own() -> None:
    # PyTorch's device "meta" stands for a GPU: what is made on the host would not go with it.
    (draws,) = layer_draws(numbers().to("meta"), 1, drop_path=0.5)
    assert dropped(torch.ones(SAMPLES, 3, 2, device="meta"), draws, 0, 0.5).shape == (SAMPLES, 3, 2)


def test_a_layer_equals_the_plain_one_with_its_masks_put_in_by_hand() -> None:
    layer = SelfAttend(8, AttentionConfig(num_heads=2), "erf", dropout=0.4).double()
    draw_parameters(layer, 0)
    latents = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    draws = layer_draws(numbers(3), 2, drop_path=0.5)[-1]
    assert draws.factors_B2 is not None
    masks = [
        kept(draws.streams_B2[:, branch], 5, 8, 0.4).double() / 0.6 * draws.factors_B2[:, branch, None, None]
        for branch in (0, 1)
    ]
    plain = torch.nn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64)
    part = layer.attention
    with torch.no_grad():
        plain.in_proj_weight.copy_(torch.cat([part.query.weight, part.key.weight, part.value.weight]))
        plain.in_proj_bias.zero_()
        plain.out_proj.weight.copy_(part.output.weight)
        plain.out_proj.bias.zero_()
    normed = normalised(latents)
    middle = latents + masks[0] * plain(normed, normed, normed)[0]
    expected = middle + masks[1] * layer.mlp(normalised(middle))
    torch.testing.assert_close(layer(latents, draws), expected, rtol=0, atol=1e-12)


def test_the_gradient_of_a_network_that_drops_is_that_of_finite_differences() -> None:
    config = dataclasses.replace(CONFIG, num_blocks=1, layers_per_block=1, num_cross_attends=2, latent_width=4)
    config = dataclasses.replace(config, self_attend=AttentionConfig(num_heads=2), inputs={"image": IMAGE})
    built = network(config).double()
    given, draws = {name: value.double() for name, value in inputs(config).items()}, numbers()
    latents = built.encoder.latents.weight

    def loss() -> Tensor:
        return torch.cat(list(built(given, draws=draws).values()), dim=1).square().sum()

    loss().backward()
    assert latents.grad is not None
    direction = torch.randn(latents.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    step = 1e-5
    with torch.no_grad():
        latents += step * direction
        above = loss()
        latents -= 2 * step * direction
        below = loss()
    # The error of a central difference is of the order of the step's square.
    torch.testing.assert_close((latents.grad * direction).sum(), (above - below) / (2 * step), rtol=1e-6, atol=0)


@pytest.mark.parametrize("form", ["plain", "absorbed", "separable"])
@pytest.mark.parametrize("policy", ["blocks", "layers", "selective", "offload"])
def test_every_policy_recomputes_the_same_masks(
    policy: ActivationCheckpointing, form: Literal["plain", "absorbed", "separable"]
) -> None:
    config = dataclasses.replace(CONFIG, cross_attend_form=form)
    if form == "separable":
        config = dataclasses.replace(config, inputs={"image": IMAGE})

    def gradients(config: PerceiverConfig) -> dict[str, Tensor | None]:
        built = network(config)
        # Another draw in between must not matter: nothing reads the global generator.
        torch.rand(1)
        answers = built(inputs(config), draws=numbers())
        torch.cat(list(answers.values()), dim=1).square().sum().backward()
        return {name: parameter.grad for name, parameter in built.named_parameters()}

    expected, found = gradients(config), gradients(dataclasses.replace(config, activation_checkpointing=policy))
    assert all(torch.equal(found[name], expected[name]) for name in expected)  # type: ignore[arg-type]


def test_the_forms_of_cross_attention_drop_the_same() -> None:
    config = dataclasses.replace(CONFIG, inputs={"image": IMAGE})
    forms: tuple[Literal["plain", "absorbed", "separable"], ...] = ("plain", "absorbed", "separable")
    found = []
    for form in forms:
        built = network(dataclasses.replace(config, cross_attend_form=form)).double()
        given = {name: value.double() for name, value in inputs(config).items()}
        found.append(torch.cat(list(built(given, draws=numbers()).values()), dim=1))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=1e-11)


def test_a_sample_draws_the_same_whatever_else_is_in_its_batch() -> None:
    built, given, draws = network().double(), inputs(), numbers()
    given = {name: value.double() for name, value in given.items()}
    whole = built(given, draws=draws)
    for part in (slice(0, 1), slice(1, 4)):
        alone = built({name: value[part] for name, value in given.items()}, draws=draws[part])
        for name, answer in alone.items():
            torch.testing.assert_close(answer, whole[name][part], rtol=0, atol=1e-12)


def test_an_output_draws_the_same_whichever_outputs_are_asked() -> None:
    config = dataclasses.replace(
        CONFIG, outputs={**CONFIG.outputs, "first": LabelOutput(num_classes=3, pooling="query")}
    )
    built = network(config)
    whole = built(inputs(), draws=numbers())
    assert torch.equal(built(inputs(), draws=numbers(), outputs=["first"])["first"], whole["first"])


def test_nothing_is_dropped_without_training_or_without_a_rate() -> None:
    built, plain = network(), network(dataclasses.replace(CONFIG, dropout=0.0, drop_path=0.0))
    expected = plain(inputs())
    trained = built(inputs(), draws=numbers())
    evaluated = built.eval()(inputs(), draws=numbers())
    for name, answer in expected.items():
        assert torch.equal(evaluated[name], answer)
        assert not torch.allclose(trained[name], answer)
    assert torch.equal(plain(inputs(), draws=numbers())["label"], expected["label"])


def test_training_without_numbers_is_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"draws: expected two numbers for each sample.*dropout=0\.3.*got none; pass"):
        network()(inputs())


@pytest.mark.parametrize(
    ("changes", "key", "sentence"),
    [
        ({"dropout": 1.0}, "dropout", "must be at least 0 and below 1, got 1.0"),
        ({"dropout": -0.1}, "dropout", "must be at least 0 and below 1, got -0.1"),
        ({"dropout": float("nan")}, "dropout", "must be at least 0 and below 1, got nan"),
        ({"drop_path": 2.0}, "drop_path", "must be at least 0 and below 1, got 2.0"),
        ({"num_blocks": 0, "num_cross_attends": 1}, "drop_path", "there is no other layer; leave it out"),
    ],
)
def test_rates_that_mean_nothing_are_refused(changes: dict[str, float], key: str, sentence: str) -> None:
    config = dataclasses.replace(CONFIG, **changes)  # type: ignore[arg-type]
    assert [(name, sentence in said) for name, said in config.problems()] == [(key, True)]


def test_draws_without_stochastic_depth_have_no_factors() -> None:
    assert [each.factors_B2 for each in layer_draws(numbers(), 2)] == [None, None]
    assert dropped(torch.ones(2, 3, 4), None, 0, 0.5).equal(torch.ones(2, 3, 4))
    assert isinstance(layer_draws(numbers(), 1)[0], LayerDraws)
