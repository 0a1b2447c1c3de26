"""Every policy gives the gradients of keeping everything, to the bit, with shared weights; compiling, to 1e-5."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

from model.config import ActivationCheckpointing, PerceiverConfig
from model.config_attention import AttentionConfig
from model.config_grids import PositionsConfig
from model.config_inputs import AudioInput, InputsConfig
from model.config_outputs import LabelOutput, OutputsConfig
from model.config_pixels import ImageInput
from model.losses import cross_entropy_sum
from model.perceiver import Perceiver

FEW = PositionsConfig(num_bands=3)
IMAGE = ImageInput(height=6, width=4, positions=FEW)
CONFIG = PerceiverConfig(
    inputs=InputsConfig(image=IMAGE, audio=AudioInput(num_samples=24, patch=4, positions=FEW)),
    outputs=OutputsConfig(label=LabelOutput(num_classes=5)),
    num_latents=6,
    latent_width=16,
    num_cross_attends=3,
    num_blocks=3,
    layers_per_block=2,
    self_attend=AttentionConfig(num_heads=4),
)


def gradients(config: PerceiverConfig) -> dict[str, Tensor]:
    built = Perceiver(config, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    chosen = config.inputs.chosen()
    inputs = {n: torch.rand(3, *modality.shape, generator=generator) for n, modality in chosen.items()}
    lengths = {n: torch.tensor([modality.shape[0], 2, 0]) for n, modality in chosen.items()}
    logits = built(inputs, lengths)["label"]
    cross_entropy_sum(logits, torch.tensor([0, 1, 2]), torch.ones(3)).backward()
    return {name: p.grad for name, p in built.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("form", ["plain", "absorbed", "separable"])
@pytest.mark.parametrize(
    ("policy", "every"),
    [("blocks", 1), ("blocks", 2), ("layers", 1), ("selective", 1), ("offload", 1)],
)
def test_gradients_are_equal_to_the_bit(
    policy: ActivationCheckpointing, every: int, form: Literal["plain", "absorbed", "separable"]
) -> None:
    inputs = InputsConfig(image=IMAGE) if form == "separable" else CONFIG.inputs
    config = dataclasses.replace(CONFIG, inputs=inputs, cross_attend_form=form)
    expected = gradients(config)
    found = gradients(dataclasses.replace(config, activation_checkpointing=policy, checkpoint_every=every))
    assert found.keys() == expected.keys() == {name for name, _ in Perceiver(config, seed=0).named_parameters()}
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def kept_bytes(config: PerceiverConfig) -> int:
    """What autograd holds between the passes, of the latents' width."""
    held: dict[int, int] = {}

    def hold(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    built = Perceiver(config, seed=0)
    inputs = {n: torch.rand(3, *modality.shape) for n, modality in config.inputs.chosen().items()}
    weights = {p.untyped_storage().data_ptr() for p in built.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        logits = built(inputs)["label"]
    del logits
    return sum(size for pointer, size in held.items() if pointer not in weights)


def test_every_policy_keeps_less_than_none() -> None:
    config = dataclasses.replace(CONFIG, inputs=InputsConfig(image=IMAGE), num_latents=32)
    everything = kept_bytes(config)
    kept = {p: kept_bytes(dataclasses.replace(config, activation_checkpointing=p)) for p in ("blocks", "layers")}
    half = kept_bytes(dataclasses.replace(config, activation_checkpointing="blocks", checkpoint_every=2))
    assert max(kept.values()) < half < everything


COMPILED = """
import sys
sys.path.insert(0, {folder!r})
import dataclasses, torch
from {module} import CONFIG, gradients, kept_bytes
from model.attention import attend
for form in ("plain", "absorbed"):
    config = dataclasses.replace(CONFIG, cross_attend_form=form, num_cross_attends=1, num_blocks=1, layers_per_block=1)
    expected, found = gradients(config), gradients(dataclasses.replace(config, compile=True))
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-5, msg=name)
    assert torch._dynamo.utils.counters["stats"]["calls_captured"] > 0
    kept = kept_bytes(dataclasses.replace(config, compile=True)) / kept_bytes(config)
    assert kept < 0.9, f"{{kept}} of the bytes"
q, k, v = torch.randn(3, 2, 3, 5, 8).bfloat16()
valid = torch.arange(5) < torch.tensor([[3], [5]])
torch.testing.assert_close(torch.compile(attend)(q, k, v, valid), attend(q, k, v, valid), rtol=0, atol=0.03)
"""


@pytest.mark.slow
def test_compiling_changes_nothing_beyond_rounding_and_keeps_less() -> None:
    # In a process of its own: the checks of shapes that the tests put around every function cannot be compiled.
    code = COMPILED.format(folder=str(Path(__file__).parent), module=Path(__file__).stem)
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
