"""The whole network: masks, permutations, seeds, recomputation, and that it learns."""

import dataclasses

import pytest
import torch
from torch import Tensor

from model.config.attention import AttentionConfig
from model.config.grids import PositionsConfig
from model.config.perceiver import PerceiverConfig
from model.measures.losses import cross_entropy_sum
from model.modalities.audio import AudioInput
from model.modalities.byte_array import Tokens
from model.modalities.image import ImageInput
from model.modalities.points import PointsInput
from model.modalities.text import TextInput
from model.modalities.video import VideoInput
from model.outputs.label import LabelOutput
from model.parameters import Convolution
from model.perceiver import Perceiver

FEW = PositionsConfig(num_bands=3)
CONFIG = PerceiverConfig(
    inputs={
        "image": ImageInput(height=6, width=4, positions=FEW),
        "audio": AudioInput(num_samples=24, patch=4, positions=FEW),
        "video": VideoInput(num_frames=4, height=4, width=4, patch_frames=2, patch=2, positions=FEW),
        "points": PointsInput(num_points=9, num_bands=3, max_frequency=4.0),
        "text": TextInput(max_tokens=8, embedding_width=16),
    },
    outputs={"label": LabelOutput(num_classes=5)},
    num_latents=6,
    latent_width=16,
    num_cross_attends=3,
    num_blocks=3,
    layers_per_block=2,
    self_attend=AttentionConfig(num_heads=4),
)
FULL = {"image": 6, "audio": 24, "video": 4, "points": 9, "text": 8}


def batch(size: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "image": torch.randint(0, 256, (size, 6, 4, 3), dtype=torch.uint8, generator=generator),
        "audio": torch.rand(size, 24, generator=generator) * 2 - 1,
        "video": torch.randint(0, 256, (size, 4, 4, 4, 3), dtype=torch.uint8, generator=generator),
        "points": torch.rand(size, 9, 3, generator=generator) * 2 - 1,
        "text": torch.randint(0, 262, (size, 8), dtype=torch.int16, generator=generator),
    }


def lengths(*samples: dict[str, int]) -> dict[str, Tensor]:
    return {name: torch.tensor([{**FULL, **sample}[name] for sample in samples]) for name in FULL}


def network(config: PerceiverConfig = CONFIG, seed: int = 0) -> Perceiver:
    """The head starts at 0, which would make every comparison of logits pass."""
    built = Perceiver(config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return built


def test_the_answer_has_a_logit_a_class() -> None:
    assert network()(batch(3), lengths({}, {}, {}))["label"].shape == (3, 5)


def test_lengths_may_be_left_out_when_all_is_there() -> None:
    with_lengths, without = network()(batch(2), lengths({}, {}))["label"], network()(batch(2))["label"]
    torch.testing.assert_close(with_lengths, without, rtol=0, atol=1e-6)


def test_a_padded_and_masked_batch_equals_its_samples_one_by_one() -> None:
    built, inputs = network(), batch(3)
    counts = lengths({"audio": 8, "points": 5}, {"image": 0, "video": 2}, {"text": 3})
    together = built(inputs, counts)["label"]
    for sample in range(3):
        rows = slice(sample, sample + 1)
        alone = built({n: v[rows] for n, v in inputs.items()}, {n: c[rows] for n, c in counts.items()})["label"]
        # float32 sums in another order.
        torch.testing.assert_close(alone, together[rows], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "length"), [("audio", 8), ("points", 5), ("text", 3), ("video", 2), ("image", 0)])
def test_what_lies_beyond_a_length_changes_nothing(name: str, length: int) -> None:
    built, inputs = network(), batch(1)
    other = {**inputs, name: inputs[name].clone()}
    other[name][:, length:] = batch(1, seed=9)[name][:, length:]
    counts = lengths({name: length})
    assert torch.equal(built(inputs, counts)["label"], built(other, counts)["label"])
    # The control: without the length the same change is seen.
    assert not torch.allclose(built(inputs)["label"], built(other)["label"], atol=1e-4)


def test_a_sample_without_any_modality_is_finite_and_leaves_the_others_alone() -> None:
    built, nothing = network(), dict.fromkeys(FULL, 0)
    out = built(batch(2), lengths({}, nothing))["label"]
    assert out.isfinite().all()
    torch.testing.assert_close(out[:1], built(batch(2), lengths({}, {}))["label"][:1], rtol=0, atol=1e-6)
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in built.parameters())


@pytest.mark.parametrize("positions", [FEW, PositionsConfig(kind="learned", learned_width=5)])
def test_tokens_in_another_order_with_their_positions_give_the_same_latents(positions: PositionsConfig) -> None:
    image = ImageInput(height=6, width=4, positions=positions)
    config = dataclasses.replace(CONFIG, inputs={"image": image}, cross_attend_form="plain")
    built = network(config).double()
    counts = {"image": torch.tensor([6, 2])}
    tokens = built.inputs({"image": batch(2)["image"]}, counts, None, torch.float64)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    assert tokens.valid is not None
    shuffled = Tokens(tokens.values[:, order], tokens.valid[:, order], tokens.spans)
    # float64 sums in another order.
    torch.testing.assert_close(built.encoder(shuffled), built.encoder(tokens), rtol=0, atol=1e-12)
    # The control: values without their positions give others.
    content = tokens.values.clone()
    content[..., :3] = content[:, order, :3]
    assert not torch.allclose(built.encoder(Tokens(content, tokens.valid, tokens.spans)), built.encoder(tokens))


