"""How long a rank needs to be ready for any step of any epoch of 100 million samples in 100 000 shards, in what memory.

    python benchmarks/order.py --json order.json

Memory is the peak of what is allocated on top of the manifest, at the start and in the 1 000 steps after it.
"""

import argparse
import json
import multiprocessing
import tempfile
import time
import tracemalloc
from pathlib import Path

from data_shards import manifest
from data_shards.manifest import Manifest, ShardEntry, Split
from data_shards.order import TrainOrder

NUM_SHARDS, SAMPLES_PER_SHARD = 100_000, 1_000
GLOBAL_BATCH, LANES, WINDOW = 4_096, 256, 4_096
NUM_RANKS = 64


def synthetic(num_shards: int, samples_per_shard: int = SAMPLES_PER_SHARD) -> Split:
    """Return a split of which there are no files."""
    return Split(
        tuple(
            ShardEntry(f"train/{n:06d}.tar", samples_per_shard, 35_000_000, f"{n:064x}", f"{n:064x}", {"image": 1000})
            for n in range(num_shards)
        ),
        (),
    )


def measure_order(num_shards: int) -> dict[str, float]:
    """Return milliseconds from the shards in memory to the slots of one rank, of a step in epoch 3."""
    split = synthetic(num_shards)
    start = time.perf_counter()
    order, slots = ready(split)
    done = time.perf_counter()
    order.slots(7 * order.steps_per_epoch + 11, *slots)
    return {"ready_ms": 1e3 * (done - start), "another_epoch_ms": 1e3 * (time.perf_counter() - done)}


def ready(split: Split) -> tuple[TrainOrder, tuple[int, int]]:
    order = TrainOrder(split, 0, GLOBAL_BATCH, LANES, WINDOW)
    share = GLOBAL_BATCH // NUM_RANKS
    slots = 5 * share, 6 * share
    order.slots(3 * order.steps_per_epoch + order.steps_per_epoch // 2, *slots)
    return order, slots


def measure_order_memory(num_shards: int, samples_per_shard: int) -> float:
    """Return the MiB that this takes at its peak, and all of the steps after it."""
    split = synthetic(num_shards, samples_per_shard)
    tracemalloc.start()
    order, slots = ready(split)
    for step in range(1000):
        order.slots(step, *slots)
    return tracemalloc.get_traced_memory()[1] / 2**20


def measure_manifest(folder: str) -> dict[str, float]:
    """Return milliseconds and MiB of reading the manifest from a disk."""
    start = time.perf_counter()
    manifest.read(Path(folder))
    milliseconds = 1e3 * (time.perf_counter() - start)
    tracemalloc.start()
    kept = manifest.read(Path(folder))
    return {"manifest_ms": milliseconds, "manifest_mib": tracemalloc.get_traced_memory()[0] / 2**20 if kept else 0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        manifest.write(Manifest({"train": synthetic(NUM_SHARDS)}, ()), Path(folder))
        with context.Pool(1, maxtasksperchild=1) as pool:
            figures = pool.apply(measure_order, (NUM_SHARDS,))
            figures["order_mib"] = pool.apply(measure_order_memory, (NUM_SHARDS, SAMPLES_PER_SHARD))
            figures["order_mib_of_10_times_the_samples"] = pool.apply(
                measure_order_memory, (NUM_SHARDS, 10 * SAMPLES_PER_SHARD)
            )
            figures |= pool.apply(measure_manifest, (folder,))
    for name, figure in figures.items():
        print(f"{name:36} {figure:10.1f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
