"""Jobs of several ranks that read shards: a process a rank, each writes the keys of its part of every global batch.

    python job.py SHARDS STATE NUM_STEPS ends|hangs WORLD_SIZE...

One job after the other, of these world sizes. Where the file STATE is, each goes on from the step in it; where it is
not, the first rank saves it there every 4 steps. A job that hangs waits after its last step, with its loaders open and
batches made ahead, for whoever kills it.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from data_shards.config import DataConfig
from data_shards.loading import streams
from data_shards.modalities.kinds.text import TextConfig
from data_shards.order.state import DataState

SEED, GLOBAL_BATCH, SAVE_EVERY_STEPS = 0, 12, 4


def run_jobs(shards: str, state: str, num_steps: str, end: str, *world_sizes: str) -> None:
    config = DataConfig(shards, inputs={"text": TextConfig(num_bytes=12)}, lanes=4, window=8)
    start = streams.data_state(config, seed=SEED, global_batch=GLOBAL_BATCH)
    is_new, path = not Path(state).is_file(), Path(state)
    if not is_new:
        saved = DataState.from_json(path.read_text())
        start.check(saved)
        start = saved

    def run(rank: int, world_size: int) -> None:
        with streams.train_loader(
            config, seed=SEED, global_batch=GLOBAL_BATCH, rank=rank, world_size=world_size
        ) as loader:
            for step in range(start.step, int(num_steps)):
                # One call: lines of less than 4 kB from several processes never mix in a pipe.
                os.write(1, json.dumps([world_size, step, rank, loader(step).keys]).encode() + b"\n")
                if is_new and rank == 0 and (step + 1) % SAVE_EVERY_STEPS == 0:
                    save(replace(start, step=step + 1), path)
            if end == "hangs":
                signal.pause()

    for world_size in map(int, world_sizes):
        in_processes(world_size, run)


def in_processes(world_size: int, run: Callable[[int, int], None]) -> None:
    """Call run(rank, world_size) in a process a rank; the interpreter and torch are started once for all of them."""
    for rank in range(world_size):
        if os.fork() == 0:
            run(rank, world_size)
            os._exit(0)
    for _ in range(world_size):
        assert os.wait()[1] == 0


def save(state: DataState, path: Path) -> None:
    beside = path.with_suffix(".part")
    beside.write_text(state.to_json())
    beside.replace(path)


if __name__ == "__main__":
    run_jobs(*sys.argv[1:])