def test_points_in_another_order_give_the_same_answer() -> None:
    built, inputs = network(), batch(2)
    shuffled = {**inputs, "points": inputs["points"][:, torch.randperm(9, generator=torch.Generator().manual_seed(1))]}
    torch.testing.assert_close(built(inputs)["label"], built(shuffled)["label"], rtol=0, atol=1e-6)


def test_tokens_permuted_with_their_positions_give_the_same_latents() -> None:
    built, pixels = (
        network(dataclasses.replace(CONFIG, inputs={"image": CONFIG.inputs["image"]})),
        batch(2)["image"],
    )
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    tokens = built.inputs({"image": pixels}, None, None, torch.float32)
    shuffled = dataclasses.replace(tokens, parts=tokens.values[:, order])
    expected = built.encoder(tokens)
    # Latents up to 9, and another form of reading: the grid is no grid any more.
    torch.testing.assert_close(built.encoder(shuffled), expected, rtol=0, atol=5e-5)
    # The control: pixels that move while the positions stay.
    moved = pixels.flatten(1, 2)[:, order].reshape(pixels.shape)
    other = built.encoder(built.inputs({"image": moved}, None, None, torch.float32))
    assert not torch.allclose(other, expected, atol=1e-4)


def test_weights_are_a_function_of_the_seed_and_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = (Perceiver(CONFIG, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["encoder.latents.weight"], other["encoder.latents.weight"])


def test_weights_that_are_loaded_are_copied_into_the_parameters_that_an_optimizer_holds() -> None:
    built, state = network(), {name: each.clone() for name, each in network(seed=1).state_dict().items()}
    held = dict(built.named_parameters())
    built.load_state_dict(state)
    for name, parameter in built.named_parameters():
        assert parameter is held[name]
        assert torch.equal(parameter, state[name])
        assert parameter.data_ptr() != state[name].data_ptr()


def test_weights_start_as_in_the_paper() -> None:
    config = dataclasses.replace(CONFIG, num_latents=256, latent_width=256)
    state = Perceiver(config, seed=0).state_dict()
    latents, query = state["encoder.latents.weight"], state["encoder.blocks.0.0.attention.query.weight"]
    assert latents.abs().max() <= 0.04
    assert abs(latents.std() / 0.0176 - 1) < 0.02
    assert abs(query.std() * 256**0.5 - 1) < 0.02
    assert not state["decoder.means.label.logits.weight"].any()


def test_a_convolution_starts_as_wide_as_its_fan_in_says() -> None:
    convolution = Convolution(3, 64, side=7, stride=2)
    convolution.draw(torch.Generator().manual_seed(0))
    fan_in = 3 * 7 * 7
    # A normal distribution cut at two deviations has 0.8796 of its deviation left.
    assert abs(convolution.weight.std() * fan_in**0.5 / 0.8796 - 1) < 0.02
    assert convolution.weight.abs().max() <= 2 * fan_in**-0.5


def gradients(built: Perceiver) -> dict[str, Tensor]:
    out = built(batch(3), lengths({}, {"audio": 8}, {"image": 0}))["label"]
    cross_entropy_sum(out, torch.tensor([0, 1, 2]), torch.ones(3)).backward()
    return {name: p.grad for name, p in built.named_parameters() if p.grad is not None}


def test_every_parameter_gets_a_gradient_and_has_a_dimension() -> None:
    built = network()
    names = {name for name, parameter in built.named_parameters() if parameter.dim()}
    assert gradients(built).keys() == names == {name for name, _ in built.named_parameters()}


def test_unshared_weights_are_as_many_as_their_uses() -> None:
    def count(**change: bool) -> tuple[int, int]:
        encoder = Perceiver(dataclasses.replace(CONFIG, **change), seed=0).encoder  # type: ignore[arg-type]
        return len(encoder.cross_attends), len(encoder.blocks)

    assert count() == (2, 1)
    assert count(share_cross_attends=False) == (3, 1)
    assert count(share_blocks=False) == (2, 3)


def test_it_learns_to_tell_random_samples_apart() -> None:
    built = Perceiver(CONFIG, seed=0)
    inputs, labels, weights = batch(8), torch.arange(8) % 5, torch.ones(8)
    optimizer = torch.optim.AdamW(built.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss = cross_entropy_sum(built(inputs)["label"], labels, weights) / 8
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(torch.tensor(5.0).log().item(), abs=1e-6)
    assert losses[-1] < 0.2


def test_a_network_without_a_batch_norm_has_nothing_to_observe_and_nothing_to_settle() -> None:
    built, inputs = network(), batch(2)
    expected = built(inputs)["label"]

    def total(_: Tensor) -> Tensor:
        raise AssertionError("ranks wait for each other over nothing")

    built.observe(inputs, lengths({}, {}), total)
    assert torch.equal(built(inputs)["label"], expected)
    built.settle(is_kept=True)


def test_an_impossible_config_is_refused_with_every_problem() -> None:
    with pytest.raises(ValueError, match="num_latents: must be at least 1, got 0\nlayers_per_block"):
        Perceiver(dataclasses.replace(CONFIG, num_latents=0, layers_per_block=0), seed=0)
