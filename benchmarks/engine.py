"""What the trainer adds to the step time of a bare PyTorch DDP loop, all of it: engine, loop, metrics, watch.

    torchrun --standalone --nproc-per-node 2 -m benchmarks.engine --json engine.json

The same network (that of configs/av_digits.yaml), batches, AdamW and clipping; rounds of steps in turns, since the
machine may be shared; the ratio of a pair of neighbouring rounds is taken, and the median of all pairs is shown. The
batch is made so large that a step of DDP takes about 300 ms on this machine, with one core a rank.

"around" is the work of the main thread in a step outside of batch and engine: metrics, votes, times, sinks. It does not
depend on the network, and is shown as a share of a step of 100 ms. A rank's waiting for another is left out: it
would wait in the engine as well.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.arguments import at_least
from configs.run import load
from data_shards.loading.batch import Batch, layout
from model.outputs.label import LabelOutput
from model.perceiver import Perceiver
from trainer.checkpoint.store import Store
from trainer.config import CheckpointConfig, OptimizerConfig, TrainConfig
from trainer.distributed.world import World
from trainer.engine.engine import Engine
from trainer.engine.step_report import StartedStep, StepReport
from trainer.health.hang import HangWatch
from trainer.health.stop_request import StopRequest
from trainer.loop import fit
from trainer.optim import optimizers
from trainer.run_state import RunState
from trainer.sinks.attempt_time import AttemptTime
from trainer.sinks.writers import JsonLines, Sink, TensorBoard
from trainer.tasks.objective import objective

Start = Callable[..., StartedStep]

OPTIMIZER = OptimizerConfig(clip_norm=1.0, schedule="constant")
CONFIG = load(Path(__file__).parents[1] / "configs" / "av_digits.yaml", ["data.shards=none"])
TARGET, STEP_SECONDS = 1.05, 0.3
SHORT_STEP_SECONDS, AROUND_TARGET = 0.1, 0.01
CLASSES = objective({"label": LabelOutput()})


def batch(index: int, rows: int) -> Batch:
    generator = torch.Generator().manual_seed(index)
    arrays, lengths = {}, {}
    for name, (shape, dtype) in layout(CONFIG.data).items():
        numbers = torch.rand(rows, *shape, generator=generator)
        arrays[name] = numbers if dtype.is_floating_point else (255 * numbers).to(dtype)
        lengths[name] = torch.full((rows,), shape[0])
    return Batch(
        arrays=arrays,
        lengths=lengths,
        labels=torch.randint(0, 10, (rows,), generator=generator),
        weights=torch.ones(rows),
        keys=("x",) * rows,
    )


class Clock:
    """Batches that note when they are asked for: the time between two is that of a step with all around it."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self.times: list[float] = []
        self.work: list[float] = []
        """Processor seconds of this thread at the start of each batch, and at the end of each step of the engine."""

    def __call__(self, index: int) -> Batch:
        self.times.append(time.perf_counter())
        self.work.append(time.thread_time())
        return batch(index % 4, self._rows)

    def noting(self, start: Start) -> Start:
        """Return the engine's start of a step such that the report, which ends the step on a CPU, is noted."""

        def noted(part: Batch, flags: Sequence[bool] = ()) -> StartedStep:
            step = start(part, flags)
            report = step.report

            def reported() -> StepReport:
                result = report()
                self.work.append(time.thread_time())
                return result

            step.report = reported  # type: ignore[method-assign]
            return step

        return noted

    def step_seconds(self) -> float:
        return statistics.median(b - a for a, b in zip(self.times, self.times[1:], strict=False))

    def around_seconds(self) -> float:
        assert len(self.work) == 2 * len(self.times), "a batch without the end of its step"
        ends, starts = self.work[1:-1:2], self.work[2::2]
        return statistics.mean(start - end for end, start in zip(ends, starts, strict=True))


