"""The plan of a run on a cluster, as arithmetic and through the command."""

import json
import math
from dataclasses import astuple, replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from typer.testing import CliRunner

from configs.reader import ConfigError
from configs.run import RunConfig
from launch.cli.main import app
from launch.lifecycle.cluster import ClusterConfig
from launch.planning import plan
from launch.planning.cluster_plan import Cluster, cluster_plan, communication, faults_of
from launch.planning.frozen_parameters import Share, num_frozen, trained_share
from launch.planning.goodput import best_interval, goodput
from model.budget.flops import network_cost, total
from model.budget.hardware import HARDWARE
from model.budget.step_cost import step_seconds, step_work
from model.config.perceiver import PerceiverConfig
from model.modalities.points import PointsInput
from model.outputs.label import LabelOutput
from model.perceiver import Perceiver
from trainer.config import CheckpointConfig, OptimizerConfig, TrainConfig
from trainer.ema_config import EmaConfig
from trainer.engine.communication import exchanges, small_messages

PAPER = Path(__file__).parents[2] / "configs" / "paper"
CLUSTER = Cluster(
    nodes=16,
    gpus=8,
    device=HARDWARE["H100"],
    interconnect_bytes_per_second=50e9,
    disk_bytes_per_second=2e9,
    commit_seconds=0.5,
    node_mtbf_seconds=2000 * 3600,
    restart_seconds=300,
)
NETWORK = PerceiverConfig(
    inputs={"points": PointsInput(num_points=512, num_bands=16, max_frequency=20.0)},
    outputs={"label": LabelOutput(num_classes=40)},
    num_latents=128,
    latent_width=512,
    num_cross_attends=2,
    num_blocks=2,
    layers_per_block=6,
)
# Several buckets of gradients: what is sent in one alone is hidden behind nothing.
WIDE = replace(NETWORK, latent_width=2048)
CONFIG = RunConfig(model=NETWORK, train=TrainConfig(global_batch=8192, precision="bf16"))


def train(**changes: object) -> RunConfig:
    return replace(CONFIG, train=replace(CONFIG.train, **changes))


def test_the_parts_of_a_step_add_up_and_give_the_samples_a_second() -> None:
    found = cluster_plan(CONFIG, CLUSTER)
    assert set(found.step) == {"products", "reads", "elementwise", "update", "communication"}
    assert sum(found.step.values()) == pytest.approx(found.step_seconds)
    assert found.samples_per_second == pytest.approx(8192 / found.step_seconds)


def test_scaling_efficiency_falls_with_slower_interconnects() -> None:
    rates = [400e9, 50e9, 12.5e9, 1.25e9]
    efficiencies = [
        cluster_plan(CONFIG, replace(CLUSTER, interconnect_bytes_per_second=rate)).efficiency for rate in rates
    ]
    assert efficiencies == sorted(efficiencies, reverse=True)
    assert len(set(efficiencies)) == len(rates)
    assert all(0 < efficiency < 1 for efficiency in efficiencies)


def test_one_rank_exchanges_nothing_and_is_wholly_efficient() -> None:
    found = cluster_plan(CONFIG, replace(CLUSTER, nodes=1, gpus=1))
    assert found.efficiency == 1
    assert all(each.seconds == 0 for each in found.communication.values())


def test_one_node_does_not_wait_for_its_interconnect() -> None:
    one = replace(CLUSTER, nodes=1)
    slow = replace(one, interconnect_bytes_per_second=1.0)
    assert cluster_plan(CONFIG, slow) == cluster_plan(CONFIG, one)


@pytest.mark.parametrize(
    ("stage", "device", "num_gpus"), [(0, "H100", 8), (1, "H100", 8), (2, "H100", 8), (3, "H100", 8), (3, "CPU", 0)]
)
def test_the_memory_of_a_rank_is_that_of_a_submission(stage: int, device: str, num_gpus: int) -> None:
    config = train(zero_stage=stage, micro_batch=16)
    found = cluster_plan(config, replace(CLUSTER, device=HARDWARE[device]))
    profile = ClusterConfig(nodes=16, processes_per_node=8, gpus_per_node=num_gpus)
    assert (found.state_bytes, found.activation_bytes) == plan.memory(config, profile, Share())
    assert found.checkpoint_bytes == plan.checkpoint_bytes(config)


