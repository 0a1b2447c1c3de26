from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from configs.run import RunConfig
from launch.planning.activation_policy import GIB, planned, refuse_large
from model.budget.activation_memory import activation_bytes
from model.budget.flops import network_cost, total
from model.config.perceiver import PerceiverConfig
from model.modalities.image import ImageInput
from model.outputs.label import LabelOutput
from trainer.config import TrainConfig

Door = Callable[..., list[dict[str, Any]]]
NETWORK = PerceiverConfig(
    inputs={"image": ImageInput(height=8, width=8)}, outputs={"label": LabelOutput(num_classes=3)}
)


def run(activation_memory_gib: float, **train: object) -> RunConfig:
    settings = replace(TrainConfig(global_batch=16), **train)
    return RunConfig(model=NETWORK, train=replace(settings, activation_memory_gib=activation_memory_gib))


def test_without_a_limit_the_network_stays_as_it_is() -> None:
    assert planned(run(0), 1, "cpu") == NETWORK


def test_more_ranks_or_smaller_micro_batches_need_less_recomputation() -> None:
    enough_for_four = 4 * activation_bytes(NETWORK, "none") / GIB
    assert planned(run(enough_for_four), 4, "cpu") == NETWORK
    assert planned(run(enough_for_four), 1, "cpu").activation_checkpointing != "none"
    assert planned(run(enough_for_four, micro_batch=4), 1, "cpu") == NETWORK


@pytest.mark.parametrize(("precision", "stream_bytes"), [("bf16", 4), ("fp16", 2)])
def test_half_precision_needs_less_and_autocast_leaves_the_residual_stream_as_it_is(
    precision: str, stream_bytes: int
) -> None:
    needed = activation_bytes(NETWORK, "none", bytes_per_element=2, stream_bytes=stream_bytes)
    enough = 16.5 * needed / GIB
    assert planned(run(enough), 1, "cpu").activation_checkpointing != "none"
    assert planned(run(enough, precision=precision), 1, "cpu") == NETWORK
    assert planned(run(0.9 * enough, precision=precision), 1, "cpu").activation_checkpointing != "none"


def test_a_limit_that_nothing_fits_is_told_by_its_key() -> None:
    with pytest.raises(ValueError, match=r"train\.activation_memory_gib: no policy fits 16 samples"):
        planned(run(1e-9), 1, "cpu")


def test_a_policy_and_a_limit_contradict_each_other() -> None:
    config = run(1.0)
    config = replace(config, model=replace(NETWORK, activation_checkpointing="blocks"))
    assert any(key == "train.activation_memory_gib" for key, _ in config.problems())


def test_a_network_larger_than_the_memory_is_refused_before_it_is_made() -> None:
    refuse_large(NETWORK)
    with pytest.raises(ValueError, match=r"model: has .* parameters, .* GiB of weights, and this machine .* GiB"):
        refuse_large(replace(NETWORK, num_latents=10**12))


@pytest.mark.parametrize(
    ("precision", "width", "stream_bytes"), [("fp32", 4, 4), ("bf16", 2, 4), ("fp16", 2, 2), ("auto", 2, 4)]
)
def test_a_policy_is_chosen_for_the_micro_batch_and_the_memory_of_a_rank(
    door: Door, precision: str, width: int, stream_bytes: int
) -> None:
    calls = door("launch.planning.activation_policy.fastest_policy", "blocks")
    config = run(1.5, precision=precision, micro_batch=4)
    assert planned(config, 2, "cuda") == replace(NETWORK, activation_checkpointing="blocks")
    [given] = calls
    assert given == {
        "config": NETWORK,
        "micro_batch": 4,
        "memory_bytes": 3 * 2**29,
        "bytes_per_element": width,
        "stream_bytes": stream_bytes,
        "device": "cuda",
    }


def test_a_plug_ins_network_has_no_policies_to_choose_among() -> None:
    config = replace(run(1.0), model=replace(NETWORK, network=SimpleNamespace(kind="own")))
    with pytest.raises(ValueError, match=r"chooses among the Perceiver's policies, and model\.network is own; leave"):
        planned(config, 1, "cpu")


def test_a_network_that_fills_the_memory_exactly_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = total(network_cost(NETWORK)).parameters
    pages = parameters
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_PAGE_SIZE": 4, "SC_PHYS_PAGES": pages}[name])
    refuse_large(NETWORK)
    pages = parameters - 1
    with pytest.raises(ValueError, match=rf"^model: has {parameters:,} parameters, 0 GiB of weights, and this machine"):
        refuse_large(NETWORK)
    pages = 5 * 2**28
    large = replace(NETWORK, num_latents=2**25)
    weights = 4 * total(network_cost(large)).parameters / 2**30
    with pytest.raises(
        ValueError, match=rf" parameters, {weights:,.0f} GiB of weights, and this machine 5 GiB of memo"
    ):
        refuse_large(large)
