"""Schedules are functions of the step; groups exempt biases and normalisations from decay."""

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from trainer.config import OptimizerConfig
from trainer.optim.groups import parameter_groups
from trainer.optim.lamb import Lamb, Segment
from trainer.optim.optimizers import at_batch, keeps_moments, make, zero_state
from trainer.schedule import learning_rate


def rates(steps: int = 10, **fields: object) -> list[float]:
    return [learning_rate(OptimizerConfig(learning_rate=1.0, **fields), step, steps) for step in range(steps)]


def test_warm_up_rises_linearly_to_the_peak() -> None:
    assert rates(warmup_steps=4, schedule="constant") == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]


def test_cosine_falls_from_the_peak_to_the_final_fraction() -> None:
    values = rates(schedule="cosine", final_fraction=0.1)
    assert values[0] == 1.0
    assert values[5] == pytest.approx(0.55)
    assert all(later < earlier for earlier, later in itertools.pairwise(values))
    assert learning_rate(OptimizerConfig(learning_rate=1.0, final_fraction=0.1), 10, 10) == pytest.approx(0.1)


def test_flat_then_cosine_begins_to_fall_after_the_flat_steps() -> None:
    values = rates(schedule="flat_cosine", flat_steps=6)
    assert values[:7] == [1.0] * 7
    assert values[8] == pytest.approx((1 + math.cos(math.pi / 2)) / 2)


def test_step_decay_multiplies_at_each_named_step() -> None:
    assert rates(schedule="step", decay_steps=(3, 6)) == pytest.approx([1.0] * 3 + [0.1] * 3 + [0.01] * 4)


def test_warm_up_stable_and_decay_ends_on_its_way_to_the_final_fraction() -> None:
    values = rates(schedule="stable_decay", warmup_steps=2, cooldown_steps=4, final_fraction=0.2)
    assert values == pytest.approx([0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4])


def test_the_rate_grows_with_the_batch_where_it_is_meant_for_another_one() -> None:
    paper = OptimizerConfig(learning_rate=5e-4, reference_batch=256)
    assert at_batch(paper, 1024).learning_rate == 2e-3
    assert at_batch(paper, 64).learning_rate == 1.25e-4
    # Applied twice, it would grow twice.
    assert at_batch(at_batch(paper, 1024), 1024).learning_rate == 2e-3
    assert at_batch(replace(paper, reference_batch=0), 1024).learning_rate == 5e-4


# Every schedule, with a value for each of its keys.
SCHEDULES: dict[str, dict[str, Any]] = {
    "cosine": {"final_fraction": 0.1},
    "constant": {},
    "step": {"decay_steps": (3, 6), "decay_factor": 0.2},
    "flat_cosine": {"flat_steps": 6, "final_fraction": 0.1},
    "stable_decay": {"cooldown_steps": 4, "final_fraction": 0.1},
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_takes_its_own_keys_each_of_which_matters_and_refuses_those_of_the_others(schedule: str) -> None:
    own = SCHEDULES[schedule]
    before = rates(schedule=schedule, **own)
    for key in own:
        changed = {**own, key: (4,) if key == "decay_steps" else own[key] / 2 if key != "flat_steps" else 3}
        assert rates(schedule=schedule, **changed) != before, key
    assert list(OptimizerConfig(schedule=schedule, **own).problems()) == []
    for others in SCHEDULES.values():
        for key, value in others.items():
            found = dict(OptimizerConfig(schedule=schedule, **own, **({} if key in own else {key: value})).problems())
            assert list(found) == ([] if key in own else [key])
            assert all(f"has no effect with schedule={schedule}; leave it out" in text for text in found.values())


@pytest.mark.parametrize(("schedule", "key"), [("step", "decay_steps"), ("stable_decay", "cooldown_steps")])
def test_a_schedule_without_what_it_needs_is_refused(schedule: str, key: str) -> None:
    assert [found for found, _ in OptimizerConfig(schedule=schedule).problems()] == [key]


def test_an_optimizer_of_which_any_group_keeps_a_third_moment_keeps_more_than_two() -> None:
    first, second = (nn.Parameter(torch.zeros(2)) for _ in range(2))
    for of_first, of_second in ((False, False), (True, False), (False, True), (True, True)):
        groups = [{"params": [first], "amsgrad": of_first}, {"params": [second], "amsgrad": of_second}]
        assert keeps_moments(torch.optim.AdamW(groups)) == (not of_first and not of_second)


def test_only_biases_and_normalisations_escape_the_decay() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 3)
            self.norm = nn.LayerNorm(3)
            self.latents = nn.Parameter(self.linear.weight.new_zeros(4, 3))
            self.frozen = nn.Parameter(self.latents.detach().clone(), requires_grad=False)
            self.again = self.linear

    network = Network()
    decayed, exempt = parameter_groups(network, OptimizerConfig(weight_decay=0.1))
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert {names[id(parameter)] for parameter in decayed["params"]} == {"linear.weight", "latents"}
    assert {names[id(parameter)] for parameter in exempt["params"]} == {"linear.bias", "norm.weight", "norm.bias"}
    assert (decayed["weight_decay"], exempt["weight_decay"]) == (0.1, 0.0)


