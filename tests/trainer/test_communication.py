"""What the ranks exchange, against counts of what DeepSpeed sends."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from warm_start import finished

from model.config.perceiver import PerceiverConfig
from model.modalities.points import PointsInput
from model.outputs.label import LabelOutput
from model.perceiver import Perceiver
from trainer.config import OptimizerConfig, TrainConfig
from trainer.engine.communication import Exchange, exchanges

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
    for exchange in exchanges(network(), OptimizerConfig(), told, world_size):
        sums[exchange.kind] = sums.get(exchange.kind, 0) + exchange.num_bytes
    return sums


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
