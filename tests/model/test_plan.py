"""The plan's activation memory against what a step holds, and what it concludes for a device."""

import dataclasses
import weakref
from itertools import product
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import model.tiled
from model.activation_memory import activation_bytes
from model.config import ActivationCheckpointing, PerceiverConfig
from model.config_attention import AttentionConfig
from model.config_grids import PositionsConfig
from model.config_inputs import AudioInput, InputsConfig
from model.config_outputs import LabelOutput, OutputsConfig
from model.config_pixels import ImageInput
from model.cost import network_cost, total
from model.perceiver import Perceiver
from model.plan import POLICIES, Device, fastest_policy, plan

BANDS = PositionsConfig(num_bands=16)
CONFIG = PerceiverConfig(
    inputs=InputsConfig(image=ImageInput(height=48, width=32, positions=BANDS)),
    outputs=OutputsConfig(label=LabelOutput(num_classes=5)),
    num_latents=128,
    latent_width=64,
    num_cross_attends=4,
    num_blocks=4,
    layers_per_block=3,
    self_attend=AttentionConfig(num_heads=4),
)
BATCH = 4


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of the tensors that are made under it, while they live."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        out = func(*args, **(kwargs or {}))
        inputs = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in inputs:
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: Any) -> None:  # noqa: ANN401
        pointer, size = storage.data_ptr(), storage.nbytes()
        if pointer in self.known or not size:
            return
        self.known.add(pointer)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, pointer, size)

    def _forget(self, pointer: int, size: int) -> None:
        self.known.discard(pointer)
        self.now -= size


def measured_peak(config: PerceiverConfig) -> int:
    """Bytes that a step holds at most, beyond the weights and their gradients."""
    built = Perceiver(config, seed=0)
    for parameter in built.parameters():
        parameter.grad = torch.zeros_like(parameter)
    inputs = {name: torch.rand(BATCH, *modality.shape) for name, modality in config.inputs.chosen().items()}
    # As the trainer does: batch norms see the global batch before the step.
    built.observe(inputs, {name: torch.ones(BATCH) for name in inputs}, lambda sums: sums)
    with PeakMemory() as memory:
        built(inputs)["label"].sum().backward()
    return memory.peak


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles have a fixed size, which a network as small as this one would not hide."""
    monkeypatch.setattr(model.tiled, "CPU_TILE_ELEMENTS", 2**13)


IMAGES = {
    "pixels": CONFIG.inputs.image,
    "patches": ImageInput(height=96, width=96, patch=4, project_to=64, positions=BANDS),
    "stem": ImageInput(height=96, width=96, conv_stem=True, positions=BANDS),
}


@pytest.mark.slow
@pytest.mark.parametrize("policy", [policy for policy in POLICIES if policy != "offload"])
@pytest.mark.parametrize(
    ("form", "image"), [("separable", "pixels"), *product(["plain", "absorbed"], ["pixels", "patches", "stem"])]
)
def test_activations_are_within_a_tenth_of_what_a_step_holds(
    policy: ActivationCheckpointing,
    form: Any,  # noqa: ANN401
    image: str,
) -> None:
    inputs = InputsConfig(image=IMAGES[image])
    config = dataclasses.replace(CONFIG, inputs=inputs, cross_attend_form=form, activation_checkpointing=policy)
    assert BATCH * activation_bytes(config) == pytest.approx(measured_peak(config), rel=0.1)


@pytest.mark.parametrize("policy", ["blocks", "layers", "selective"])
def test_every_second_block_is_planned_as_it_is_held(policy: ActivationCheckpointing) -> None:
    config = dataclasses.replace(CONFIG, activation_checkpointing=policy, checkpoint_every=2)
    assert BATCH * activation_bytes(config) == pytest.approx(measured_peak(config), rel=0.1)


def test_joined_modalities_are_kept_before_and_after_their_norm() -> None:
    inputs = dataclasses.replace(CONFIG.inputs, audio=AudioInput(num_samples=512, patch=1, positions=BANDS))
    config = dataclasses.replace(CONFIG, inputs=inputs)
    assert BATCH * activation_bytes(config) == pytest.approx(measured_peak(config), rel=0.1)


def test_a_device_takes_as_many_samples_as_its_memory_holds() -> None:
    parameters = total(network_cost(CONFIG)).parameters
    device = Device(memory_bytes=16 * parameters + 10 * activation_bytes(CONFIG) + 1, peak_flops=1e9)
    found = plan(CONFIG, device=device)
    assert found.policies["none"].micro_batch == 10
    assert found.policies["none"].samples_per_second == pytest.approx(1e9 / 3 / found.parts["total"].flops)
    assert (found.policies["blocks"].micro_batch or 0) > 10
    assert plan(CONFIG, device=Device(1, 1e9)).policies["none"].micro_batch == 0


def test_the_fastest_policy_that_fits_is_chosen() -> None:
    def choice(memory: int) -> ActivationCheckpointing:
        return fastest_policy(CONFIG, micro_batch=2, memory_bytes=memory)

    assert choice(2 * activation_bytes(CONFIG, "none")) == "none"
    assert choice(2 * activation_bytes(CONFIG, "none") - 1) == "selective"
    assert choice(2 * activation_bytes(CONFIG, "layers")) == "layers"
    with pytest.raises(ValueError, match=r"no policy fits 2 samples into 0\.00 GiB"):
        choice(0)