def bound(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Return the optimizer with a state, each of its tensors being a parameter of its own."""
    tensors = [tensor for group in optimizer.param_groups for tensor in group["params"]]
    zero_state(tensors, optimizer)
    if isinstance(optimizer, Lamb):
        segments = {tensor: [Segment(number, 0, tensor.numel())] for number, tensor in enumerate(tensors)}
        optimizer.bind(segments, len(tensors), torch.Tensor.clone)
    return optimizer


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_state_that_is_made_has_the_types_of_one_that_a_step_makes(dtype: torch.dtype) -> None:
    stepped, made = (torch.zeros(3, dtype=dtype, requires_grad=True) for _ in range(2))
    optimizers = [torch.optim.AdamW([tensor], fused=True) for tensor in (stepped, made)]
    stepped.grad = torch.ones_like(stepped)
    optimizers[0].step()
    zero_state([made], optimizers[1])
    first, second = optimizers[0].state[stepped], optimizers[1].state[made]
    assert {name: (each.dtype, each.shape) for name, each in second.items()} == {
        name: (each.dtype, each.shape) for name, each in first.items()
    }


def weights_after_steps(config: OptimizerConfig) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(3, 2)
    layer.weight.data = torch.randn(2, 3, generator=generator)
    layer.bias.data = torch.zeros(2)
    optimizer = bound(make(layer, config))
    for _ in range(4):
        layer.weight.grad = torch.randn(2, 3, generator=generator)
        layer.bias.grad = torch.randn(2, generator=generator)
        optimizer.step()
    return layer.weight.detach().clone()


@pytest.mark.parametrize("name", ["adamw", "lamb"])
@pytest.mark.parametrize(
    ("option", "value"),
    [("learning_rate", 0.02), ("beta1", 0.5), ("beta2", 0.5), ("epsilon", 0.3), ("weight_decay", 0.7)],
)
def test_every_option_of_an_optimizer_changes_the_weights(name: str, option: str, value: float) -> None:
    options = {"name": name, "learning_rate": 0.01, "beta1": 0.8, "beta2": 0.9, "epsilon": 1e-3, "weight_decay": 0.1}
    before = weights_after_steps(OptimizerConfig(**options))
    after = weights_after_steps(OptimizerConfig(**{**options, option: value}))
    assert (before - after).abs().max() > 1e-4


def test_the_options_are_those_of_the_papers_formula() -> None:
    config = OptimizerConfig(learning_rate=0.01, beta1=0.8, beta2=0.7, epsilon=0.3, weight_decay=0.1)
    optimizer = make(nn.Linear(3, 2), config)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    for group in (
        *optimizer.param_groups,
        *make(nn.Linear(3, 2), OptimizerConfig("lamb", 0.01, 0.8, 0.7, 0.3)).param_groups,
    ):
        assert (group["lr"], group["betas"], group["eps"]) == (0.01, (0.8, 0.7), 0.3)


@pytest.mark.parametrize("zero", ["gradient", "weight"])
def test_a_tensor_without_a_norm_or_a_direction_takes_a_plain_step(zero: str) -> None:
    tensor = torch.tensor([0.0, 0.0] if zero == "weight" else [3.0, 4.0])
    tensor.grad = torch.tensor([0.0, 0.0] if zero == "gradient" else [1.0, 1.0])
    optimizer = bound(Lamb([{"params": [tensor]}], lr=0.1, betas=(0.9, 0.99), eps=1e-6))
    before = tensor.clone()
    optimizer.step()
    # Adam's first direction is the sign of the gradient.
    torch.testing.assert_close(tensor, before - 0.1 * tensor.grad.sign())


class Launches(TorchDispatchMode):
    """Counts what a GPU would launch: views and memory that is not filled cost nothing."""

    FREE = frozenset({"view", "detach", "alias", "slice", "unbind", "select", "empty_like", "as_strided", "unsqueeze"})

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        name = func.overloadpacket.__name__
        # Numbers that lie on the device are taken one by one.
        alone = args[1] if name == "_foreach_mul_" and isinstance(args[1], list) else [None]
        self.count += 0 if name in self.FREE else len(alone)
        return func(*args, **(kwargs or {}))


def launches(num_parameters: int) -> int:
    parameters = [nn.Parameter(torch.ones(3, 5)) for _ in range(num_parameters)]
    optimizer = bound(Lamb([{"params": parameters, "weight_decay": 0.1}], lr=0.1, betas=(0.9, 0.99), eps=1e-6))
    optimizer.found_inf = torch.zeros(())
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 0.5)
    # The first step also copies the numbers of the parameters to the device.
    optimizer.step()
    with Launches() as counted:
        optimizer.step()
    return counted.count


def test_a_step_of_lamb_launches_one_kernel_a_parameter_and_a_few_for_all() -> None:
    assert launches(40) - launches(20) == 20
    assert launches(20) <= 20 + 28


def test_the_norm_of_a_tensor_in_many_parts_keeps_the_small_ones() -> None:
    parts = [torch.tensor([1e4]), *(torch.tensor([2.0]) for _ in range(300))]
    for part in parts:
        part.grad = torch.ones(1)
    optimizer = Lamb([{"params": parts}], lr=0.1, betas=(0.9, 0.99), eps=0.0)
    zero_state(parts, optimizer)
    optimizer.bind({part: [Segment(0, 0, 1)] for part in parts}, 1, torch.Tensor.clone)
    optimizer.step()
    ratio = math.sqrt(1e8 + 1_200) / math.sqrt(301)
    # In float32 each of the small squares would be lost beside the first: 6e-6 of the ratio.
    assert float(2.0 - parts[1]) / 0.1 == pytest.approx(ratio, rel=1e-6)
