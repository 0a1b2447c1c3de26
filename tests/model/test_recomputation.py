"""Every policy gives the gradients of keeping everything, to the bit, with shared weights; compiling, to 1e-5."""

import dataclasses
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from warm_start import finished

from model.config.attention import AttentionConfig
from model.config.grids import PositionsConfig
from model.config.perceiver import ActivationCheckpointing, PerceiverConfig
from model.measures.losses import cross_entropy_sum
from model.modalities.audio import AudioInput
from model.modalities.image import ImageInput
from model.outputs.label import LabelOutput
from model.perceiver import Perceiver
from model.training.recomputation import (
    Run,
    is_dear,
    kept,
    offloaded,
    recomputed,
    run_block,
    run_cross_attend,
    run_layer,
    selective,
)

FEW = PositionsConfig(num_bands=3)
IMAGE = ImageInput(height=6, width=4, positions=FEW)
CONFIG = PerceiverConfig(
    inputs={"image": IMAGE, "audio": AudioInput(num_samples=24, patch=4, positions=FEW)},
    outputs={"label": LabelOutput(num_classes=5)},
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
    chosen = config.ordered_inputs
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
    inputs = {"image": IMAGE} if form == "separable" else CONFIG.inputs
    config = dataclasses.replace(CONFIG, inputs=inputs, cross_attend_form=form)
    expected = gradients(config)
    found = gradients(dataclasses.replace(config, activation_checkpointing=policy, recompute_every_blocks=every))
    assert found.keys() == expected.keys() == {name for name, _ in Perceiver(config, seed=0).named_parameters()}
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("policy", "block", "layer", "cross_attend", "absorbed"),
    [
        ("none", kept, kept, kept, kept),
        ("blocks", recomputed, kept, recomputed, recomputed),
        ("layers", kept, recomputed, recomputed, recomputed),
        # What absorbs its projections computes its scores again by itself.
        ("selective", selective, kept, selective, kept),
        ("offload", offloaded, kept, offloaded, offloaded),
    ],
)
def test_each_policy_says_how_each_part_is_run(
    policy: ActivationCheckpointing, block: Run, layer: Run, cross_attend: Run, absorbed: Run
) -> None:
    assert run_block(policy) is block
    assert run_layer(policy) is layer
    assert [run_cross_attend(policy, absorbed=each) for each in (False, True)] == [cross_attend, absorbed]


FORWARD = [
    name
    for name in torch._C._dispatch_get_all_op_names()
    if re.fullmatch(r"aten::(_scaled_dot_product_\w+|_(flash|efficient)_attention_forward)", name)
    and "backward" not in name
]


@pytest.mark.parametrize("name", [*FORWARD, "aten::mm", "aten::addmm", "aten::bmm"])
def test_selective_keeps_every_attention_and_product_that_pytorch_has(name: str) -> None:
    packet = getattr(torch.ops.aten, name.removeprefix("aten::"))
    assert is_dear(packet.default)


def test_selective_keeps_attention_that_is_compiled_from_a_function_of_scores() -> None:
    from torch.nn.attention.flex_attention import flex_attention as _  # noqa: F401  # registers the operation

    assert is_dear(torch.ops.higher_order.flex_attention)


@pytest.mark.parametrize(
    "operation", ["native_layer_norm", "gelu", "_to_copy", "_scaled_dot_product_cudnn_attention_backward"]
)
def test_selective_computes_the_rest_again(operation: str) -> None:
    packet = getattr(torch.ops.aten, operation)
    assert not is_dear(getattr(packet, packet.overloads()[0]))
    # What is written to an array of tiles is overwritten by the next.
    assert not is_dear(torch.ops.aten.bmm.out)


class Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        self.calls.append(func.name())
        return func(*args, **(kwargs or {}))


ATTENTION: dict[str, Callable[[Tensor], Tensor]] = {
    "cudnn": lambda q: torch.ops.aten._scaled_dot_product_cudnn_attention(q, q, q, None, True)[0],
    "efficient": lambda q: torch.ops.aten._scaled_dot_product_efficient_attention(q, q, q, None, True)[0],
    "flash": lambda q: torch.ops.aten._scaled_dot_product_flash_attention(q, q, q)[0],
}


@pytest.mark.parametrize("kernel", ATTENTION)
def test_selective_runs_an_attention_of_a_gpu_once(kernel: str) -> None:
    # Tensors of shapes without numbers: the kernels themselves want a GPU.
    q = torch.empty(2, 2, 16, 8, device="meta", dtype=torch.bfloat16, requires_grad=True)
    with Counter() as counter:
        selective(lambda value: ATTENTION[kernel](value.tanh()).exp(), q).sum().backward()
    calls = counter.calls
    assert calls.count(f"aten::_scaled_dot_product_{kernel}_attention") == 1
    assert calls.count("aten::tanh") == 2


def kept_bytes(config: PerceiverConfig) -> int:
    """What autograd holds between the passes, of the latents' width."""
    held: dict[int, int] = {}

    def hold(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    built = Perceiver(config, seed=0)
    inputs = {n: torch.rand(3, *modality.shape) for n, modality in config.ordered_inputs.items()}
    weights = {p.untyped_storage().data_ptr() for p in built.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        logits = built(inputs)["label"]
    del logits
    return sum(size for pointer, size in held.items() if pointer not in weights)


def test_every_policy_keeps_less_than_none() -> None:
    config = dataclasses.replace(CONFIG, inputs={"image": IMAGE}, num_latents=32)
    everything = kept_bytes(config)
    kept = {p: kept_bytes(dataclasses.replace(config, activation_checkpointing=p)) for p in ("blocks", "layers")}
    half = kept_bytes(dataclasses.replace(config, activation_checkpointing="blocks", recompute_every_blocks=2))
    assert max(kept.values()) < half < everything


@pytest.mark.parametrize("policy", ["blocks", "layers", "selective", "offload"])
def test_gradients_under_autocast_are_equal_to_the_bit_where_blocks_share_weights(
    policy: ActivationCheckpointing,
) -> None:
    def found(config: PerceiverConfig) -> list[Tensor | None]:
        built, chosen = Perceiver(config, seed=0), config.ordered_inputs
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            # The last layer starts at 0, and nothing before it would have a gradient.
            for parameter in built.parameters():
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
        inputs = {name: torch.rand(3, *modality.shape, generator=generator) for name, modality in chosen.items()}
        with torch.autocast("cpu", torch.bfloat16):
            logits = built(inputs)["label"]
        cross_entropy_sum(logits, torch.tensor([0, 1, 2]), torch.ones(3)).backward()
        return [parameter.grad for parameter in built.parameters()]

    expected = found(CONFIG)
    # The keys' biases alone have none.
    assert sum(gradient is not None and bool(gradient.any()) for gradient in expected) > 0.8 * len(expected)
    pairs = zip(expected, found(dataclasses.replace(CONFIG, activation_checkpointing=policy)), strict=True)
    assert all(one is None or (other is not None and torch.equal(one, other)) for one, other in pairs)


COMPILED = """
import sys
sys.path.insert(0, {folder!r})
import dataclasses, torch
from {module} import CONFIG, gradients, kept_bytes
from model.attention.dispatch import attend
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
    done = finished([sys.executable, "-c", code])
    assert done.returncode == 0, done.stderr[-2000:]
