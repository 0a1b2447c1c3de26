"""The parts of a run that benchmarks/scale measures, as one rank of many does them on real files."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.scale.world import RANKS_A_NODE, Cost, Idle, OneOfMany, Script, mark
from configs.run import RunConfig, dump, load
from data_shards.format.manifest import Manifest, ShardEntry, Shards, Split, write
from data_shards.loading.batch import Batch
from data_shards.loading.shard_folders import Places
from launch.lifecycle import attempts
from launch.lifecycle.agreement import leave
from launch.lifecycle.attempts import RankRecord
from launch.lifecycle.claim import Claim
from launch.lifecycle.run_folder import RunFolder
from launch.report import status
from launch.run import loaders
from trainer.checkpoint.store import Store
from trainer.config import CheckpointConfig, TrainConfig
from trainer.feed import Feed
from trainer.health.hang import HangWatch
from trainer.health.stop_request import StopRequest
from trainer.loop import fit
from trainer.run_state import RunState

NUM_ATTEMPTS, NUM_STEPS = 50, 200
Part = Callable[[RunFolder, OneOfMany], Iterator[None]]
"""Yields when it is about to begin and when it is done: what it does in between is measured."""


def make_shards(folder: Path, num_shards: int) -> None:
    """Make a folder of shards whose manifest is real; the tars are holes of the size that it says."""
    (folder / "train").mkdir(parents=True)
    entries = []
    for number in range(num_shards):
        name = f"train/{number:06d}.tar"
        descriptor = os.open(folder / name, os.O_CREAT | os.O_WRONLY)
        # Holes have a size and take no blocks: 100 000 of them fit any disk.
        os.truncate(descriptor, 1000)
        os.close(descriptor)
        entries.append(ShardEntry(name, 64, 1000, "0" * 64, "0" * 64, {"png": 64, "json": 64}))
    counts = (num_shards * 64 // 10,) * 10
    write(Manifest({"train": Split(Shards.of(entries), counts)}, tuple("0123456789")), folder)


def make_run(path: Path, shards: Path) -> RunFolder:
    """Make the folder of a run on these shards."""
    folder = RunFolder(path)
    folder.make()
    config = load(Path(__file__).parents[2] / "configs" / "digits.yaml", [f"data.shards={shards}"])
    train = replace(config.train, global_batch=1024)
    data = replace(config.data.only({"image"}), modality_dropout={}, lanes=1024)
    inputs = {"image": config.model.inputs["image"]}
    model = replace(config.model, inputs=inputs)
    config = replace(config, train=train, data=data, model=model)
    folder.config_path.write_text(dump(config))
    return folder


def start(folder: RunFolder, world: OneOfMany) -> Iterator[None]:
    """Claim the run and open its shards, as every start does."""
    world.script.shares_memory = True
    yield
    config: RunConfig = load(folder.config_path)
    with Claim(folder, world, take_over=False):
        places = loaders.places_of_all(config, world, Places(config.data), partial(loaders.look, config))
        loaders.train_loader(config, folder.quarantine_path, world, places).close()
        loaders.eval_split(config, places)
        loaders.identity(config, places)
        yield


def step(folder: RunFolder, world: OneOfMany) -> Iterator[None]:
    """Make steps that take no time: what is left is the loop's own."""
    idle: Any = Idle(world)
    empty = Batch({}, {}, torch.zeros(1, dtype=torch.long), torch.ones(1), ("",))
    yield
    fit(
        TrainConfig(steps=NUM_STEPS, global_batch=1024, log_every_steps=50),
        engine=idle,
        batches=Feed(lambda _: empty, world, partial(leave, world)),
        state=RunState(),
        store=idle,
        sinks=[],
        stop=StopRequest(folder.stop_path),
        world=world,
    )
    yield


def heartbeat(folder: RunFolder, world: OneOfMany) -> Iterator[None]:
    """Stand still under the watch, with everybody's files there."""
    world.script.shares_memory = True
    with HangWatch(folder.watch_folder, world, 60.0), Claim(folder, world, take_over=True):
        for rank in range(world.world_size):
            beat = {"rank": rank, "host": "h", "pid": 1, "count": 1, "progress": 0, "phase": "start"}
            path = folder.watch_folder / f"rank_{rank}.json"
            if rank != world.rank:
                path.write_text(json.dumps(beat))
        yield
        time.sleep(world.script.beat_seconds)
        yield


def save(folder: RunFolder, world: OneOfMany) -> Iterator[None]:
    """Save, with a checkpoint before it that goes."""
    store, engine = _store(folder, world), Idle(world)
    for number in (1, 2):
        beside = folder.checkpoints_folder / f".step_{number:08d}.tmp"
        world.script.folder = beside
        # Rank 0 makes the folder, and there is none beside this rank.
        if not world.is_first:
            beside.mkdir(parents=True)
        if number == 2:
            yield
        store.save(engine, RunState(step=number))
    yield
    store.close()
    # A save that fails early would be measured as a fast one.
    assert [report.error for report in store.reports()] == ["", ""]
    for left in folder.checkpoints_folder.glob(".step_*"):
        shutil.rmtree(left)


def load_newest(folder: RunFolder, world: OneOfMany) -> Iterator[None]:
    """Load what rank 0 has saved."""
    store, engine = _store(folder, world), Idle(world)
    world.script.folder = max(folder.checkpoints_folder.glob("step_*"))
    yield
    found = store.load(engine)
    yield
    assert found is not None
    store.close()


def look(folder: RunFolder, world: OneOfMany) -> Iterator[None]:
    """Ask how far the run is, as `perceiver status` does, after many attempts."""
    # The attempts are made up: their starts must not wait for the disk, nor look for checkpoints.
    with mock.patch("os.fsync"), mock.patch.object(attempts, "newest_step", return_value=0):
        for last in (False,) * (NUM_ATTEMPTS - 1) + (True,):
            number = attempts.begin(folder, job_id="", nodes=["node0"]).number
            for rank in range(world.world_size if last else 1):
                attempts.write_rank(folder, number, RankRecord.here(rank, f"node{rank // RANKS_A_NODE}"))
            if not last:
                attempts.end(folder, number, 1)
    yield
    status.read(folder)
    yield


def _store(folder: RunFolder, world: OneOfMany) -> Store:
    return Store(folder.checkpoints_folder, CheckpointConfig(keep_last=1, asynchronous=False), world)


PARTS: dict[str, Part] = {
    "start": start,
    "step": step,
    "heartbeat": heartbeat,
    "save": save,
    "load": load_newest,
    "status": look,
}


def measured(
    name: str, folder: RunFolder, rank: int, world_size: int, told: list[object], beat_seconds: float
) -> tuple[Cost, list[object]]:
    """Return what a part costs one rank, and what that told; `told` is what rank 0 told."""
    script = Script(told, beat_seconds)
    world = OneOfMany(rank, world_size, rank % RANKS_A_NODE, torch.device("cpu"), script=script)
    part = PARTS[name](folder, world)
    next(part)
    cost = script.cost = Cost()
    mark(f"begin/{name}/{world_size}/{rank}")
    with cost.timed():
        next(part)
    mark("end")
    next(part, None)
    return cost, script.told