def test_what_is_frozen_takes_no_backward_pass_no_activations_and_no_state() -> None:
    small = replace(NETWORK, num_latents=16, latent_width=64, num_blocks=1, layers_per_block=2)

    def frozen(*freeze: str) -> RunConfig:
        return replace(CONFIG, model=small, optimizer=OptimizerConfig(freeze=freeze))

    # What is trained later needs all of it then.
    assert trained_share(frozen()) == trained_share(frozen("encoder.*=9")) == Share(1.0, 1.0)
    # Nothing is trained before the decoder: of three passes through the rest, forward is left.
    encoder, latents = trained_share(frozen("encoder.*")), trained_share(frozen("encoder.*", "encoder.latents.*=0"))
    assert encoder.operations == pytest.approx(1 / 3, abs=0.1)
    assert encoder.activations < 0.02
    # The gradient passes through the layers to the latents, and to no weight of them.
    assert encoder.operations < latents.operations < 0.9
    assert encoder.activations < latents.activations < 0.9
    assert trained_share(frozen("decoder.*")).operations == pytest.approx(1, abs=0.05)

    whole, part = (cluster_plan(config, CLUSTER) for config in (frozen(), frozen("encoder.*")))
    for name in ("products", "reads", "elementwise"):
        assert part.step[name] == pytest.approx(encoder.operations * whole.step[name])
    assert part.activation_bytes < 0.1 * whole.activation_bytes
    assert part.state_bytes < whole.state_bytes


def test_overlap_never_takes_longer_and_leaves_the_last_bucket() -> None:
    found = cluster_plan(replace(CONFIG, model=WIDE), CLUSTER).communication
    for stage, each in found.items():
        assert 0 < each.overlapped_seconds <= each.seconds, stage
    assert found[0].overlapped_seconds < 0.6 * found[0].seconds


def test_stage_3_overlaps_by_itself_and_the_lower_ones_when_told() -> None:
    assert cluster_plan(train(zero_stage=3), CLUSTER).overlaps
    lower = cluster_plan(train(zero_stage=1), CLUSTER)
    assert lower.step["communication"] == (
        lower.communication[1].overlapped_seconds if lower.overlaps else lower.communication[1].seconds
    )


def test_exchanges_run_beside_the_backward_pass_where_a_gpu_would_do_so() -> None:
    assert cluster_plan(train(zero_stage=1), CLUSTER).overlaps
    assert not cluster_plan(train(zero_stage=1), replace(CLUSTER, device=HARDWARE["CPU"])).overlaps
    told = train(zero_stage=1, gradient_exchange="after_backward")
    assert not cluster_plan(told, CLUSTER).overlaps


def test_gradients_of_half_the_width_send_less() -> None:
    whole, half = (cluster_plan(train(gradient_dtype=width), CLUSTER) for width in ("fp32", "bf16"))
    for stage in (0, 1, 2):
        assert half.communication[stage].sent_bytes < whole.communication[stage].sent_bytes


def test_failures_come_as_often_as_there_are_nodes() -> None:
    few, many = cluster_plan(CONFIG, CLUSTER), cluster_plan(CONFIG, replace(CLUSTER, nodes=128))
    assert few.job_mtbf_seconds == 8 * many.job_mtbf_seconds == 2000 * 3600 / 16
    assert few.goodput.useful > many.goodput.useful
    assert few.interval_steps * few.step_seconds > many.interval_steps * many.step_seconds


def test_a_slower_disk_takes_longer_and_a_blocking_save_holds_the_training_up() -> None:
    slow = replace(CLUSTER, disk_bytes_per_second=1e6)
    beside = cluster_plan(CONFIG, slow)
    blocking = cluster_plan(replace(CONFIG, checkpoint=CheckpointConfig(asynchronous=False)), slow)
    assert beside.save_seconds == blocking.save_seconds > cluster_plan(CONFIG, CLUSTER).save_seconds
    assert blocking.stall_seconds == blocking.save_seconds > beside.stall_seconds
    assert blocking.goodput.useful < beside.goodput.useful


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="does not divide over 128 processes"):
        cluster_plan(train(global_batch=100), CLUSTER)


