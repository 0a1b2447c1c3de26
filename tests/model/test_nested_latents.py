"""Nested latents: the first latents of a network are a network of their own, which plans and refusals know."""

import dataclasses
from typing import Literal

import pytest
import torch
from torch import Tensor

from model.budget.activation_memory import activation_bytes
from model.budget.flops import mean_trained_flops, network_cost, total, training_flops
from model.budget.plan import Device, plan
from model.budget.step_cost import step_work
from model.config.attention import AttentionConfig
from model.config.grids import PositionsConfig
from model.config.perceiver import PerceiverConfig
from model.modalities.image import ImageInput
from model.outputs.label import LabelOutput
from model.perceiver import Perceiver

CONFIG = PerceiverConfig(
    inputs={"image": ImageInput(height=6, width=4, positions=PositionsConfig(num_bands=3))},
    outputs={"label": LabelOutput(num_classes=5), "asked": LabelOutput(num_classes=3, pooling="query")},
    num_latents=8,
    nested_latents=(2, 4, 8),
    latent_width=16,
    num_cross_attends=2,
    num_blocks=2,
    layers_per_block=1,
    self_attend=AttentionConfig(num_heads=4),
)
SIZES = CONFIG.latent_sizes
SHARES = {2: 0.25, 4: 0.25, 8: 0.5}
"""The part of the steps that trains each size."""


def network(config: PerceiverConfig = CONFIG) -> Perceiver:
    built = Perceiver(config, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return built


def images() -> dict[str, Tensor]:
    return {"image": torch.rand(3, 6, 4, 3, generator=torch.Generator().manual_seed(1))}


@pytest.mark.parametrize("form", ["plain", "absorbed", "separable"])
@pytest.mark.parametrize("num_latents", SIZES)
def test_the_first_latents_answer_as_the_network_that_is_cut_to_them(
    num_latents: int, form: Literal["plain", "absorbed", "separable"]
) -> None:
    built = network(dataclasses.replace(CONFIG, cross_attend_form=form))
    small = built.cut(num_latents)
    assert small.config == dataclasses.replace(built.config, num_latents=num_latents, nested_latents=())
    part, alone = built(images(), num_latents=num_latents), small(images())
    assert all(torch.equal(part[name], alone[name]) for name in alone)
    assert num_latents == 8 or not torch.allclose(part["label"], built(images())["label"])


def test_the_latents_that_take_no_part_get_no_gradient() -> None:
    built = network()
    built(images(), num_latents=2)["label"].sum().backward()
    gradient = built.encoder.latents.weight.grad
    assert gradient is not None
    assert gradient[:2].any(dim=1).all()
    assert not gradient[2:].any()


def test_all_latents_are_the_network_without_nesting_to_the_bit() -> None:
    plain = network(dataclasses.replace(CONFIG, nested_latents=()))
    nested = network()
    assert nested.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(nested(images())["label"], plain(images())["label"])


def test_a_cut_network_keeps_its_mode_and_copies_its_weights() -> None:
    built = network().eval()
    small = built.cut(4)
    assert not small.training
    with torch.no_grad():
        built.encoder.latents.weight.zero_()
    assert small.encoder.latents.weight.any()


@pytest.mark.parametrize("num_latents", [-1, 9])
def test_a_number_of_latents_that_there_is_not_is_refused(num_latents: int) -> None:
    with pytest.raises(ValueError, match=f"num_latents: expected 0 to 8, got {num_latents}"):
        network()(images(), num_latents=num_latents)


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ((8,), "must be two or more rising numbers from 1, got [8]"),
        ((4, 2, 8), "must be two or more rising numbers from 1, got [4, 2, 8]"),
        ((4, 4, 8), "must be two or more rising numbers from 1, got [4, 4, 8]"),
        ((0, 8), "must be two or more rising numbers from 1, got [0, 8]"),
        ((2, 4), "must end with num_latents, which is 8, got [2, 4]"),
        ((4, 16), "must end with num_latents, which is 8, got [4, 16]"),
    ],
)
def test_sizes_that_cannot_be_nested_are_refused(sizes: tuple[int, ...], sentence: str) -> None:
    found = list(dataclasses.replace(CONFIG, nested_latents=sizes).problems())
    assert [(key, sentence in said) for key, said in found] == [("nested_latents", True)]


def test_the_plan_knows_each_size_and_trains_at_the_mean_of_the_steps() -> None:
    found = plan(CONFIG, device=Device(2**30, 1e12))
    for num_latents in SIZES:
        small = network().cut(num_latents)
        size = found.latents[num_latents]
        assert size.parameters == sum(parameter.numel() for parameter in small.parameters())
        assert size.flops == total(network_cost(small.config)).flops
        assert size.activation_bytes == activation_bytes(small.config)
    mean = sum(SHARES[num_latents] * size.flops for num_latents, size in found.latents.items())
    assert mean_trained_flops(CONFIG) == mean
    assert training_flops(CONFIG) == 3 * mean
    assert found.policies["none"].samples_per_second == pytest.approx(1e12 / (3 * mean))
    assert found.policies["blocks"].samples_per_second == pytest.approx(1e12 / (4 * mean))
    # Memory must do for the largest.
    assert found.policies["none"].activation_bytes == activation_bytes(CONFIG.with_latents(8))
    assert plan(CONFIG.with_latents(8)).latents == {}


def test_the_work_of_a_step_is_the_mean_over_the_steps() -> None:
    plain = dataclasses.replace(CONFIG, cross_attend_form="plain")
    works = {num_latents: step_work(plain.with_latents(num_latents), "fp32") for num_latents in SIZES}
    nested = step_work(plain, "fp32")
    for part in ("products", "reads", "softmax", "moved_bytes"):
        expected = sum(SHARES[num_latents] * getattr(work, part) for num_latents, work in works.items())
        assert getattr(nested, part) == pytest.approx(expected)
