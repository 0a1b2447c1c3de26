"""The work of a step, against a count of what the network's own step moves and multiplies."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch._ops import OpOverload
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from model.attention.layers import SelfAttend
from model.budget.flops import network_cost, total
from model.budget.hardware import HARDWARE
from model.budget.plan import Device, plan
from model.budget.step_cost import StepSeconds, StepWork, step_seconds, step_work
from model.config.attention import AttentionConfig
from model.config.perceiver import PerceiverConfig
from model.modalities.points import PointsInput
from model.outputs.grid import GridOutput
from model.outputs.label import LabelOutput
from model.training.dropout import layer_draws

PRODUCTS = ("mm", "addmm", "bmm", "_scaled_dot_product")


class Moved(TorchDispatchMode):
    """Bytes that operations read and write, products left out."""

    def __init__(self) -> None:
        super().__init__()
        self.num_bytes = 0

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> object:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if not func.is_view and not name.startswith(PRODUCTS) and name not in ("detach", "ones_like", "_unsafe_view"):
            self.num_bytes += _bytes((args, out))
        return out


def _bytes(values: object) -> int:
    if isinstance(values, torch.Tensor):
        return values.nbytes
    return sum(map(_bytes, values)) if isinstance(values, list | tuple) else 0


def config(**changes: object) -> PerceiverConfig:
    network = PerceiverConfig(
        inputs={"points": PointsInput(num_points=11, num_bands=4, max_frequency=4.0)},
        outputs={"label": LabelOutput(num_classes=5)},
        num_latents=64,
        latent_width=64,
        num_cross_attends=1,
        num_blocks=2,
        layers_per_block=3,
    )
    return replace(network, **changes)


@pytest.mark.parametrize("mlp_ratio", [1, 4])
def test_the_elementwise_traffic_of_layers_is_what_they_move(mlp_ratio: int) -> None:
    attention = AttentionConfig(num_heads=4, mlp_ratio=mlp_ratio)
    layer = SelfAttend(64, attention, "tanh")
    latents = torch.randn(2, 64, 64, requires_grad=True)
    with Moved() as moved:
        layer(latents).sum().backward()
    told = [step_work(config(num_blocks=n, self_attend=attention), "fp32").moved_bytes for n in (2, 3)]
    # Of one layer and one sample; an upper bound where operations were fused since.
    of_layer = (told[1] - told[0]) / 3
    assert moved.num_bytes / 2 == pytest.approx(of_layer, rel=0.1)


@pytest.mark.parametrize(
    ("options", "of_attention"),
    [
        ({"norm": "rms"}, {}),
        ({"mlp": "geglu"}, {}),
        ({}, {"qk_norm": True}),
        ({}, {"rotary": True}),
        ({"dropout": 0.1}, {}),
        ({"drop_path": 0.1}, {}),
    ],
)
def test_the_elementwise_traffic_of_an_option_is_what_it_moves(
    options: dict[str, Any], of_attention: dict[str, bool]
) -> None:
    attention = AttentionConfig(num_heads=4, mlp_ratio=2, **of_attention)
    layer = SelfAttend(64, attention, "tanh", **{key: value for key, value in options.items() if key != "drop_path"})
    latents = torch.randn(2, 64, 64, requires_grad=True)
    draws = layer_draws(torch.zeros(2, 2, dtype=torch.int64), 2, drop_path=options.get("drop_path", 0.0))[-1]
    with Moved() as moved:
        layer(latents, draws).sum().backward()
    network = config(self_attend=attention, **options)
    told = [step_work(replace(network, num_blocks=n), "fp32").moved_bytes for n in (2, 3)]
    assert moved.num_bytes / 2 == pytest.approx((told[1] - told[0]) / 3, rel=0.1)


def test_the_products_are_three_times_the_forward_passes_but_for_what_the_reads_have() -> None:
    attention = AttentionConfig(num_heads=4)
    layer = SelfAttend(64, attention, "tanh")
    # As products, which the counter knows.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:
        layer(torch.randn(1, 64, 64))
    told = [step_work(config(num_blocks=n, self_attend=attention), "fp32").products for n in (2, 3)]
    assert (told[1] - told[0]) / 3 == 3 * counted.get_total_flops()


def test_each_further_cross_attend_sums_the_gradients_of_keys_and_values() -> None:
    # Without layers of latents between them, what grows with the tokens is this sum alone.
    def moved(num_cross_attends: int, num_points: int) -> float:
        network = config(num_cross_attends=num_cross_attends, cross_attend_form="plain")
        points = replace(next(iter(network.inputs.values())), num_points=num_points)
        return step_work(replace(network, inputs=dict.fromkeys(network.inputs, points)), "fp32").moved_bytes

    per_token = [(moved(number, 64) - moved(number, 32)) / 32 for number in (1, 2, 3)]
    widths = sum(config().cross_attend.widths(config().token_width))
    assert [later - one for one, later in pairwise(per_token)] == pytest.approx([4 * 3 * widths] * 2)


def test_products_and_the_papers_reads_are_all_of_the_papers_count() -> None:
    network = config()
    F, V = network.cross_attend.widths(network.token_width)
    with_tokens = 2 * network.num_tokens * (network.token_width + network.num_latents) * (F + V)
    assert step_work(network, "fp32").products == 3 * (total(network_cost(network)).flops - with_tokens)


def test_what_a_policy_computes_again_is_in_every_part() -> None:
    kept = step_work(config(), "fp32")
    again = step_work(config(activation_checkpointing="blocks"), "fp32")
    for part in ("products", "reads", "softmax", "moved_bytes"):
        assert getattr(again, part) == pytest.approx(4 / 3 * getattr(kept, part))


def test_seconds_grow_with_the_samples_and_fall_with_the_device() -> None:
    work = step_work(config(), "bf16")
    few, many = (step_seconds(work, samples, HARDWARE["H100"], "bf16") for samples in (1, 8))
    assert many.whole == pytest.approx(8 * few.whole)
    faster = step_seconds(work, 8, HARDWARE["H200"], "bf16")
    # The same arithmetic, a faster memory.
    assert faster.products == many.products
    assert faster.elementwise < many.elementwise
    assert step_seconds(work, 8, HARDWARE["A100"], "bf16").products > many.products


def test_the_seconds_of_each_part_are_its_work_by_what_the_device_reaches_of_its_peak() -> None:
    peaks = {"fp32_flops": 100.0, "half_flops": 400.0, "memory_bytes_per_second": 40.0}
    device = replace(HARDWARE["H100"], **peaks, product_share=0.5, memory_share=0.25)
    work = StepWork(products=100.0, reads=50.0, softmax=25.0, moved_bytes=20.0)
    # 50 operations and 10 bytes a second.
    found = step_seconds(work, 3, device, "fp32")
    assert found == StepSeconds(products=6.0, reads=3.0, elementwise=3 * (2.0 + 0.5))
    assert found.whole == 16.5
    assert step_seconds(work, 3, device, "bf16") == StepSeconds(products=1.5, reads=0.75, elementwise=6.0 + 0.375)


def test_an_answer_of_the_mean_of_the_latents_asks_for_no_query() -> None:
    grid, label = GridOutput(shape=(4, 4), num_channels=3), LabelOutput(num_classes=5)
    alone, both = (step_work(config(outputs=outputs), "fp32") for outputs in ({"g": grid}, {"g": grid, "l": label}))
    assert both.moved_bytes == alone.moved_bytes


def test_training_costs_the_queries_that_it_asks_for() -> None:
    grid = GridOutput(shape=(40, 40), num_channels=3)
    few, all_of_them = (config(outputs={"grid": replace(grid, train_queries=asked)}) for asked in (16, 0))
    same = config(outputs={"grid": GridOutput(shape=(4, 4), num_channels=3)})
    assert step_work(few, "fp32") == step_work(same, "fp32")
    assert step_work(few, "fp32").products < 0.5 * step_work(all_of_them, "fp32").products
    a_device = Device(memory_bytes=10**9, peak_flops=1e12)
    told = [plan(of, device=a_device).policies["none"].samples_per_second for of in (few, same, all_of_them)]
    assert told[0] == told[1] > told[2]
