"""The needs of a network: parameters, operations, activation memory by policy, micro-batch and speed."""

from dataclasses import dataclass
from typing import get_args

from model.attention.kernel_choice import AttentionKernel, attention_kernels
from model.attention.read_forms import Form, read_form, reading
from model.budget.activation_memory import activation_bytes
from model.budget.flops import mean_trained_flops, network_cost, total, training_flops
from model.config.cost import Cost
from model.config.perceiver import ActivationCheckpointing, PerceiverConfig

POLICIES: tuple[ActivationCheckpointing, ...] = get_args(ActivationCheckpointing)
# From the fastest on: recomputed operations as a share of the forward pass' grow along this list.
BY_SPEED: tuple[ActivationCheckpointing, ...] = ("none", "selective", "layers", "blocks", "offload")
# fp32; see the trainer for how ZeRO divides them.
BYTES_PER_NUMBER = 4
# Forward and backward cost three forward passes; recomputing all of it one more.
TRAINING_PASSES: dict[ActivationCheckpointing, float] = {
    "none": 3.0,
    "selective": 3.05,
    "layers": 4.0,
    "blocks": 4.0,
    "offload": 4.0,
}


@dataclass(frozen=True)
class Device:
    """The memory and the rate of a device."""

    memory_bytes: int
    """Memory for weights, optimizer state and activations."""
    peak_flops: float
    """Operations per second that it reaches on this work."""


@dataclass(frozen=True)
class PolicyPlan:
    """The memory and the speed of one activation checkpointing policy."""

    activation_bytes: int
    """Activations of one sample."""
    micro_batch: int | None
    """The maximum number of samples that fit on the device; 0 if none does, None without a device."""
    samples_per_second: float | None
    """Samples a second at the device's peak; None without a device."""


@dataclass(frozen=True)
class SizePlan:
    """The needs of the network with a part of its latents."""

    parameters: int
    """Parameters of the network that is cut to this size."""
    flops: int
    """Operations of one sample's forward pass."""
    activation_bytes: int
    """Activations of one sample in a step with this size, under the policy of the configuration."""


@dataclass(frozen=True)
class Plan:
    """The needs of a network."""

    parts: dict[str, Cost]
    """Parameters and forward operations of each part; their sum is under "total"."""
    form: Form | None
    """The form of the cross-attention to the tokens on a CPU; None of a plug-in's network."""
    reading: dict[str, str]
    """Sentences on the forms for "cpu" and "cuda", which say what a GPU has no kernel for; none of a plug-in's."""
    policies: dict[ActivationCheckpointing, PolicyPlan]
    """The plan of each policy, by its name in model.activation_checkpointing."""
    latents: dict[int, SizePlan]
    """The plan of each size in model.nested_latents; all else is that of the largest."""
    attention: tuple[AttentionKernel, ...]
    """What each attention takes on a GPU in bf16, its precision by default, as is expected of PyTorch's rules."""


def plan(
    config: PerceiverConfig,
    *,
    device: Device | None = None,
    bytes_per_element: int = 4,
    stream_bytes: int = 4,
    beside: int = 2,
) -> Plan:
    """Return what the network needs, and what the device can do with it if there is one; bytes as activation_bytes.

    The state of training is weight and gradient, and `beside` numbers beside each weight: moments, a moving average.
    """
    parts = network_cost(config)
    whole, trained = total(parts), mean_trained_flops(config)
    policies = {}
    for policy in POLICIES if config.network is None else POLICIES[:1]:
        activations = activation_bytes(config, policy, bytes_per_element=bytes_per_element, stream_bytes=stream_bytes)
        if device is None:
            policies[policy] = PolicyPlan(activations, None, None)
            continue
        # What weights, gradients and moments leave.
        free = device.memory_bytes - whole.parameters * (2 + beside) * BYTES_PER_NUMBER
        again = (TRAINING_PASSES[policy] - 3) * trained
        speed = device.peak_flops / (training_flops(config) + again)
        policies[policy] = PolicyPlan(activations, max(free // activations, 0), speed)
    if config.network is not None:
        return Plan({**parts, "total": whole}, None, {}, policies, {}, ())
    latents = {}
    # Each as the network that is cut to it, whose table of latents is shorter.
    for num_latents in config.nested_latents:
        size = config.with_latents(num_latents)
        cost = total(network_cost(size))
        held = activation_bytes(size, bytes_per_element=bytes_per_element, stream_bytes=stream_bytes)
        latents[num_latents] = SizePlan(cost.parameters, cost.flops, held)
    kernels = attention_kernels(config, read_form(config, "cuda"))
    sentences = {kind: reading(config, kind) for kind in ("cpu", "cuda")}
    return Plan({**parts, "total": whole}, read_form(config), sentences, policies, latents, tuple(kernels))


def fastest_policy(
    config: PerceiverConfig,
    *,
    micro_batch: int,
    memory_bytes: int,
    bytes_per_element: int = 4,
    stream_bytes: int = 4,
    device: str = "cpu",
) -> ActivationCheckpointing:
    """Return the fastest policy whose activations fit into this memory; ValueError with the smallest if none does."""
    widths = {"bytes_per_element": bytes_per_element, "stream_bytes": stream_bytes}
    needed = {policy: micro_batch * activation_bytes(config, policy, device=device, **widths) for policy in BY_SPEED}
    for policy in BY_SPEED:
        if needed[policy] <= memory_bytes:
            return policy
    smallest = min(needed, key=lambda policy: needed[policy])
    raise ValueError(
        f"no policy fits {micro_batch} samples into {memory_bytes / 2**30:.2f} GiB of activations: the smallest, "
        f"{smallest}, needs {needed[smallest] / 2**30:.2f} GiB; lower the micro-batch"
    )
