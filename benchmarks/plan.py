"""Holds the arithmetic of `perceiver plan --nodes` against measured steps, exchanges and saves on CPU ranks.

    python -m benchmarks.plan --json plan.json

For 1, 2 and 4 ranks, each started by torchrun: the constants of this machine are measured with all ranks at work at
once (rates of a matrix product, of an element-wise sum, of gloo's all-reduce and of the disk; the time of a sum of one
number and of a save of next to nothing) and given to the plan; what it predicts is printed beside what is measured. A
step is the median of rounds in which the stages take turns. Of an exchange the rank that waited least is taken: the
others wait for it, too. Rates of computation, and the computation of a step, are in CPU seconds of the rank's own
thread, since a machine is seldom idle; a step is those and its exchanges, and "clock" in the JSON is what it took with
all waiting. Saves and exchanges are by the clock.
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.arguments import at_least
from benchmarks.gpu.parts.facts import commit
from configs.run import RunConfig
from data_shards.loading.batch import Batch
from launch.planning.cluster_plan import Cluster, ClusterPlan, cluster_plan
from model.budget.hardware import Hardware
from model.config.perceiver import PerceiverConfig
from model.modalities.points import PointsInput
from model.outputs.label import LabelOutput
from model.perceiver import Perceiver
from trainer.checkpoint.store import Store
from trainer.config import CheckpointConfig, OptimizerConfig, TrainConfig
from trainer.distributed.world import World
from trainer.engine.engine import Engine
from trainer.run_state import RunState
from trainer.tasks.objective import objective

SAMPLES = 8
NETWORK = PerceiverConfig(
    inputs={"points": PointsInput(num_points=512, num_bands=16, max_frequency=20.0)},
    outputs={"label": LabelOutput(num_classes=40)},
    num_latents=128,
    latent_width=256,
    num_cross_attends=1,
    num_blocks=1,
    layers_per_block=6,
)
CLASSES = objective({"label": LabelOutput(num_classes=40)})
EXCHANGES = ("all_reduce", "all_gather_into_tensor", "reduce_scatter_tensor", "all_gather", "broadcast")
DISK_BYTES = 64 * 2**20
MOVED_ELEMENTS = 2**21


class Clock:
    """Seconds that this rank spends in exchanges, which it waits for one by one."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        originals = {name: getattr(dist, name) for name in EXCHANGES}

        def timed(original: Callable[..., object]) -> Callable[..., object]:
            def exchange(*arguments: object, **options: object) -> object:
                started = time.perf_counter()
                work = original(*arguments, **options)
                if isinstance(work, dist.Work):
                    work.wait()
                self.seconds += time.perf_counter() - started
                return work

            return exchange

        for name, original in originals.items():
            setattr(dist, name, timed(original))
        try:
            yield
        finally:
            for name, original in originals.items():
                setattr(dist, name, original)


def median_seconds(work: Callable[[], object], rounds: int, clock: Callable[[], float] = time.perf_counter) -> float:
    work()
    taken = []
    for _ in range(rounds):
        started = clock()
        work()
        taken.append(clock() - started)
    return statistics.median(taken)


