"""The plan's activation memory against what a step holds, and what it concludes for a device."""

import dataclasses
from itertools import product
from typing import Any

import pytest
import torch
from peak_memory import PeakMemory

import model.attention.absorbed.tiled
from model.budget.activation_memory import activation_bytes
from model.budget.flops import network_cost, total
from model.budget.plan import POLICIES, Device, fastest_policy, plan
from model.config.attention import AttentionConfig
from model.config.grids import PositionsConfig
from model.config.perceiver import ActivationCheckpointing, PerceiverConfig
from model.modalities.audio import AudioInput
from model.modalities.flow import FlowInput
from model.modalities.image import ImageInput
from model.modalities.text import TextInput
from model.outputs.autoregressive import AutoregressiveOutput
from model.outputs.grid import GridOutput
from model.outputs.label import LabelOutput
from model.outputs.text import TextOutput
from model.perceiver import Perceiver

BANDS = PositionsConfig(num_bands=16)
CONFIG = PerceiverConfig(
    inputs={"image": ImageInput(height=48, width=32, positions=BANDS)},
    outputs={"label": LabelOutput(num_classes=5)},
    num_latents=128,
    latent_width=64,
    num_cross_attends=4,
    num_blocks=4,
    layers_per_block=3,
    self_attend=AttentionConfig(num_heads=4),
)
BATCH = 4