def called(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["plan", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


ASKED = ("--nodes", "128", "--gpus", "8", "--interconnect", "400Gb", "--mtbf-hours", "2000", "--bf16")


def test_the_command_prints_a_table_and_the_same_as_json() -> None:
    table = called(str(PAPER / "p1.yaml"), *ASKED)
    found = json.loads(called(str(PAPER / "p1.yaml"), *ASKED, "--json"))
    assert found["world_size"] == 1024
    assert found["global_batch"] == 64 * 1024
    for words in ("products", "reads", "elementwise", "ZeRO 3", "scaling efficiency", "goodput", "not measured"):
        assert words in table
    assert f"checkpoint.save_every_steps={found['interval_steps']}" in table
    assert f"{found['goodput']['useful']:.2%}" in table
    assert f"{found['samples_per_second']:.1f}" in table


def test_keys_of_the_training_can_be_told_beside_a_network_alone() -> None:
    asked = ("train.global_batch=2048", "train.zero_stage=2", "--nodes", "2", "--json")
    found = json.loads(called(str(PAPER / "p1.yaml"), *asked))
    assert (found["global_batch"], found["zero_stage"], found["precision"]) == (2048, 2, "bf16")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--nodes", "0"], "--nodes: expected a count from 1"),
        (["--nodes", "-3"], "--nodes: expected a count from 1"),
        (["--nodes", "2", "--gpus", "0"], "--gpus: expected a count from 1"),
        (["--nodes", "2", "--interconnect", "400"], "--interconnect: expected a rate such as 400Gb"),
        (["--nodes", "2", "--disk", "fast"], "--disk: expected a rate"),
        (["--nodes", "2", "--mtbf-hours", "0"], "--mtbf-hours: expected the hours"),
        (["--nodes", "2", "--mtbf-hours", "nan"], "--mtbf-hours: expected the hours"),
        (["--nodes", "2", "--restart-minutes", "-1"], "--restart-minutes: expected 0 or more"),
        (["--nodes", "2", "--device", "V100"], "--device: expected one of H100, H200, A100, CPU"),
        (["--gpus", "8"], "--gpus: describes a cluster and needs --nodes"),
        (["--mtbf-hours", "2000"], "--mtbf-hours: describes a cluster and needs --nodes"),
        (["--nodes", "3", "train.global_batch=100"], "does not divide over 24 processes"),
    ],
)
def test_a_flag_that_makes_no_sense_is_one_sentence(arguments: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as refused:
        called(str(PAPER / "p1.yaml"), *arguments)
    assert len(str(refused.value).splitlines()) == 1


def test_a_gpu_fuses_element_wise_work_where_it_compiles_which_is_not_at_stage_3() -> None:
    found = {(stage, setting): elementwise(stage, setting) for stage in (1, 3) for setting in ("auto", False)}
    assert found[1, "auto"] < 0.8 * found[1, False]
    assert found[3, "auto"] == found[3, False] == found[1, False]


def elementwise(stage: int, setting: Literal["auto", False]) -> float:
    config = replace(train(zero_stage=stage), model=replace(NETWORK, compile=setting))
    return cluster_plan(config, CLUSTER).step["elementwise"]


def test_what_a_run_would_refuse_is_not_planned() -> None:
    asked = ("--nodes", "2", "train.zero_stage=3", "optimizer.name=lamb", "model.compile=true")
    with pytest.raises(ConfigError) as refused:
        called(str(PAPER / "p1.yaml"), *asked)
    assert [problem.partition(" =")[0] for problem in refused.value.problems] == ["optimizer.name", "model.compile"]


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_an_exchange_hides_no_longer_than_what_it_runs_beside(stage: int) -> None:
    config = train(zero_stage=stage)
    slow = replace(CLUSTER, interconnect_bytes_per_second=1.0)
    with torch.device("meta"):
        network = Perceiver(WIDE, seed=0)
    found = exchanges(network, config.optimizer, config.train, slow.world_size, "cpu")
    # The backward pass is two thirds of the computation; beside an update there is nothing.
    windows = {"backward": 2 / 3, "passes": 1.0, "update": 0.0}
    assert {each.during for each in found if each.hidden_share} == {"passes" if stage == 3 else "backward"}
    for computation in (1000.0, 3000.0):
        plan = communication(network, config, slow, computation=computation)
        hidden = sum(windows[each.during] * computation for each in found if each.hidden_share)
        assert plan.seconds - plan.overlapped_seconds == pytest.approx(hidden)


@pytest.mark.parametrize(
    ("nodes", "gpus", "rate", "hops"),
    [(1, 1, math.inf, 0), (1, 2, 400, 1), (2, 1, 70, 1), (2, 2, 70, 2), (3, 2, 70, 3), (1, 5, 400, 3)],
)
def test_the_slowest_link_of_a_ring_decides_and_a_small_message_climbs_a_tree(
    nodes: int, gpus: int, rate: float, hops: int
) -> None:
    device = replace(HARDWARE["H100"], link_bytes_per_second=800.0, transfer_share=0.5, hop_seconds=3.0)
    found = replace(CLUSTER, nodes=nodes, gpus=gpus, device=device, interconnect_bytes_per_second=140.0)
    assert (found.world_size, found.link_rate, found.message_seconds) == (nodes * gpus, rate, 3.0 * hops)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_an_exchange_takes_its_bytes_over_the_link_and_its_messages(stage: int) -> None:
    config = train(zero_stage=stage)
    # Of hops that take as long as the bytes.
    cluster = replace(CLUSTER, device=replace(CLUSTER.device, hop_seconds=1e-4))
    with torch.device("meta"):
        network = Perceiver(WIDE, seed=0)
    found = exchanges(network, config.optimizer, config.train, 128, "cuda")
    seconds = [each.sent_bytes(128) / (0.8 * 50e9) + each.calls * 7e-4 for each in found]
    small = small_messages(config.train, 128) * 7e-4
    assert small > 0
    plan = communication(network, config, cluster, computation=1e9)
    assert plan.sent_bytes == sum(each.sent_bytes(128) for each in found) > 0
    assert plan.seconds == pytest.approx(small + sum(seconds))
    # Beside a computation that never ends all that can be hidden is.
    shown = [(1 - each.hidden_share * (each.during != "update")) * s for each, s in zip(found, seconds, strict=True)]
    assert plan.overlapped_seconds == pytest.approx(small + sum(shown))


@pytest.mark.parametrize(
    ("stage", "ema", "frozen", "moved"),
    [
        # docs/scale.md: 40 bytes of each parameter that is updated, and 28 for the average.
        (0, EmaConfig(), (), 40),
        (1, EmaConfig(), (), 40 / 128),
        (1, EmaConfig(decay=0.9), (), 68 / 128),
        (0, EmaConfig(decay=0.9, every_steps=4), ("encoder.*",), 47),
    ],
)
def test_an_update_moves_the_bytes_of_the_parameters_that_a_rank_owns(
    stage: int, ema: EmaConfig, frozen: tuple[str, ...], moved: float
) -> None:
    config = replace(train(zero_stage=stage), ema=ema, optimizer=OptimizerConfig(freeze=frozen))
    parameters = total(network_cost(NETWORK)).parameters - num_frozen(config)
    found = cluster_plan(config, CLUSTER)
    assert found.step["update"] == pytest.approx(parameters * moved / (0.8 * 3.35e12))
    assert found.has_average == (ema.decay > 0)


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_save_is_copied_to_the_host_and_written_by_all_ranks_together(asynchronous: bool) -> None:
    config = replace(CONFIG, checkpoint=CheckpointConfig(asynchronous=asynchronous))
    whole = plan.checkpoint_bytes(config)
    written = 0.5 + whole / 2e9
    # A rank that holds a part copies that part; its gradients are in no checkpoint.
    for state, copied in ((whole // 8, whole // 8), (2 * whole, whole)):
        stalled = copied / (0.8 * 64e9)
        parts = (stalled, written) if asynchronous else (stalled + written, 0.0)
        assert astuple(faults_of(config, CLUSTER, state_bytes=state)) == pytest.approx((450_000, *parts, 300))


def test_a_plan_is_of_its_parts_and_nothing_else() -> None:
    config = train(zero_stage=2, micro_batch=16, steps=1234)
    found = cluster_plan(config, CLUSTER)
    faults = faults_of(config, CLUSTER, state_bytes=found.state_bytes)
    assert (found.device, found.world_size, found.global_batch) == (HARDWARE["H100"].source, 128, 8192)
    assert (found.micro_batches, found.zero_stage, found.precision, found.steps) == (4, 2, "bf16", 1234)
    assert found.efficiency == 1 - found.step["communication"] / found.step_seconds
    assert list(found.communication) == [0, 1, 2, 3]
    assert found.step["communication"] == found.communication[2].overlapped_seconds
    assert found.device_memory_bytes == 80e9
    assert found.save_seconds == faults.stall_seconds + faults.commit_seconds
    assert found.stall_seconds == faults.stall_seconds
    assert found.interval_steps == math.ceil(best_interval(faults, found.step_seconds) / found.step_seconds) > 1
    assert found.goodput == goodput(faults, found.interval_steps * found.step_seconds)
    assert found.run_seconds == pytest.approx(1234 * found.step_seconds / found.goodput.useful)
    # The work of a rank's own samples.
    model = replace(NETWORK, compile=True)
    work = step_seconds(step_work(model, "bf16", "cuda"), 64, HARDWARE["H100"], "bf16")
    assert [found.step[name] for name in ("products", "reads", "elementwise")] == pytest.approx(
        [work.products, work.reads, work.elementwise]
    )
    with torch.device("meta"):
        network = Perceiver(NETWORK, seed=0)
    assert found.communication[3] == communication(
        network, train(zero_stage=3, micro_batch=16), CLUSTER, computation=work.whole
    )
