"""What a submission checks: what is exactly enough is enough, and a plan is told in sentences."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from configs.run import RunConfig
from data_shards.config import DataConfig
from launch.lifecycle.cluster import ClusterConfig
from launch.lifecycle.run_folder import RunFolder
from launch.planning.frozen_parameters import Share, num_frozen
from launch.planning.plan import Plan, _existing, _problems, device_type, make, memory, parts_of_state, state_bytes
from model.budget.activation_memory import activation_bytes
from model.budget.flops import network_cost, total
from model.config.perceiver import PerceiverConfig
from model.modalities.image import ImageInput
from model.outputs.label import LabelOutput
from trainer.config import OptimizerConfig, TrainConfig
from trainer.ema_config import EmaConfig

GIB = 2**30
PLAN = Plan(
    world_size=4,
    micro_batches=2,
    parameters=1_500,
    state_bytes=2 * GIB,
    activation_bytes=GIB,
    checkpoint_bytes=GIB // 2,
    has_average=False,
    kept_checkpoints=3,
    free_bytes=10 * GIB,
    save_seconds=7.25,
    is_measured=False,
)
NETWORK = PerceiverConfig(
    inputs={"image": ImageInput(height=8, width=8)}, outputs={"label": LabelOutput(num_classes=3)}, num_blocks=2
)


def test_a_plan_is_told_in_sentences() -> None:
    assert list(PLAN.sentences()) == [
        "4 ranks, 2 micro-batches per step, 1,500 parameters",
        "2.000 GiB per rank for weights, gradients and moments, 1.000 GiB for the activations of a micro-batch",
        "3 checkpoints take 1.500 GiB of 10 GiB that are free",
        "a stop takes a step and 7.25 s for its save (at 200 MB/s; not measured yet)",
    ]
    one = replace(PLAN, world_size=1, micro_batches=1, parameters=1, kept_checkpoints=1, has_average=True)
    assert list(replace(one, is_measured=True).sentences()) == [
        "1 rank, 1 micro-batch per step, 1 parameter",
        "2.000 GiB per rank for weights, gradients, moments and moving average, 1.000 GiB for the activations of a "
        "micro-batch",
        "1 checkpoint takes 0.500 GiB of 10 GiB that are free",
        "a stop takes 7.2 s (measured)",
    ]
    assert parts_of_state(True) == "weights, gradients, moments and moving average"


NODE = ClusterConfig(processes_per_node=2, memory_gib=6, signal_seconds=15)
GPU = ClusterConfig(gpus_per_node=2, gpu_memory_gib=3, memory_gib=1, signal_seconds=15)


@pytest.mark.parametrize(
    ("changes", "profile", "beginnings"),
    [
        ({}, NODE, []),
        ({}, GPU, []),
        ({}, replace(GPU, gpus_per_node=0, gres="gpu:2"), []),
        # Nobody said how much memory there is.
        ({"state_bytes": 900 * GIB}, replace(NODE, memory_gib=0), []),
        ({"state_bytes": 900 * GIB}, replace(GPU, gpu_memory_gib=0), []),
        # The memory of a GPU where there is none.
        ({}, replace(NODE, gpu_memory_gib=1), []),
        (
            {"state_bytes": 2 * GIB + 1},
            NODE,
            ["a node's ranks need 6.0 GiB, memory_gib is 6; raise it or use more nodes, a higher train.zero_stage, "],
        ),
        (
            {"activation_bytes": GIB + 1},
            GPU,
            ["a rank needs 3.0 GiB, gpu_memory_gib is 3; use more nodes, a higher train.zero_stage, a smaller "],
        ),
        ({"state_bytes": 3 * GIB}, replace(GPU, gpus_per_node=0, gres="gpu:2"), ["a rank needs 4.0 GiB, "]),
        ({"free_bytes": 3 * GIB // 2}, NODE, []),
        ({"free_bytes": 3 * GIB // 2 - 1}, NODE, ["checkpoints need 1.5 GiB, 1.5 GiB are free; put the run "]),
        ({"save_seconds": 7.5}, NODE, []),
        ({"save_seconds": 7.75}, NODE, ["signal_seconds is 15, but a stop takes 8 s; set it to 31, or the "]),
    ],
)
def test_what_is_exactly_enough_is_enough(
    changes: dict[str, Any], profile: ClusterConfig, beginnings: Sequence[str]
) -> None:
    found = list(_problems(replace(PLAN, **changes), profile))
    assert len(found) == len(beginnings)
    assert all(sentence.startswith(beginning) for sentence, beginning in zip(found, beginnings, strict=True)), found


def test_a_state_is_what_each_stage_leaves_on_a_rank() -> None:
    # 100 weights, 80 of them trained with a gradient and 2 moments each, of 4 bytes.
    by_hand = [400 + 320 + 640, 400 + 320 + 640 // 4, 400 + (320 + 640) // 4, (400 + 320 + 640) // 4]
    assert [state_bytes(100, stage, 4, frozen=20) for stage in range(4)] == by_hand
    assert [state_bytes(100, stage, 4, beside=3) for stage in range(4)] == [2000, 1100, 800, 500]


def config(**train: Any) -> RunConfig:  # noqa: ANN401
    return RunConfig(model=NETWORK, train=replace(TrainConfig(global_batch=32), **train))


@pytest.mark.parametrize(
    ("profile", "device"),
    [
        (ClusterConfig(nodes=2), "cpu"),
        (ClusterConfig(nodes=2, gpus_per_node=1), "cuda"),
        (ClusterConfig(nodes=2, gres="gpu:1"), "cuda"),
    ],
)
def test_activations_are_those_of_the_samples_of_a_micro_batch_on_its_device(
    profile: ClusterConfig, device: str
) -> None:
    _, found = memory(config(micro_batch=4, precision="fp32"), profile, Share())
    assert found == 4 * activation_bytes(NETWORK, None, device=device)
    _, half = memory(config(micro_batch=4, precision="fp32"), profile, Share(activations=0.5))
    assert half == round(found / 2)
    # What `auto` means is decided by where the job trains, and not by where it is planned.
    means = "bf16" if device == "cuda" else "fp32"
    by_word, by_name = (memory(config(precision=precision), profile, Share()) for precision in ("auto", means))
    assert by_word == by_name


@pytest.mark.parametrize(
    ("precision", "policy", "copies"),
    [("bf16", "none", 2), ("bf16", "selective", 2), ("bf16", "blocks", 0), ("fp32", "none", 0), ("fp16", "none", 0)],
)
def test_autocast_keeps_a_copy_of_each_weight_where_layers_are_not_computed_again(
    precision: str, policy: str, copies: int
) -> None:
    network = replace(NETWORK, activation_checkpointing=policy)
    run = replace(config(precision=precision), model=network)
    widths = {"bytes_per_element": 4 if precision == "fp32" else 2, "stream_bytes": 2 if precision == "fp16" else 4}
    expected = 32 * activation_bytes(network, None, device="cpu", **widths)
    _, found = memory(run, ClusterConfig(), Share())
    assert found == expected + copies * total(network_cost(NETWORK)).parameters


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        (ClusterConfig(sbatch={"gpus": 8}), "cuda"),
        (ClusterConfig(sbatch={"gpus-per-task": 1}), "cuda"),
        (ClusterConfig(srun_arguments=("--gpus-per-task=1",)), "cuda"),
        (ClusterConfig(sbatch={"gpus": False}), "cpu"),
        (ClusterConfig(gres="tmpdisk:100"), "cpu"),
        (ClusterConfig(gres="gpu:h100:4"), "cuda"),
        (ClusterConfig(sbatch={"reservation": "team"}), "cpu"),
        # This machine, whatever the profile asks for.
        (ClusterConfig(scheduler="local"), "here"),
    ],
)
def test_a_job_has_gpus_however_it_asks_for_them(
    monkeypatch: pytest.MonkeyPatch, profile: ClusterConfig, expected: str
) -> None:
    monkeypatch.setattr("launch.planning.plan.local_device_type", lambda: "here")
    assert device_type(profile) == expected


def test_the_state_has_moments_and_the_average_of_what_is_trained() -> None:
    parameters = total(network_cost(NETWORK)).parameters
    average = replace(config(), ema=EmaConfig(decay=0.5))
    assert memory(average, ClusterConfig(), Share())[0] == 4 * 5 * parameters
    frozen = replace(config(), optimizer=OptimizerConfig(freeze=("encoder.*",)))
    assert 0 < num_frozen(frozen) < parameters
    # Of what is frozen the weights alone.
    assert memory(frozen, ClusterConfig(), Share())[0] == 4 * (4 * parameters - 3 * num_frozen(frozen))


def test_a_run_that_is_not_made_yet_lies_on_the_disk_of_the_nearest_folder(tmp_path: Path) -> None:
    assert _existing(tmp_path / "a" / "b") == tmp_path
    (tmp_path / "a").mkdir()
    assert _existing(tmp_path / "a" / "b") == tmp_path / "a"
    assert _existing(tmp_path / "a") == tmp_path / "a"


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_a_plan_says_whether_an_average_is_kept(shards: Path, tmp_path: Path, decay: float) -> None:
    run = replace(config(), data=DataConfig(shards=str(shards)), ema=EmaConfig(decay=decay))
    found = make(run, ClusterConfig(), RunFolder(tmp_path / "run"))
    assert found.has_average == (decay > 0)
    assert (found.world_size, found.parameters) == (1, total(network_cost(NETWORK)).parameters)
    assert found.checkpoint_bytes == 4 * (3 + (decay > 0)) * found.parameters
