"""A record tells of the steps since the last one; waits are those of the slowest rank."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

import pytest
import torch
from torch import Tensor

from trainer.distributed.world import World
from trainer.engine.step_report import StepReport
from trainer.sinks.meter import Meter, StepTime, Work, measured_peak_flops, memory_mib

T = TypeVar("T")
REPORT = StepReport(
    loss=2.0,
    task_losses={"label": 2.0},
    learning_rate=0.1,
    grad_norm=3.0,
    is_skipped=False,
    group_norms={"decayed": 2.5},
    forward_seconds=0.2,
    num_samples=16,
)


@dataclass(frozen=True)
class BesideASlowRank(World):
    """A world in which another rank waits 0.6 s for data and computes 0.9 s in all."""

    def gather(self, item: T) -> list[T]:
        return [item, (0.6, 0.9)]  # type: ignore[list-item]


@pytest.fixture
def beside() -> World:
    return BesideASlowRank(rank=0, world_size=2, local_rank=0, device=torch.device("cpu"))


def test_rates_and_waits_follow_from_the_steps_since_the_last_record(beside: World) -> None:
    work = Work(flops_per_sample=1e6, tokens_per_sample=10, peak_flops=4e6)
    meter = Meter(beside, work, count_bad_samples=lambda: 3)
    meter.add(REPORT, StepTime(seconds=1.0, data_seconds=0.1))
    meter.add(replace(REPORT, is_skipped=True), StepTime(seconds=3.0, data_seconds=0.1))
    record = meter.record(7, REPORT)
    assert record["step"] == 7
    assert (record["loss"], record["loss/label"], record["grad_norm/decayed"]) == (2.0, 2.0, 2.5)
    assert (record["skipped_steps"], record["bad_samples"]) == (1, 3)
    assert record["samples_per_second"] == 8.0
    assert record["tokens_per_second"] == 80.0
    assert record["flop_utilisation"] == 1.0  # 8 samples of 1e6 over two devices of 4e6
    assert record["data_wait_seconds"] == pytest.approx(0.3)
    assert record["data_wait_share"] == pytest.approx(0.15)
    assert record["slowest_rank"] == 1
    assert record["slowest_rank_excess"] == pytest.approx(0.9 / 0.65 - 1)
    meter.add(REPORT, StepTime(seconds=1.0, data_seconds=0.0))
    assert meter.record(8, REPORT)["skipped_steps"] == 0


def test_nothing_is_claimed_about_work_that_is_not_known(beside: World) -> None:
    meter = Meter(beside)
    meter.add(REPORT, StepTime(1.0, 0.0))
    assert not {"tokens_per_second", "flop_utilisation"} & meter.record(1, REPORT).keys()


def test_the_measured_peak_is_a_rate() -> None:
    peak = measured_peak_flops(torch.device("cpu"), torch.float32)
    assert math.isfinite(peak)
    assert peak > 1e8


def test_a_record_sums_up_all_steps_since_the_last_one_and_no_others() -> None:
    meter = Meter(World(0, 1, 0, torch.device("cpu")))
    meter.add(replace(REPORT, is_skipped=True), StepTime(seconds=9.0, data_seconds=8.0))
    meter.record(1, REPORT)
    for seconds, data in ((2.0, 0.5), (4.0, 1.0)):
        meter.add(replace(REPORT, is_skipped=True), StepTime(seconds, data))
    record = meter.record(3, replace(REPORT, task_losses={"label": 2.0, "text": 0.5}))
    assert (record["loss/label"], record["loss/text"], record["grad_norm"], record["learning_rate"]) == (2, 0.5, 3, 0.1)
    assert (record["step_seconds"], record["data_wait_seconds"], record["data_wait_share"]) == (3.0, 0.75, 0.25)
    assert (record["skipped_steps"], record["bad_samples"]) == (2, 0)
    assert record["samples_per_second"] == 16 * 2 / 6
    assert (record["slowest_rank"], record["slowest_rank_excess"]) == (0, 0.0)


def test_the_memory_of_a_process_on_the_cpu_is_what_the_kernel_says_in_mebibytes() -> None:
    status = Path("/proc/self/status").read_text()
    [peak] = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")]
    # The kernel adds up its threads' counts now and then.
    assert memory_mib(torch.device("cpu")) == pytest.approx(peak / 1024, rel=0.05)


def test_the_memory_of_a_gpu_is_the_peak_that_was_allocated_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda device: {"cuda:1": 3 << 20}[str(device)])
    assert memory_mib(torch.device("cuda", 1)) == 3.0


def test_nothing_is_known_of_a_work_unless_it_is_said() -> None:
    assert Work() == Work(flops_per_sample=0.0, tokens_per_sample=0.0, peak_flops=0.0)


@pytest.mark.parametrize(("device", "threads", "rows"), [("cpu", 4, 512), ("cpu", 5, 1024), ("cuda", 1, 8192)])
def test_the_products_that_measure_a_device_are_as_large_as_keeps_it_busy(
    monkeypatch: pytest.MonkeyPatch, device: str, threads: int, rows: int
) -> None:
    asked: list[object] = []

    def ones(*shape: int, **options: object) -> Tensor:
        asked.append((*shape, options))
        return torch.zeros(2, 2)

    monkeypatch.setattr("trainer.sinks.meter.torch.ones", ones)
    monkeypatch.setattr("trainer.sinks.meter.torch.get_num_threads", lambda: threads)
    measured_peak_flops(torch.device(device), torch.float32)
    assert asked == [(rows, rows, {"device": torch.device(device), "dtype": torch.float32})]


def test_what_is_known_of_the_work_alone_is_told() -> None:
    for work, told in (
        (Work(tokens_per_sample=10), {"tokens_per_second"}),
        (Work(flops_per_sample=1e6), set()),
        (Work(peak_flops=1e6), set()),
        (Work(flops_per_sample=1e6, peak_flops=1e6), {"flop_utilisation"}),
    ):
        meter = Meter(World(0, 1, 0, torch.device("cpu")), work)
        meter.add(REPORT, StepTime(1.0, 0.0))
        assert {"tokens_per_second", "flop_utilisation"} & meter.record(1, REPORT).keys() == told


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_peak_is_that_of_the_numbers_that_the_training_computes_with(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    clock = SimpleNamespace(now=0.0)
    multiplied = []

    def ones(rows: int, columns: int, **options: object) -> Tensor:
        made = Tensor.new_ones(torch.empty(0, **options), 8, 8)
        multiplied.append((rows, columns, made.dtype))
        return made

    def perf_counter() -> float:
        clock.now += 0.5
        return clock.now

    monkeypatch.setattr("trainer.sinks.meter.torch.ones", ones)
    monkeypatch.setattr("trainer.sinks.meter.time.perf_counter", perf_counter)
    peak = measured_peak_flops(torch.device("cpu"), dtype)
    [(rows, columns, found)] = multiplied
    assert (found, rows) == (dtype, columns)
    # A product has rows ** 3 multiplications and as many additions.
    assert peak == 2 * rows**3 / 0.5
