"""A label as input: one token, which gives way to the learned mask token where it is not known."""

from dataclasses import replace

import torch

from model.config.attention import AttentionConfig
from model.config.perceiver import PerceiverConfig
from model.modalities.audio import AudioInput
from model.modalities.label import LabelInput
from model.outputs.label import LabelOutput
from model.perceiver import Perceiver

CONFIG = PerceiverConfig(
    inputs={"audio": AudioInput(num_samples=8, patch=4), "label": LabelInput(num_classes=3)},
    outputs={"label": LabelOutput(num_classes=3)}, mask_tokens=True, num_latents=3, latent_width=8,
    num_cross_attends=1, num_blocks=1, layers_per_block=1, self_attend=AttentionConfig(num_heads=2),
)  # fmt: skip
AUDIO = torch.linspace(-1, 1, 24).view(3, 8)


def perturbed() -> Perceiver:
    """A network whose last layer is not zero, as it is at first."""
    network = Perceiver(CONFIG, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return network


def test_the_mask_token_of_a_hidden_label_is_learned_and_that_of_a_shown_one_is_not() -> None:
    for labels, learns in ([1, -1, 0], True), ([1, 2, 0], False):
        network = perturbed()
        network({"audio": AUDIO, "label": torch.tensor(labels)})["label"].square().sum().backward()
        gradient = network.inputs.mask_tokens["label"].weight.grad
        assert (gradient is not None and bool((gradient != 0).any())) == learns


def test_a_hidden_label_says_nothing_of_itself_and_differs_from_one_that_is_not_there() -> None:
    network = perturbed()
    inputs = {"audio": AUDIO, "label": torch.tensor([0, 1, 2])}
    hidden = network(inputs, hidden={"label": torch.ones(3, 1, dtype=torch.bool)})["label"]
    unknown = {**inputs, "label": torch.full((3,), -1)}
    torch.testing.assert_close(network(unknown)["label"], hidden, rtol=0, atol=0)
    absent = network(unknown, {"audio": torch.full((3,), 8), "label": torch.zeros(3, dtype=torch.int64)})["label"]
    assert not torch.allclose(absent, hidden)


def test_without_mask_tokens_a_label_that_is_not_known_is_zeros() -> None:
    network = Perceiver(replace(CONFIG, mask_tokens=False), seed=0)
    tokens = network.inputs({"audio": AUDIO[:1], "label": torch.tensor([-1])}, None, None, torch.float32).values
    assert not tokens[0, -1, :3].any()
