"""The latents in bf16 between the layers: what is rounded, what is not, and that nothing else changes."""

import dataclasses

import pytest
import torch
from torch import Tensor

from model.budget.plan import POLICIES
from model.config.attention import AttentionConfig
from model.config.perceiver import ActivationCheckpointing, PerceiverConfig
from model.modalities.image import ImageInput
from model.modalities.text import TextInput
from model.outputs.label import LabelOutput
from model.perceiver import Perceiver

WIDE = PerceiverConfig(
    inputs={"image": ImageInput(height=6, width=5)},
    outputs={"label": LabelOutput(num_classes=3)},
    num_latents=7,
    latent_width=32,
    num_cross_attends=2,
    num_blocks=2,
    layers_per_block=2,
    self_attend=AttentionConfig(num_heads=4),
    compile=False,
)
NARROW = dataclasses.replace(WIDE, residual_dtype="bf16")
FORMS = ("plain", "absorbed", "separable")


def network(config: PerceiverConfig) -> Perceiver:
    """With a last layer that is not 0."""
    made = Perceiver(config, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return made


def images() -> Tensor:
    return torch.rand(3, 6, 5, 3, generator=torch.Generator().manual_seed(2))


def trained(config: PerceiverConfig, dtype: torch.dtype | None) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the logits and all gradients of a pass in autocast to this type."""
    made = network(config)
    with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        logits = made({"image": images()})["label"]
    logits.float().square().sum().backward()
    return logits, {name: parameter.grad for name, parameter in made.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("form", FORMS)
def test_the_latents_are_bf16_between_the_layers_and_fp32_after_them(form: str) -> None:
    made = network(dataclasses.replace(NARROW, cross_attend_form=form))
    seen: list[torch.dtype] = []
    for block in made.encoder.blocks:
        block.register_forward_hook(lambda _module, given, out: seen.extend((given[0].dtype, out.dtype)))
    made.encoder.register_forward_hook(lambda _module, _given, out: seen.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        made({"image": images()})
    assert seen == [*[torch.bfloat16] * 4, torch.float32]


@pytest.mark.parametrize("form", FORMS)
def test_without_autocast_not_a_bit_is_another(form: str) -> None:
    wide, narrow = (trained(dataclasses.replace(config, cross_attend_form=form), None) for config in (WIDE, NARROW))
    torch.testing.assert_close(wide[0], narrow[0], rtol=0, atol=0)
    torch.testing.assert_close(wide[1], narrow[1], rtol=0, atol=0)


@pytest.mark.parametrize("form", FORMS)
def test_sums_are_rounded_to_bf16_and_gradients_follow(form: str) -> None:
    true, wide, narrow = (
        trained(dataclasses.replace(config, cross_attend_form=form), dtype)
        for config, dtype in ((WIDE, None), (WIDE, torch.bfloat16), (NARROW, torch.bfloat16))
    )
    assert not torch.equal(wide[0], narrow[0])
    # bf16 has 8 bits, and rounding adds up over ten sums.
    torch.testing.assert_close(narrow[0].float(), true[0], rtol=0.05, atol=0.05)
    assert narrow[1].keys() == true[1].keys()
    for name, gradient in narrow[1].items():
        assert gradient.dtype == torch.float32
        assert torch.nn.functional.cosine_similarity(gradient.flatten(), true[1][name].flatten(), 0) > 0.98 or (
            true[1][name].abs().max() < 1e-3
        ), name


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("form", ["plain", "separable"])
def test_what_is_computed_again_gives_the_same_bits(form: str, policy: ActivationCheckpointing) -> None:
    config = dataclasses.replace(NARROW, cross_attend_form=form)
    kept = trained(config, torch.bfloat16)
    again = trained(dataclasses.replace(config, activation_checkpointing=policy), torch.bfloat16)
    torch.testing.assert_close(kept, again, rtol=0, atol=0)


def test_a_decoder_reads_latents_of_fp32() -> None:
    config = dataclasses.replace(
        NARROW,
        inputs={"text": TextInput(max_tokens=5, embedding_width=16)},
        outputs={"label": LabelOutput(num_classes=3, pooling="query")},
    )
    made = network(config)
    tokens = torch.zeros(2, 5, dtype=torch.int64)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = made({"text": tokens})["label"]
    torch.testing.assert_close(narrow.float(), made({"text": tokens})["label"], rtol=0.05, atol=0.05)