def constants(world: World, folder: Path, rounds: int) -> dict[str, float]:
    """Measure what a rank does while all do the same."""
    rows, width = SAMPLES * NETWORK.num_latents, NETWORK.latent_width
    left, right = torch.randn(rows, width), torch.randn(width, width)
    # What a layer moves has been pushed out of the innermost caches by the layers between.
    one, other, out = (torch.randn(MOVED_ELEMENTS) for _ in range(3))
    world.barrier()
    product = median_seconds(lambda: torch.mm(left, right), 20 * rounds, time.thread_time)
    world.barrier()
    moved = median_seconds(lambda: torch.add(one, other, out=out), 50 * rounds, time.thread_time)
    found = {"product_flops": 2 * rows * width**2 / product, "moved_bytes_per_second": 3 * 4 * MOVED_ELEMENTS / moved}
    content = os.urandom(DISK_BYTES // world.world_size)
    path = folder / f"disk_{world.rank}"

    def write() -> None:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        world.barrier()

    world.barrier()
    found["disk_bytes_per_second"] = DISK_BYTES / median_seconds(write, rounds)
    found["commit_seconds"] = commit_seconds(world, folder / "tiny", rounds)
    if world.world_size > 1:
        gradients = torch.zeros(sum(each.numel() for each in Perceiver(NETWORK, seed=0).parameters()))
        number = torch.zeros(1)
        world.barrier()
        found["message_seconds"] = median_seconds(lambda: dist.all_reduce(number), 50 * rounds)
        summed = median_seconds(lambda: dist.all_reduce(gradients), 3 * rounds) - found["message_seconds"]
        sent = 2 * 4 * gradients.numel() * (world.world_size - 1) / world.world_size
        found["link_bytes_per_second"] = sent / summed
    # The slowest rank decides.
    return {name: statistics.median(world.gather(value)) for name, value in found.items()}


def commit_seconds(world: World, folder: Path, rounds: int) -> float:
    """Return how long a save of next to nothing takes."""
    folder.mkdir(exist_ok=True)
    tiny = replace(NETWORK, latent_width=16, layers_per_block=1, num_latents=2)
    engine = Engine(
        Perceiver(tiny, seed=0),
        CLASSES,
        optimizer=OptimizerConfig(),
        train=train_config(world.world_size, 1),
        world=world,
    )
    store = Store(folder, CheckpointConfig(asynchronous=False, keep_last=1), world)
    steps = itertools.count(1)
    seconds = median_seconds(lambda: store.save(engine, RunState(step=next(steps))), 2 * rounds)
    store.close()
    shutil.rmtree(folder, ignore_errors=True)
    world.barrier()
    return seconds


def predicted(found: dict[str, float], world_size: int, stage: int) -> ClusterPlan:
    hops = max((world_size - 1).bit_length(), 1)
    device = Hardware(
        kind="cpu",
        source="this machine, measured",
        memory_bytes=8e9,
        fp32_flops=found["product_flops"],
        half_flops=found["product_flops"],
        memory_bytes_per_second=found["moved_bytes_per_second"],
        link_bytes_per_second=found.get("link_bytes_per_second", 1e9),
        host_bytes_per_second=found["moved_bytes_per_second"],
        product_share=1.0,
        memory_share=1.0,
        transfer_share=1.0,
        hop_seconds=found.get("message_seconds", 0.0) / hops,
    )
    cluster = Cluster(
        nodes=1,
        gpus=world_size,
        device=device,
        interconnect_bytes_per_second=1e9,
        disk_bytes_per_second=found["disk_bytes_per_second"],
        commit_seconds=found["commit_seconds"],
        node_mtbf_seconds=1e6,
        restart_seconds=60.0,
    )
    config = RunConfig(
        model=NETWORK, train=train_config(world_size, stage), checkpoint=CheckpointConfig(asynchronous=False)
    )
    return cluster_plan(config, cluster)


def train_config(world_size: int, stage: int) -> TrainConfig:
    return TrainConfig(steps=1 << 20, global_batch=SAMPLES * world_size, zero_stage=stage, precision="fp32")


def batch(world: World) -> Batch:
    generator = torch.Generator().manual_seed(world.rank)
    return Batch(
        arrays={"points": torch.randn(SAMPLES, 512, 3, generator=generator)},
        lengths={"points": torch.full((SAMPLES,), 512)},
        labels=torch.randint(0, 40, (SAMPLES,), generator=generator),
        weights=torch.ones(SAMPLES),
        keys=("x",) * SAMPLES,
    )


def measured(world: World, folder: Path, rounds: int) -> dict[int, dict[str, float]]:
    """Return, for each stage, the seconds of a step, of its exchanges, and of a save."""
    engines = {
        stage: Engine(
            Perceiver(NETWORK, seed=0),
            CLASSES,
            optimizer=OptimizerConfig(),
            train=train_config(world.world_size, stage),
            world=world,
        )
        for stage in range(4)
    }
    mine = batch(world)
    seconds: dict[int, dict[str, list[float]]] = {
        stage: {"computation": [], "communication": [], "step": [], "clock": [], "save": []} for stage in engines
    }
    stores = {}
    for stage in engines:
        (folder / str(stage)).mkdir(exist_ok=True)
        stores[stage] = Store(folder / str(stage), CheckpointConfig(asynchronous=False, keep_last=1), world)
    for turn in range(rounds + 1):  # the first is left out: DeepSpeed learns the order of the weights in it
        for stage, engine in engines.items():
            clock = Clock()
            world.barrier()
            started, worked = time.perf_counter(), time.thread_time()
            with clock.running():
                engine.step(mine)
            step, work = time.perf_counter() - started, time.thread_time() - worked
            # Of a save, and a step, the last rank counts.
            world.barrier()
            started = time.perf_counter()
            stores[stage].save(engine, RunState(step=turn))
            save = time.perf_counter() - started
            if turn:
                computation, exchanged = statistics.mean(world.gather(work)), min(world.gather(clock.seconds))
                seconds[stage]["computation"].append(computation)
                seconds[stage]["communication"].append(exchanged)
                seconds[stage]["step"].append(computation + exchanged)
                seconds[stage]["clock"].append(max(world.gather(step)))
                seconds[stage]["save"].append(max(world.gather(save)))
    for store in stores.values():
        store.close()
    return {
        stage: {name: statistics.median(values) for name, values in by_name.items()}
        for stage, by_name in seconds.items()
    }


def of_ranks(rounds: int, path: Path) -> None:
    """What each rank does; the first writes what was found."""
    torch.set_num_threads(1)
    world = World.from_environment(300.0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(world.broadcast(name))
        before = constants(world, folder, rounds)
        taken = measured(world, folder, rounds)
        after = constants(world, folder, rounds)
        world.barrier()
    found = {name: statistics.mean((value, after[name])) for name, value in before.items()}
    stages = {}
    for stage, seconds in taken.items():
        plan = predicted(found, world.world_size, stage)
        told = {
            "computation": plan.step_seconds - plan.step["communication"],
            "communication": plan.step["communication"],
            "step": plan.step_seconds,
            "save": plan.save_seconds,
        }
        stages[stage] = {"predicted": told, "measured": seconds, "parts": plan.step}
    if world.is_first:
        path.write_text(json.dumps({"constants": found, "stages": stages}))
    world.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=at_least(1), nargs="+", default=[1, 2, 4])
    parser.add_argument("--rounds", type=at_least(1), default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--as-rank", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.as_rank:
        of_ranks(arguments.rounds, arguments.as_rank)
        return
    results: dict[str, Any] = {
        "host": {
            "commit": commit(),
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "cores": os.cpu_count(),
            "torch": torch.__version__,
        },
        "network": asdict(NETWORK),
    }
    for ranks in arguments.ranks:
        load = os.getloadavg()[0]
        results[str(ranks)] = {**started(ranks, arguments.rounds), "load": [load, os.getloadavg()[0]]}
        report(ranks, results[str(ranks)])
        if arguments.json:
            # After each: more ranks than cores may not end.
            arguments.json.write_text(json.dumps(results, indent=1) + "\n")


def started(ranks: int, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "found.json"
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        mine = ["-m", "benchmarks.plan", "--rounds", str(rounds), "--as-rank", str(path)]
        subprocess.run(
            [sys.executable, *launcher, *mine], env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, timeout=1200
        )
        found: dict[str, Any] = json.loads(path.read_text())
        return found


def report(ranks: int, found: dict[str, Any]) -> None:
    print(f"{ranks} rank(s): " + ", ".join(f"{name} {value:.3g}" for name, value in found["constants"].items()))
    print(f"{'':8}{'':16}{'predicted ms':>14}{'measured ms':>14}{'ratio':>8}")
    for stage, each in found["stages"].items():
        for name, told in each["predicted"].items():
            seen = each["measured"][name]
            ratio = f"{told / seen:8.2f}" if told else f"{'-':>8}"
            print(f"ZeRO {stage}  {name:16}{1000 * told:14.2f}{1000 * seen:14.2f}{ratio}")


if __name__ == "__main__":
    main()
