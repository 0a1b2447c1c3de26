"""What the ranks exchange, against counts of what DeepSpeed sends."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from warm_start import finished

from model.config.perceiver import PerceiverConfig
from model.modalities.points import PointsInput
from model.outputs.label import LabelOutput
from model.perceiver import Perceiver
from trainer.config import OptimizerConfig, TrainConfig
from trainer.engine.communication import Exchange, exchanges, small_messages

RunRanks = Callable[..., list[Any]]
SCENARIO = Path(__file__).parent / "scenarios" / "exchanged.py"


@pytest.mark.slow
@pytest.mark.parametrize("micro_batch", [4, 8])
def test_every_stage_exchanges_the_bytes_that_are_told_on_two_ranks(run_ranks: RunRanks, micro_batch: int) -> None:
    for told in run_ranks("exchanged", 2, micro_batch):
        assert {stage: counted for stage, (counted, _) in told.items()} == {
            stage: expected for stage, (_, expected) in told.items()
        }


@pytest.mark.slow
@pytest.mark.parametrize(("micro_batch", "world_size"), [(4, 8), (8, 5)])
def test_every_stage_exchanges_the_bytes_that_are_told_in_a_fake_group(micro_batch: int, world_size: int) -> None:
    environment = {**os.environ, "PYTHONPATH": str(SCENARIO.parents[3]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCENARIO), str(micro_batch), str(world_size)]
    found = finished(command, env=environment)
    assert found.returncode == 0, found.stderr
    for counted, expected in json.loads(found.stdout.splitlines()[-1]).values():
        assert counted == expected


def network() -> Perceiver:
    config = PerceiverConfig(
        inputs={"points": PointsInput(num_points=11, num_bands=4, max_frequency=4.0)},
        outputs={"label": LabelOutput(num_classes=5)},
        num_latents=6,
        latent_width=104,
        num_cross_attends=2,
        num_blocks=1,
        layers_per_block=2,
    )
    with torch.device("meta"):
        return Perceiver(config, seed=0)


def of(stage: int, world_size: int, micro_batch: int = 0, **train: object) -> dict[str, int]:
    told = TrainConfig(global_batch=4 * world_size, micro_batch=micro_batch, zero_stage=stage, **train)
    sums: dict[str, int] = {}
    for exchange in exchanges(network(), OptimizerConfig(), told, world_size, "cpu"):
        sums[exchange.kind] = sums.get(exchange.kind, 0) + exchange.num_bytes
    return sums


class Layers(nn.Module):
    """A weight that is as large as stage 3 gathers alone, a small bias, and a normalisation."""

    def __init__(self) -> None:
        super().__init__()
        with torch.device("meta"):
            self.linear, self.norm = nn.Linear(100, 100), nn.LayerNorm(7)


def layers(world_size: int, **train: Any) -> tuple[Exchange, ...]:  # noqa: ANN401  # any field
    told = TrainConfig(global_batch=4 * world_size, **train)
    return exchanges(Layers(), OptimizerConfig(), told, world_size, "cpu")


def test_the_exchanges_of_a_step_are_these() -> None:
    # Of 10 114 numbers 10 000 decay; each group is padded to a multiple of six.
    flat = 10_002 + 114
    for micro_batch in (0, 1):
        once = (Exchange("all_reduce", 4 * 10_114, 1, "backward"), Exchange("all_gather", 4 * flat, 2, "update"))
        assert layers(3, zero_stage=0, micro_batch=micro_batch) == once[:1]
        assert layers(3, zero_stage=1, micro_batch=micro_batch) == once
    assert layers(3, zero_stage=2, micro_batch=1) == (Exchange("all_reduce", 4 * 4 * 10_114, 4, "backward"), once[1])
    assert layers(3, zero_stage=2, micro_batch=2)[0] == Exchange("all_reduce", 2 * 4 * 10_114, 2, "backward")
    half = Exchange("all_reduce", 2 * 10_114, 1, "backward")
    assert layers(3, zero_stage=1, gradient_dtype="bf16") == (half, once[1])
    assert layers(3, zero_stage=1, precision="fp16") == (half, Exchange("all_gather", 2 * flat, 2, "update"))
    # 10 000 is a multiple of twice five; of 114 the next one is 120.
    assert layers(5, zero_stage=1)[1] == Exchange("all_gather", 4 * (10_000 + 120), 2, "update")


@pytest.mark.parametrize(("micro_batch", "times"), [(0, 1), (1, 4)])
def test_stage_3_exchanges_large_weights_in_each_micro_batch_and_small_ones_once(micro_batch: int, times: int) -> None:
    large, small = 10_002, 102 + 9 + 9
    assert layers(3, zero_stage=3, micro_batch=micro_batch) == (
        Exchange("reduce_scatter", times * 4 * (large + small), times, "backward"),
        Exchange("all_gather", times * 4 * large, times, "passes"),
        Exchange("all_gather", 4 * small, 3, "update"),
    )


def test_stage_3_has_no_exchange_of_what_is_not_there() -> None:
    for network, passes in ((nn.Linear(100, 100, bias=False), "passes"), (nn.LayerNorm(7), "update")):
        _, only = exchanges(network, OptimizerConfig(), TrainConfig(global_batch=2, zero_stage=3), 2, "cpu")
        assert only.during == passes


def test_what_does_not_fit_into_a_bucket_takes_several_calls() -> None:
    with torch.device("meta"):
        network = nn.Linear(1_000, 100_050, bias=False)
    bucketed = TrainConfig(global_batch=2, zero_stage=1, gradient_bucket_mib=100)
    gradients, weights = exchanges(network, OptimizerConfig(), bucketed, 2, "cpu")
    # 100 MiB of fp32 are 26 214 400 numbers; weights are gathered 50 000 000 at a time.
    assert (gradients.calls, weights.calls) == (4, 3)
    _, gathered = exchanges(network, OptimizerConfig(), TrainConfig(global_batch=2, zero_stage=3), 2, "cpu")
    assert gathered.calls == 3
    # One more than DeepSpeed gathers at once.
    with torch.device("meta"):
        network = nn.Linear(50_000_001, 1, bias=False)
    _, gathered = exchanges(network, OptimizerConfig(), TrainConfig(global_batch=3, zero_stage=3), 3, "cpu")
    assert gathered.calls == 2


def test_counts_and_losses_are_a_few_sums_a_step() -> None:
    stages = [TrainConfig(zero_stage=stage) for stage in range(4)]
    assert [small_messages(train, 2) for train in stages] == [2, 3, 3, 4]
    assert [small_messages(train, 1) for train in stages] == [0] * 4


def test_one_rank_exchanges_nothing() -> None:
    assert all(of(stage, 1) == {} for stage in range(4))


def test_stages_0_to_2_sum_whole_gradients_and_stage_2_in_each_micro_batch() -> None:
    numel = sum(parameter.numel() for parameter in network().parameters())
    assert of(0, 8) == {"all_reduce": 4 * numel}
    assert of(1, 8, micro_batch=1)["all_reduce"] == 4 * numel
    assert of(2, 8, micro_batch=1)["all_reduce"] == 4 * 4 * numel
    assert of(1, 8)["all_gather"] - 4 * numel in range(4 * 2 * 16)


def test_stage_3_gathers_and_scatters_in_each_micro_batch() -> None:
    once, often = of(3, 8), of(3, 8, micro_batch=1)
    assert often["reduce_scatter"] == 4 * once["reduce_scatter"]
    # What is below the threshold is gathered once, after the update.
    assert once["all_gather"] < often["all_gather"] < 4 * once["all_gather"]


def test_half_precision_that_is_autocast_exchanges_float32_and_float16_exchanges_half() -> None:
    assert of(1, 8, precision="bf16") == of(1, 8)
    assert {kind: 2 * num_bytes for kind, num_bytes in of(1, 8, precision="fp16").items()} == of(1, 8)


def test_a_ring_sends_what_is_summed_nearly_twice_and_what_is_gathered_nearly_once() -> None:
    assert Exchange("all_reduce", 800, 1, "backward").sent_bytes(8) == 1400
    assert Exchange("all_gather", 800, 1, "update").sent_bytes(8) == 700
    assert Exchange("reduce_scatter", 800, 1, "backward").sent_bytes(2) == 400


def test_a_single_bucket_hides_behind_nothing_and_ten_hide_all_but_the_last() -> None:
    assert Exchange("all_reduce", 800, 1, "backward").hidden_share == 0
    assert Exchange("all_reduce", 800, 10, "backward").hidden_share == pytest.approx(0.9)
    assert Exchange("all_gather", 800, 10, "update").hidden_share == 0