def bare(rows: int) -> Callable[[int], float]:
    """Return a function that makes so many steps of a DDP loop and returns the seconds of one."""
    network = DistributedDataParallel(Perceiver(CONFIG.model, seed=0))
    # The trainer's own optimizer: what is compared is what stands around it.
    optimizer = optimizers.make(network, OPTIMIZER)

    def run(steps: int) -> float:
        clock = Clock(rows)
        for index in range(steps + 1):
            part = clock(index)
            loss = CLASSES.sums(network, part)["label"] / rows
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), OPTIMIZER.clip_norm)
            optimizer.step()
            loss.item()
        return clock.step_seconds()

    return run


def ours(world: World, zero_stage: int, rows: int, folder: Path, around: list[float]) -> Callable[[int], float]:
    """Return a function that makes so many steps through fit(), with every watcher and writer on."""
    folder.mkdir(exist_ok=True)
    train = TrainConfig(steps=1 << 30, global_batch=rows * world.world_size, zero_stage=zero_stage)
    engine = Engine(Perceiver(CONFIG.model, seed=0), CLASSES, optimizer=OPTIMIZER, train=train, world=world)
    start = engine.start
    # No saves: benchmarks/checkpoint.py measures them.
    store = Store(folder, CheckpointConfig(save_every_steps=0, save_every_minutes=0), world)
    done = 0

    def run(steps: int) -> float:
        nonlocal done
        clock = Clock(rows)
        engine.start = clock.noting(start)  # type: ignore[method-assign]
        # One more than are timed: a step's time is that from one batch to the next.
        upto = TrainConfig(**{**vars(train), "steps": done + steps + 1})
        sinks: list[Sink] = []
        if world.is_first:
            sinks = [JsonLines(folder / "metrics.jsonl", done), TensorBoard(folder / "tensorboard", done)]
        with HangWatch(folder / "watch", world, seconds=60.0) as hang:
            fit(
                upto,
                engine=engine,
                batches=clock,
                state=RunState(step=done),
                store=store,
                sinks=sinks,
                stop=StopRequest(folder / "stop"),
                world=world,
                time=AttemptTime(None, world),
                hang=hang,
            )
        done += steps + 1
        around.append(clock.around_seconds())
        return clock.step_seconds()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=at_least(1), default=10)
    parser.add_argument(
        "--steps", type=at_least(1), default=10, help="steps of a round; a line of metrics is written in it"
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    world = World.from_environment(120.0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(world.broadcast(name))
        around: list[float] = []
        few = 64
        # From rank 0: each rank measures another time, and all must have the same batch.
        rows = world.broadcast(round(few * STEP_SECONDS / bare(few)(10)))
        mine = {f"zero {stage}": ours(world, stage, rows, folder / str(stage), around) for stage in (0, 1)}
        loops = {"ddp": bare(rows), **mine}
        seconds: dict[str, list[float]] = {loop: [] for loop in loops}
        for _ in range(arguments.rounds):
            for loop, run in loops.items():
                seconds[loop].append(run(arguments.steps))
        world.barrier()
    if world.is_first:
        report(seconds, statistics.median(around), arguments.json)
    world.close()


def report(seconds: dict[str, list[float]], around: float, path: Path | None) -> None:
    share = around / SHORT_STEP_SECONDS
    figures = {"around": {"step_ms": 1000 * around, "share_of_100_ms": share}}
    for loop, values in seconds.items():
        ratios = [value / base for value, base in zip(values, seconds["ddp"], strict=True)]
        figures[loop] = {"step_ms": 1000 * statistics.median(values), "ratio_to_ddp": statistics.median(ratios)}
        print(f"{loop:8} {figures[loop]['step_ms']:7.1f} ms   {figures[loop]['ratio_to_ddp']:.3f} of DDP")
    print(f"target at most {TARGET}")
    print(f"around   {1000 * around:7.2f} ms   {share:.2%} of a step of 100 ms, target at most {AROUND_TARGET:.0%}")
    if path:
        path.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
