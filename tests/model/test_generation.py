"""Generation: kept keys change nothing, and answers are drawn as they are asked for."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from model.config.attention import AttentionConfig
from model.config.grids import PositionsConfig
from model.config.perceiver import PerceiverConfig
from model.generation.continuation import Continuation, Layout, layout
from model.generation.sampling import Sampling, continued, probabilities
from model.modalities.array import ArrayInput
from model.modalities.text import TextInput
from model.outputs.autoregressive import AutoregressiveOutput
from model.perceiver import Perceiver

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
WAVE = replace(
    TEXT,
    inputs={"wave": ArrayInput(shape=(PLACES, 3), project_to=11, positions=PositionsConfig(num_bands=2))},
    outputs={"wave": AutoregressiveOutput(num_levels=7)},
    num_cross_attends=2,
    arrangement="interleaved",
    norm="rms",
    mlp="swiglu",
    cross_attend=replace(HEADS, qk_norm=True),
    self_attend=replace(HEADS, qk_norm=True),
)
TURNED = AttentionConfig(num_heads=2, mlp_ratio=2, rotary=True, qk_norm=True)
ROTARY = replace(TEXT, cross_attend=TURNED, self_attend=TURNED, norm="rms", mlp="swiglu")
GRID = replace(WAVE, inputs={"wave": replace(WAVE.inputs["wave"], shape=(4, 3), axes=("y", "x"), project_to=6)})


def perturbed(config: PerceiverConfig) -> Perceiver:
    network = Perceiver(config, seed=0).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return network


def stream(config: PerceiverConfig, length: int) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    if "text" in config.inputs:
        return torch.randint(6, 262, (2, length), generator=generator)
    return 2 * torch.rand(2, length, 1 if config is GRID else 3, generator=generator) - 1


@pytest.mark.parametrize(
    ("config", "length"), [(TEXT, 40), (WAVE, 40), (GRID, 12), (ROTARY, 40)], ids=["text", "wave", "grid", "rotary"]
)
def test_answers_with_kept_keys_are_those_without(config: PerceiverConfig, length: int) -> None:
    network, known = perturbed(config), stream(config, length)
    kept, anew = Continuation(network), Continuation(network, keeps=False)
    for number in range(length):
        found, expected = kept.next(known[:, :number]), anew.next(known[:, :number])
        # Sums of float32 in another order.
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    # Several places at once, such as those of a prompt that follows.
    torch.testing.assert_close(Continuation(network).next(known[:, :7]), anew.next(known[:, :7]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("config", "name"), [(TEXT, "text"), (WAVE, "wave"), (ROTARY, "text")])
def test_the_answer_is_that_of_the_forward_pass_in_which_the_latents_are_those(
    config: PerceiverConfig, name: str
) -> None:
    network, known = perturbed(replace(config, num_latents=4)), stream(config, PLACES)
    # What comes last is not read by its own answer.
    whole = network({name: known})[name]
    for keeps in (True, False):
        continuation = Continuation(network, keeps=keeps)
        num_equal = 0
        for number in range(PLACES):
            answer = continuation.next(known[:, :number])
            here = layout(number, PLACES, 4)
            if here.first_latent == PLACES - 4:
                torch.testing.assert_close(answer, whole[:, number - here.first_latent], rtol=0, atol=1e-5)
                num_equal += 1
        assert num_equal == 2


def test_the_latents_are_never_more_than_there_are_and_at_least_half() -> None:
    for num_places, num_latents in ((12, 5), (12, 1), (8, 8), (2, 2), (1, 1), (100, 32)):
        for num_known in range(300):
            here = layout(num_known, num_places, num_latents)
            window = num_known + 1 - here.start
            latents = window - here.first_latent
            assert 1 <= window <= num_places
            assert min(window, num_latents - num_latents // 2) <= latents <= num_latents


@pytest.mark.parametrize(
    ("num_known", "expected"),
    [
        (0, (0, 0)),
        (4, (0, 0)),
        # A latent more than there are: two places are given up, half of the latents.
        (5, (0, 2)),
        (6, (0, 2)),
        (7, (0, 4)),
        (11, (0, 8)),
        # The window is full, and moves by as many.
        (12, (2, 6)),
        (13, (2, 8)),
        (14, (4, 6)),
    ],
)
def test_window_and_latents_move_by_half_of_the_latents(num_known: int, expected: tuple[int, int]) -> None:
    assert layout(num_known, num_places=12, num_latents=5) == Layout(*expected)


def test_a_grid_that_is_full_is_not_continued() -> None:
    network = perturbed(GRID)
    with pytest.raises(ValueError, match=r"inputs\.wave: all of its 12 cells are known"):
        Continuation(network).next(stream(GRID, 12))


def test_the_same_seed_draws_the_same_text_with_and_without_kept_keys() -> None:
    network, known = perturbed(TEXT), stream(TEXT, 3)
    drawn = [
        continued(network, known, 20, sampling=Sampling(), seed=seed, keeps=keeps, never=range(6))
        for seed, keeps in ((0, True), (0, False), (1, True))
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(drawn[0][:, :3], known)
    assert drawn[0].min() >= 6


def test_a_wave_is_continued_with_the_middles_of_its_levels() -> None:
    network, known = perturbed(WAVE), stream(WAVE, 3)
    drawn = continued(network, known, 15, sampling=Sampling(), seed=0)
    assert drawn.shape == (2, 18, 3)
    levels = (drawn[:, 3:].double() + 1) / 2 * 7 - 0.5
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-5)
    # The same draws in another range.
    wide = perturbed(replace(WAVE, outputs={"wave": AutoregressiveOutput(num_levels=7, lowest=3.0, highest=24.0)}))
    told: list[int] = []
    found = continued(wide, known, 1, sampling=Sampling(), seed=0, tell=told.append)
    torch.testing.assert_close(found[:, 3], 3 + 3 * (levels[:, 0].float() + 0.5), rtol=0, atol=1e-4)
    assert told == [1]


def test_each_place_that_is_drawn_is_told() -> None:
    told: list[int] = []
    continued(perturbed(TEXT), stream(TEXT, 2), 3, sampling=Sampling(), seed=0, tell=told.append)
    assert told == [1, 2, 3]


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(temperature=0.0), [0.0, 1.0, 0.0, 0.0]),
        (Sampling(), [0.2, 0.4, 0.3, 0.1]),
        (Sampling(top_k=2), [0.0, 4 / 7, 3 / 7, 0.0]),
        (Sampling(top_p=0.6), [0.0, 4 / 7, 3 / 7, 0.0]),
        (Sampling(top_p=0.71), [2 / 9, 4 / 9, 3 / 9, 0.0]),
        (Sampling(top_p=0.01), [0.0, 1.0, 0.0, 0.0]),
        (Sampling(temperature=0.5), [4 / 30, 16 / 30, 9 / 30, 1 / 30]),
    ],
)
def test_the_least_likely_answers_are_left_out(sampling: Sampling, expected: list[float]) -> None:
    logits = torch.tensor([0.2, 0.4, 0.3, 0.1]).log() + 3
    found = probabilities(logits, sampling)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-6)


def test_the_least_and_the_largest_of_each_choice_are_allowed() -> None:
    for sampling in (Sampling(temperature=1e-9, top_k=0, top_p=1.0), Sampling(temperature=0.0, top_p=1e-9)):
        assert list(sampling.problems()) == []
    assert (Sampling().temperature, Sampling().top_k, Sampling().top_p) == (1.0, 0, 1.0)
    both = Sampling(top_k=1, top_p=0.9)
    assert probabilities(torch.tensor([0.0, 1.0, 0.5]), both).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    "change",
    [
        *({"temperature": value} for value in (-1.0, 9e-10, float("inf"), float("nan"))),
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.5},
    ],
)
def test_a_sampling_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    ((key, sentence),) = Sampling(**change).problems()
    assert key == next(iter(change))
    assert "must be" in sentence