def measured_peak(config: PerceiverConfig) -> int:
    """Bytes that a step holds at most, beyond the weights and their gradients."""
    built = Perceiver(config, seed=0)
    for parameter in built.parameters():
        parameter.grad = torch.zeros_like(parameter)
    inputs = {
        name: torch.zeros(BATCH, *modality.shape, dtype=torch.int64 if name == "text" else torch.float32)
        for name, modality in config.ordered_inputs.items()
    }
    # As the trainer does: batch norms see the global batch before the step.
    built.observe(inputs, {name: torch.ones(BATCH) for name in inputs}, lambda sums: sums)
    with PeakMemory() as memory:
        answers = built(inputs, draws=torch.zeros(BATCH, 2, dtype=torch.int64))
        sum(answer.sum() for answer in answers.values()).backward()  # type: ignore[union-attr]
    return memory.peak


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles have a fixed size, which a network as small as this one would not hide."""
    monkeypatch.setattr(model.attention.absorbed.tiled, "CPU_TILE_ELEMENTS", 2**13)


IMAGES = {
    "pixels": CONFIG.inputs["image"],
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
    inputs = {"image": IMAGES[image]}
    config = dataclasses.replace(CONFIG, inputs=inputs, cross_attend_form=form, activation_checkpointing=policy)
    assert BATCH * activation_bytes(config) == pytest.approx(measured_peak(config), rel=0.1)


@pytest.mark.parametrize("policy", ["blocks", "layers", "selective"])
def test_every_second_block_is_planned_as_it_is_held(policy: ActivationCheckpointing) -> None:
    config = dataclasses.replace(CONFIG, activation_checkpointing=policy, recompute_every_blocks=2)
    assert BATCH * activation_bytes(config) == pytest.approx(measured_peak(config), rel=0.1)


@pytest.mark.parametrize("policy", ["none", "selective", "blocks"])
def test_a_stream_keeps_its_tokens_and_the_logits_of_all_latents(policy: ActivationCheckpointing) -> None:
    config = dataclasses.replace(
        CONFIG,
        inputs={"text": TextInput(max_tokens=512, embedding_width=64)},
        outputs={"text": AutoregressiveOutput()},
        num_latents=128,
        latent_width=64,
        cross_attend=AttentionConfig(num_heads=4),
        cross_attend_form="plain",
        activation_checkpointing=policy,
    )
    assert BATCH * activation_bytes(config) == pytest.approx(measured_peak(config), rel=0.1)


def test_joined_modalities_are_kept_before_and_after_their_norm() -> None:
    inputs = {**CONFIG.inputs, "audio": AudioInput(num_samples=512, patch=1, positions=BANDS)}
    config = dataclasses.replace(CONFIG, inputs=inputs)
    assert BATCH * activation_bytes(config) == pytest.approx(measured_peak(config), rel=0.1)


THINKING = dataclasses.replace(
    CONFIG,
    inputs={"image": ImageInput(height=16, width=16, positions=BANDS)},
    num_latents=64,
    num_cross_attends=1,
    num_blocks=2,
    layers_per_block=8,
)
READING = dataclasses.replace(
    THINKING,
    inputs={"image": ImageInput(height=16, width=16, positions=PositionsConfig(num_bands=64))},
    num_latents=128,
    num_cross_attends=8,
    num_blocks=0,
    cross_attend_form="absorbed",
)
FEW = PositionsConfig(num_bands=2)
GRID = GridOutput(shape=(64, 64), num_channels=1, positions=BANDS)
STEM = FlowInput(height=64, width=64, conv_stem=True, separate_frames=True, project_to=0, positions=FEW)
WORDS = TextInput(max_tokens=256, embedding_width=64)
# Networks most of whose memory is one term of the plan's.
DOMINATED: dict[str, tuple[PerceiverConfig, dict[str, Any], tuple[ActivationCheckpointing, ...]]] = {
    "mlp": (THINKING, {"self_attend": AttentionConfig(num_heads=4, mlp_ratio=8)}, ("none", "selective")),
    "keys": (THINKING, {"self_attend": AttentionConfig(4, qk_width=512, value_width=16)}, ("none", "selective")),
    "values": (THINKING, {"self_attend": AttentionConfig(4, qk_width=16, value_width=512)}, ("none",)),
    "latents": (THINKING, {"self_attend": AttentionConfig(4, qk_width=4)}, ("none", "selective", "blocks")),
    "reads": (READING, {}, ("none", "blocks", "layers", "selective")),
    "values of reads": (READING, {"cross_attend": AttentionConfig(qk_width=8, value_width=1_024)}, ("none",)),
    "mlp of reads": (READING, {"cross_attend": AttentionConfig(qk_width=8, mlp_ratio=8)}, ("none", "selective")),
    "queries": (THINKING, {"outputs": {"image": GRID}, "layers_per_block": 2}, ("none",)),
    "text": (THINKING, {"inputs": {"text": WORDS}, "outputs": {"text": TextOutput()}}, ("none",)),
    "dropout": (THINKING, {"dropout": 0.1, "drop_path": 0.1}, ("none", "selective", "blocks")),
    "gates": (THINKING, {"mlp": "swiglu", "self_attend": AttentionConfig(4, mlp_ratio=4)}, ("none", "selective")),
    "norms": (THINKING, {"norm": "rms"}, ("none", "selective", "blocks")),
    "norms of heads": (
        THINKING,
        {"self_attend": AttentionConfig(4, qk_width=512, value_width=16, qk_norm=True)},
        ("none", "selective"),
    ),
    "places": (THINKING, {"self_attend": AttentionConfig(4, rotary=True)}, ("selective",)),
    "two frames": (THINKING, {"inputs": {"flow": STEM}, "num_latents": 8, "layers_per_block": 2}, ("none",)),
}


@pytest.mark.parametrize(("name", "policy"), [(name, policy) for name, case in DOMINATED.items() for policy in case[2]])
def test_the_part_that_most_of_the_memory_goes_to_is_planned_as_it_is_held(
    name: str, policy: ActivationCheckpointing
) -> None:
    base, change, _ = DOMINATED[name]
    config = dataclasses.replace(base, **change, activation_checkpointing=policy)
    assert BATCH * activation_bytes(config) == pytest.approx(measured_peak(config), rel=0.1)


def test_queries_that_training_does_not_ask_take_no_memory() -> None:
    def needed(train_queries: int) -> int:
        output = dataclasses.replace(GRID, train_queries=train_queries)
        return activation_bytes(dataclasses.replace(THINKING, outputs={"image": output}))

    all_of_them = GRID.num_cells
    per_query = (needed(all_of_them) - needed(1)) / (all_of_them - 1)
    assert needed(0) == needed(all_of_them)
    assert needed(100) == pytest.approx(needed(1) + 99 * per_query, rel=0.01)


def test_half_the_bytes_of_every_element_are_half_the_memory() -> None:
    # Grids are read in float32 whatever weights are.
    config = dataclasses.replace(CONFIG, cross_attend_form="plain")
    for policy in POLICIES:
        halved = activation_bytes(config, policy, bytes_per_element=2, stream_bytes=2)
        assert halved * 2 == activation_bytes(config, policy)
        assert halved < activation_bytes(config, policy, bytes_per_element=2) < 2 * halved
        assert activation_bytes(CONFIG, policy) == activation_bytes(
            dataclasses.replace(CONFIG, activation_checkpointing=policy)
        )
    halves, whole = plan(config, bytes_per_element=2, stream_bytes=2).policies, plan(config).policies
    assert {policy: 2 * found.activation_bytes for policy, found in halves.items()} == {
        policy: found.activation_bytes for policy, found in whole.items()
    }
    assert {(found.micro_batch, found.samples_per_second) for found in whole.values()} == {(None, None)}


def test_recomputing_all_costs_a_forward_pass_and_recomputing_what_is_cheap_nearly_nothing() -> None:
    found = plan(CONFIG, device=Device(2**40, 1e9)).policies
    speeds = {policy: told.samples_per_second or 0 for policy, told in found.items()}
    assert {policy: round(speeds["none"] / speed, 3) for policy, speed in speeds.items()} == {
        "none": 1,
        "selective": 1.017,
        **dict.fromkeys(("blocks", "layers", "offload"), 1.333),
    }


def test_the_smallest_policy_is_named_where_none_fits_and_half_precision_fits_twice() -> None:
    smallest = 3_000 * min(activation_bytes(CONFIG, policy) for policy in POLICIES)
    chosen = fastest_policy(CONFIG, micro_batch=3_000, memory_bytes=smallest)
    sentence = f"the smallest, {chosen}, needs {smallest / 2**30:.2f} GiB; lower the micro-batch"
    with pytest.raises(ValueError, match=rf"into {(smallest - 1) / 2**30:.2f} GiB of activations: {sentence}"):
        fastest_policy(CONFIG, micro_batch=3_000, memory_bytes=smallest - 1)
    needed = activation_bytes(CONFIG, "none", bytes_per_element=2)
    assert fastest_policy(CONFIG, micro_batch=1, memory_bytes=needed, bytes_per_element=2) == "none"
    assert fastest_policy(CONFIG, micro_batch=1, memory_bytes=needed) != "none"


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
