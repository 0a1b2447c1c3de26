"""How long a rank needs to be ready for any step of any epoch of 100 million samples in 100 000 shards, in what memory.

    python benchmarks/order.py --json order.json

From the manifest's file (in the page cache) to the slots of one rank of 64, of a step in the middle of epoch 3; each
time in a new process, the best of its turns. Memory is what the process grows by at its peak, in 1 000 steps as well.
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from pathlib import Path

from benchmarks.arguments import at_least
from data_shards.format import manifest
from data_shards.format.manifest import Manifest, ShardEntry, Shards, Split
from data_shards.order.sample_order import TrainOrder

NUM_SHARDS, SAMPLES_PER_SHARD = 100_000, 1_000
GLOBAL_BATCH, LANES, WINDOW = 4_096, 256, 4_096
NUM_RANKS = 64
TARGETS = {"ready_ms": 300, "memory_mb": 50}


def synthetic(num_shards: int, samples_per_shard: int) -> Split:
    """Return a split of which there are no files."""
    return Split(
        Shards.of(
            ShardEntry(f"train/{n:06d}.tar", samples_per_shard, 35_000_000, f"{n:064x}", f"{n:064x}", {"image": 1000})
            for n in range(num_shards)
        ),
        (),
    )


def measure(folder: str) -> dict[str, float]:
    """Return the milliseconds until this process has its first slots, and the megabytes that it grows by."""
    before = peak_mb()
    start = time.perf_counter()
    split = manifest.read(Path(folder)).split("train")
    read = time.perf_counter()
    order = TrainOrder(split, 0, GLOBAL_BATCH, LANES, WINDOW)
    share = GLOBAL_BATCH // NUM_RANKS
    order.slots(3 * order.steps_per_epoch + order.steps_per_epoch // 2, 5 * share, 6 * share)
    ready = time.perf_counter()
    # Another epoch permutes the shards again: it is what a rank waits for when an epoch ends.
    order.slots(7 * order.steps_per_epoch + 11, 5 * share, 6 * share)
    another = time.perf_counter()
    for step in range(1000):
        order.slots(step, 5 * share, 6 * share)
    return {
        "manifest_ms": 1e3 * (read - start),
        "ready_ms": 1e3 * (ready - start),
        "another_epoch_ms": 1e3 * (another - ready),
        "memory_mb": peak_mb() - before,
    }


def peak_mb() -> float:
    """Return the most memory that this process has had."""
    # Not getrusage: its maximum outlives an exec, so that a new process begins with that of the one that started it.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6


def best(samples_per_shard: int, turns: int) -> dict[str, float]:
    """Return the least of each figure."""
    with (
        tempfile.TemporaryDirectory() as folder,
        multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool,
    ):
        manifest.write(Manifest({"train": synthetic(NUM_SHARDS, samples_per_shard)}, ()), Path(folder))
        taken = [pool.apply(measure, (folder,)) for _ in range(turns)]
    return {name: min(figures[name] for figures in taken) for name in taken[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--turns", type=at_least(1), default=5, help="times that each figure is taken")
    arguments = parser.parse_args()
    figures = best(SAMPLES_PER_SHARD, arguments.turns)
    figures["memory_mb_of_10_times_the_samples"] = best(10 * SAMPLES_PER_SHARD, 1)["memory_mb"]
    for name, figure in figures.items():
        target = f"target {TARGETS[name]}" if name in TARGETS else ""
        print(f"{name:36} {figure:10.1f}  {target}".rstrip())
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
