from dataclasses import replace

import pytest

from configs.run import RunConfig
from launch.planning.activation_policy import GIB, planned, refuse_large
from model.budget.activation_memory import activation_bytes
from model.config.perceiver import PerceiverConfig
from model.modalities.image import ImageInput
from model.outputs.label import LabelOutput
from trainer.config import TrainConfig

NETWORK = PerceiverConfig(
    inputs={"image": ImageInput(height=8, width=8)}, outputs={"label": LabelOutput(num_classes=3)}
)


def run(activation_memory_gib: float, **train: object) -> RunConfig:
    settings = replace(TrainConfig(global_batch=16), **train)
    return RunConfig(model=NETWORK, train=replace(settings, activation_memory_gib=activation_memory_gib))


def test_without_a_limit_the_network_stays_as_it_is() -> None:
    assert planned(run(0), 1) == NETWORK


def test_more_ranks_or_smaller_micro_batches_need_less_recomputation() -> None:
    enough_for_four = 4 * activation_bytes(NETWORK, "none") / GIB
    assert planned(run(enough_for_four), 4) == NETWORK
    assert planned(run(enough_for_four), 1).activation_checkpointing != "none"
    assert planned(run(enough_for_four, micro_batch=4), 1) == NETWORK


@pytest.mark.parametrize(("precision", "stream_bytes"), [("bf16", 4), ("fp16", 2)])
def test_half_precision_needs_less_and_autocast_leaves_the_residual_stream_as_it_is(
    precision: str, stream_bytes: int
) -> None:
    needed = activation_bytes(NETWORK, "none", bytes_per_element=2, stream_bytes=stream_bytes)
    enough = 16.5 * needed / GIB
    assert planned(run(enough), 1).activation_checkpointing != "none"
    assert planned(run(enough, precision=precision), 1) == NETWORK
    assert planned(run(0.9 * enough, precision=precision), 1).activation_checkpointing != "none"


def test_a_limit_that_nothing_fits_is_told_by_its_key() -> None:
    with pytest.raises(ValueError, match=r"train\.activation_memory_gib: no policy fits 16 samples"):
        planned(run(1e-9), 1)


def test_a_policy_and_a_limit_contradict_each_other() -> None:
    config = run(1.0)
    config = replace(config, model=replace(NETWORK, activation_checkpointing="blocks"))
    assert any(key == "train.activation_memory_gib" for key, _ in config.problems())


def test_a_network_larger_than_the_memory_is_refused_before_it_is_made() -> None:
    refuse_large(NETWORK)
    with pytest.raises(ValueError, match=r"model: has .* parameters, .* GiB of weights, and this machine .* GiB"):
        refuse_large(replace(NETWORK, num_latents=10**12))
