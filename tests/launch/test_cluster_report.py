"""The flags of `perceiver plan --nodes` describe a cluster, and the plan is told line by line."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from configs.network import NetworkConfig
from launch.cli import cluster_report
from launch.cli.cluster_report import Flags, PlannedNetwork, report
from launch.planning.cluster_plan import ClusterPlan, Communication, cluster_plan
from launch.planning.goodput import Goodput
from model.budget.hardware import HARDWARE
from model.config.perceiver import PerceiverConfig
from trainer.config import CheckpointConfig, OptimizerConfig, TrainConfig
from trainer.ema_config import EmaConfig

Door = Callable[..., list[dict[str, Any]]]
CONFIGS = Path(__file__).parents[2] / "configs"
FLAGS = Flags(3, 2, "h200", "4x200Gb", "1GB/s", 1000.0, 7.0, 0.0, 0.0)


def test_what_was_typed_is_the_cluster_that_is_planned() -> None:
    found = FLAGS.cluster()
    assert (found.nodes, found.gpus, found.device) == (3, 2, HARDWARE["H200"])
    assert (found.interconnect_bytes_per_second, found.disk_bytes_per_second) == (100e9, 1e9)
    assert (found.node_mtbf_seconds, found.restart_seconds) == (3_600_000, 420)


def test_memory_and_peak_of_a_device_replace_those_that_are_known() -> None:
    known = HARDWARE["H200"]
    larger = replace(FLAGS, memory_gib=1.5).cluster().device
    assert larger == replace(known, memory_bytes=1.5 * 2**30)
    faster = replace(FLAGS, peak_tflops=2.0).cluster().device
    assert (faster.fp32_flops, faster.half_flops, faster.product_share) == (2e12, 2e12, 1.0)
    assert faster.source == "H200, but products at 2 TFLOP/s as --peak-tflops says"
    assert faster.memory_bytes == known.memory_bytes


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"nodes": 0}, "--nodes: expected a count from 1 to 100000, got 0"),
        ({"nodes": 100_001}, "--nodes: expected a count from 1 to 100000, got 100001"),
        ({"gpus": 1025}, "--gpus: expected a count from 1 to 1024, got 1025"),
        ({"mtbf_hours": math.inf}, "--mtbf-hours: expected the hours"),
        ({"mtbf_hours": 1e10}, "--mtbf-hours: expected the hours"),
        ({"restart_minutes": math.inf}, "--restart-minutes: expected 0 or more"),
        ({"restart_minutes": math.nan}, "--restart-minutes: expected 0 or more"),
        ({"memory_gib": math.inf}, "--memory-gib: expected 0 or more"),
        ({"memory_gib": -1.0}, "--memory-gib: expected 0 or more"),
        ({"peak_tflops": math.nan}, "--peak-tflops: expected 0 or more"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused_by_its_flag(changes: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}"):
        replace(FLAGS, **changes).cluster()


def test_the_least_and_the_most_are_taken() -> None:
    replace(FLAGS, nodes=1, gpus=1, restart_minutes=0.0, mtbf_hours=1e-9).cluster()
    replace(FLAGS, nodes=100_000, gpus=1_024).cluster()


@pytest.fixture
def planned(door: Door) -> list[dict[str, Any]]:
    """Each run and cluster that was planned."""
    return door("launch.cli.cluster_report.cluster_plan", cluster_plan)


def test_a_network_alone_gets_a_batch_for_its_ranks_and_a_run_keeps_its_own(
    planned: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    report(CONFIGS / "paper" / "p1.yaml", (), FLAGS, bf16=True, as_json=True)
    report(CONFIGS / "paper" / "p1.yaml", ["train.global_batch=12", "optimizer.clip_norm=3", "checkpoint.keep_last=9"],
           FLAGS, bf16=False, as_json=True)  # fmt: skip
    report(CONFIGS / "digits.yaml", ["train.global_batch=48"], FLAGS, bf16=True, as_json=True)
    network, told, run = (each["config"] for each in planned)
    assert (network.train.global_batch, network.train.precision) == (64 * 6, "bf16")
    assert (told.train.global_batch, told.train.precision) == (12, "auto")
    assert (told.optimizer.clip_norm, told.checkpoint.keep_last) == (3, 9)
    assert (run.train.global_batch, run.train.precision, run.train.steps) == (48, "bf16", 600)
    assert network.model == told.model != run.model
    assert all(each["cluster"] == FLAGS.cluster() for each in planned)
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert (first["flags"]["nodes"], first["world_size"]) == (3, 6)


def test_problems_of_every_part_of_a_planned_network_are_told() -> None:
    for wrong in ("optimizer.clip_norm=-1", "train.global_batch=0", "checkpoint.keep_last=0", "model.num_latents=0"):
        with pytest.raises(ValueError, match=wrong.partition("=")[0].replace(".", r"\.")):
            report(CONFIGS / "paper" / "p1.yaml", [wrong], FLAGS, bf16=False, as_json=True)


def test_every_line_has_its_number(
    planned: list[dict[str, Any]], door: Door, capsys: pytest.CaptureFixture[str]
) -> None:
    found: list[ClusterPlan] = []

    def keep(**given: Any) -> ClusterPlan:  # noqa: ANN401
        found.append(cluster_plan(**given))
        return found[-1]

    door("launch.cli.cluster_report.cluster_plan", keep)
    report(CONFIGS / "paper" / "p1.yaml", ["train.zero_stage=2"], FLAGS, bf16=True, as_json=False)
    [plan] = found
    lines = capsys.readouterr().out.splitlines()
    heads = [line for line in lines if line.endswith((" share", " overlap"))]
    assert [head.split()[0] for head in heads] == ["part", "communication"]
    rows = {line[:24].strip(): line[24:] for line in lines if line not in heads}
    assert lines[0].startswith("6 ranks: 3 nodes of 2; ")
    assert lines[1] == "global batch 384, 64 per rank in 1 micro-batch, bf16, ZeRO 2"
    for name, seconds in plan.step.items():
        assert rows[name].split() == [f"{1000 * seconds:.2f}", f"{seconds / plan.step_seconds:.1%}"]
    assert rows["step"].split() == [f"{1000 * plan.step_seconds:.2f}"]
    for stage, each in plan.communication.items():
        row = rows[f"ZeRO {stage}, this run" if stage == 2 else f"ZeRO {stage}"].split()
        assert row == [
            f"{each.sent_bytes / 1e6:.1f}",
            *(f"{1000 * s:.2f}" for s in (each.seconds, each.overlapped_seconds)),
        ]
    assert f"this run exchanges {'during' if plan.overlaps else 'after'} the backward pass" in lines
    needed = (plan.state_bytes + plan.activation_bytes) / 2**30
    assert rows["memory of a rank"].split()[0] == f"{needed:.3f}"
    assert "; fits into " in rows["memory of a rank"]
    assert rows["failures"].split()[0] == f"{1000 / 3:.2f}"
    seconds = plan.steps * plan.step_seconds / plan.goodput.useful
    assert rows["whole run"].split()[0] == f"{seconds / 3600:.1f}"
    assert rows["best between saves"].split()[0] == f"{plan.goodput.interval_seconds / 60:.2f}"
    assert lines.count("") == 3
    [too_large] = [
        line
        for line in cluster_report._lines(replace(plan, fits=False, overlaps=not plan.overlaps), FLAGS)
        if line.startswith("memory")
    ]
    assert "; DOES NOT FIT into " in too_large


def test_a_plan_fits_where_its_bytes_are_exactly_those_of_the_device() -> None:
    config = cluster_report._run(CONFIGS / "paper" / "p1.yaml", (), 6, bf16=True)
    plan = cluster_plan(config, FLAGS.cluster())
    needed = plan.state_bytes + plan.activation_bytes
    for memory, fits in ((needed, True), (needed - 1, False)):
        cluster = FLAGS.cluster()
        cluster = replace(cluster, device=replace(cluster.device, memory_bytes=float(memory)))
        assert cluster_plan(config, cluster).fits == fits


def test_a_part_that_nobody_named_is_as_usual() -> None:
    usual = PlannedNetwork()
    assert usual == PlannedNetwork(PerceiverConfig(), OptimizerConfig(), EmaConfig(), TrainConfig(), CheckpointConfig())
    assert NetworkConfig() == NetworkConfig(PerceiverConfig())


MADE = ClusterPlan(
    device="a device",
    world_size=6,
    global_batch=48,
    micro_batches=2,
    zero_stage=1,
    precision="bf16",
    overlaps=True,
    step={"products": 0.75, "communication": 0.25},
    step_seconds=1.0,
    samples_per_second=48.0,
    efficiency=0.75,
    communication={0: Communication(3e6, 0.5, 0.4), 1: Communication(2e6, 0.3, 0.25)},
    state_bytes=2 * 2**30,
    has_average=True,
    activation_bytes=2**29,
    device_memory_bytes=4 * 2**30,
    fits=True,
    checkpoint_bytes=2**30,
    save_seconds=2.0,
    stall_seconds=0.125,
    job_mtbf_seconds=7200.0,
    interval_steps=90,
    goodput=Goodput(90.0, 0.9, 0.05, 0.03, 0.02),
    steps=3600,
    run_seconds=4000.0,
)


def test_a_plan_is_told_word_for_word() -> None:
    assert list(cluster_report._lines(MADE, FLAGS)) == [
        "6 ranks: 3 nodes of 2; a device",
        "global batch 48, 8 per rank in 2 micro-batches, bf16, ZeRO 1",
        "",
        "part of a step                  ms    share",
        "products                    750.00    75.0%",
        "communication               250.00    25.0%",
        "step                       1000.00",
        "",
        "communication              MB sent        ms   ms with overlap",
        "ZeRO 0                         3.0    500.00            400.00",
        "ZeRO 1, this run               2.0    300.00            250.00",
        "this run exchanges during the backward pass",
        "",
        "samples/s                     48.0",
        "scaling efficiency           75.0%   of the speed without communication",
        "memory of a rank             2.500   GiB: 2.000 for weights, gradients, moments and moving average, "
        "0.500 for activations; fits into 4.0",
        "save                          2.00   s: 1.000 GiB at 1GB/s of the shared disk (--disk), and 1 s to "
        "commit; the training stops for 0.125 s of it",
        "failures                      2.00   h between two failures of the job: 1000 h of one node "
        "(--mtbf-hours) / 3 nodes",
        "best between saves            1.50   min: checkpoint.save_every_steps=90 checkpoint.save_every_minutes=0",
        "goodput                     90.00%   saves 5.00%, lost work 3.00%, restarts 2.00% (7 min each, "
        "--restart-minutes)",
        "whole run                      1.1   h for train.steps=3600 at this goodput, without evaluations",
    ]


def test_hours_are_taken_up_to_the_most_and_a_flag_has_the_memory_that_it_says() -> None:
    assert replace(FLAGS, mtbf_hours=1e9).cluster().node_mtbf_seconds == 3600e9
    with pytest.raises(ValueError, match=r"above 0 and at most 1,000,000,000, got 1e\+09$"):
        replace(FLAGS, mtbf_hours=1e9 + 1).cluster()
    assert FLAGS.cluster().commit_seconds == 1
    assert replace(FLAGS, memory_gib=0.5, peak_tflops=0.5).cluster().device.memory_bytes == 2**29
