"""What benchmarks/scale.py measures: each part of a run as one rank of many does it, on real files.

The rank is real, the others are made up: what it says is counted, and what they would say is what it says itself, with
their own pieces, hosts and files where that matters. Rank 0 goes first, and the others are told what it told.
"""

import json
import os
import pickle
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from configs.run import RunConfig, dump, load
from data_shards.batch import Batch
from data_shards.manifest import Manifest, ShardEntry, Shards, Split, write
from launch import attempts, loaders, status
from launch.attempts import RankRecord
from launch.claim import Claim
from launch.folder import RunFolder
from launch.together import batches_of_all
from trainer import tensor_file
from trainer.checkpoint import Store
from trainer.checkpoint_folder import file_name
from trainer.config import CheckpointConfig, TrainConfig
from trainer.hang import HangWatch
from trainer.loop import fit
from trainer.ownership import Extent, Ownership, owners
from trainer.partitions import KINDS, Piece
from trainer.run_state import EngineState, RunState
from trainer.step_report import StepReport
from trainer.tensor_file import FileRecord, TensorFile
from trainer.watch import StopRequest
from trainer.world import World

RANKS_A_NODE = 8
TENSORS = {f"layer{number:03d}": torch.Size([1024]) for number in range(256)}
"""As many as a Perceiver of the papers has, so small that time goes into calls and not into bytes."""
NUM_ATTEMPTS, NUM_STEPS, BEAT_SECONDS = 50, 200, 4.0
Part = Callable[[RunFolder, "OneOfMany"], Iterator[None]]
"""Yields when it is about to begin and when it is done: what it does in between is measured."""


def mark(word: str) -> None:
    """Say where the process is to who traces it."""
    with suppress(OSError):
        Path(f"/perceiver-scale/{word}").stat()


@contextmanager
def paused() -> Iterator[None]:
    """Do what the other ranks do: it counts neither as time nor as calls of this one."""
    mark("pause")
    try:
        yield
    finally:
        mark("resume")


@dataclass
class Script:
    """What rank 0 told, and what this rank said."""

    told: list[object] = field(default_factory=list)
    num_bytes: dict[str, int] = field(default_factory=dict)
    exchanges: int = 0
    others_seconds: float = 0.0
    folder: Path | None = None
    """Where the other ranks write their files of a save."""
    shares_memory: bool = False
    """Whether the first rank of each node tells where the memory is that its ranks share."""

    def count(self, collective: str, num_bytes: int) -> None:
        """Count what one exchange moves to or from this rank."""
        self.exchanges += 1
        self.num_bytes[collective] = self.num_bytes.get(collective, 0) + num_bytes


@dataclass(frozen=True)
class OneOfMany(World):
    """One rank of a world of which only this rank is there."""

    script: Script = field(default_factory=Script)

    def twin(self, _: float) -> "OneOfMany":
        return self

    def sum(self, tensor: Tensor) -> Tensor:
        self.script.count("all_reduce", tensor.numel() * tensor.element_size())
        return tensor.detach().clone()

    def maximum(self, tensor: Tensor) -> Tensor:
        return self.sum(tensor)

    def broadcast(self, item: Any) -> Any:  # noqa: ANN401
        if self.is_first:
            self.script.told.append(item)
        else:
            item = self.script.told.pop(0)
        self.script.count("broadcast", len(pickle.dumps(item)))
        return item

    def gather(self, item: Any) -> list[Any]:  # noqa: ANN401
        self.script.count("all_gather", len(pickle.dumps(item)) * self.world_size)
        return self._everyones(item)

    def collect(self, item: Any) -> list[Any]:  # noqa: ANN401
        self.script.count("gather", len(pickle.dumps(item)) * (self.world_size if self.is_first else 1))
        return self._everyones(item) if self.is_first else []

    def spread(self, tensor: Tensor, _: int) -> None:
        self.script.count("broadcast", tensor.numel() * tensor.element_size())

    def exchange(self, tensor: Tensor, sent: list[int], expected: list[int]) -> Tensor:
        self.script.count("all_to_all", 4 * (sum(sent) + sum(expected)))
        return tensor.new_zeros(sum(expected))

    def _everyones(self, item: Any) -> list[Any]:  # noqa: ANN401
        started = time.perf_counter()
        with paused():
            found = self._made_up(item)
        self.script.others_seconds += time.perf_counter() - started
        return found

    def _made_up(self, item: Any) -> list[Any]:  # noqa: ANN401
        match item:
            case [Extent(), *_]:
                return [extents(rank, self.world_size) for rank in range(self.world_size)]
            case {**files} if self.script.folder and all(isinstance(each, FileRecord) for each in files.values()):
                others = written_by_others(self.script.folder, self)
                return [item, others, *[{}] * (self.world_size - 2)]
            case ({**headers}, None) if self.script.folder and headers:
                every = {path.name: TensorFile(path).header for path in self.script.folder.glob("*.safetensors")}
                return [(every, None), *[({}, None)] * (self.world_size - 1)]
            case (str(), str(), str()):
                return [(f"node{rank // RANKS_A_NODE}", *item[1:]) for rank in range(self.world_size)]
            case str() if self.script.shares_memory and not item:
                return [board(min(RANKS_A_NODE, self.world_size))] * self.world_size
            case _:
                return [item] * self.world_size


def board(num_ranks: int) -> str:
    """Return the memory that the ranks of a node share."""
    from trainer.board import Board

    return str(Board.create(num_ranks)[1])


def extents(rank: int, world_size: int) -> list[Extent]:
    """Return what a rank holds at ZeRO 3."""
    part = -(-1024 // world_size)
    return [Extent(name, rank * part, min((rank + 1) * part, 1024)) for name in TENSORS]


def written_by_others(folder: Path, world: World) -> dict[str, FileRecord]:
    """Write the files of all other ranks, without waiting for the disk."""
    by_rank: dict[int, list[str]] = {}
    for name, rank in owners([extents(rank, world.world_size) for rank in range(world.world_size)]).items():
        by_rank.setdefault(rank, []).append(name)
    records = {}
    with mock.patch("os.fsync"):
        for rank, names in by_rank.items():
            for kind in KINDS if rank != world.rank else ():
                path = folder / file_name(kind, rank, world.world_size)
                records[path.name] = tensor_file.write(path, {name: torch.zeros(1024) for name in names})
    return records


class Idle:
    """An engine and a store of a run whose steps take no time, and whose state is small."""

    def __init__(self, world: World) -> None:
        held = extents(world.rank, world.world_size)
        self.pieces = [Piece(e.name, e.start, {kind: torch.zeros(e.stop - e.start) for kind in KINDS}) for e in held]
        self.world = world
        self.report = StepReport(torch.ones(()), {"label": torch.ones(())}, 0.1, torch.ones(()), False, {}, 0.0, 1024)
        self._ownership: Ownership | None = None

    @property
    def ownership(self) -> Ownership:
        self._ownership = self._ownership or Ownership(self.pieces, TENSORS, self.world)
        return self._ownership

    def step(self, *_: object, **__: object) -> StepReport:
        return self.report

    def snapshot(self) -> dict[str, dict[str, Tensor]]:
        return self.ownership.snapshot(self.pieces)

    def progress(self) -> EngineState:
        return EngineState(1, 1.0, {})

    def shapes(self) -> dict[str, dict[str, torch.Size]]:
        return dict.fromkeys(KINDS, TENSORS)

    def restore(self, read: Callable[[str, str, int, int], Tensor], _: EngineState) -> None:
        if hasattr(self.ownership, "deal"):
            self.world.from_each(lambda: self.ownership.read(self.pieces, read))
            self.ownership.deal(self.pieces)
        else:
            for piece in self.pieces:
                for kind in KINDS:
                    piece.tensors[kind].copy_(read(kind, piece.name, piece.start, piece.stop))

    def is_due(self, *_: object, **__: object) -> bool:
        return False

    def newest(self) -> str:
        return "one that is there"

    def reports(self) -> list[object]:
        return []

    def save(self, *_: object, **__: object) -> None: ...

    def wait(self) -> None: ...


def make_shards(folder: Path, num_shards: int) -> None:
    """Make a folder of shards whose manifest is real; the tars are holes of the size that it says."""
    (folder / "train").mkdir(parents=True)
    entries = []
    for number in range(num_shards):
        name = f"train/{number:06d}.tar"
        descriptor = os.open(folder / name, os.O_CREAT | os.O_WRONLY)
        os.truncate(descriptor, 1000)
        os.close(descriptor)
        entries.append(ShardEntry(name, 64, 1000, "0" * 64, "0" * 64, {"image": 64, "label": 64}))
    counts = (num_shards * 64 // 10,) * 10
    write(Manifest({"train": Split(Shards.of(entries), counts)}, tuple("0123456789")), folder)


def make_run(path: Path, shards: Path) -> RunFolder:
    """Make the folder of a run on these shards."""
    folder = RunFolder(path)
    folder.make()
    config = load(Path("configs/digits.yaml"), [f"data.shards={shards}"])
    train = replace(config.train, global_batch=1024)
    data = replace(config.data, audio=None, video=None, points=None, text=None, modality_dropout={}, lanes=1024)
    inputs = replace(config.model.inputs, audio=None, video=None, points=None, text=None)
    config = replace(config, train=train, data=data, model=replace(config.model, inputs=inputs))
    folder.config_path.write_text(dump(config))
    return folder


def start(folder: RunFolder, world: "OneOfMany") -> Iterator[None]:
    """Claim the run and open its shards, as every start does."""
    yield
    config: RunConfig = load(folder.config_path)
    with Claim(folder, world, take_over=False):
        loaders.train_loader(config, folder.quarantine_path, world).close()
        loaders.eval_split(config)
        loaders.identity(config)
        yield


def step(folder: RunFolder, world: "OneOfMany") -> Iterator[None]:
    """Make steps that take no time: what is left is the loop's own."""
    idle: Any = Idle(world)
    empty = Batch({}, {}, torch.zeros(1, dtype=torch.long), torch.ones(1), ("",))
    yield
    fit(
        TrainConfig(steps=NUM_STEPS, global_batch=1024, log_every_steps=50),
        engine=idle,
        batches=batches_of_all(world, lambda _: empty),
        state=RunState(),
        store=idle,
        sinks=[],
        stop=StopRequest(folder.stop_path),
        world=world,
    )
    yield


def heartbeat(folder: RunFolder, world: "OneOfMany") -> Iterator[None]:
    """Stand still under the watch, with everybody's files there."""
    world.script.shares_memory = True
    with HangWatch(folder.watch_folder, world, 60.0), Claim(folder, world, take_over=True):
        for rank in range(world.world_size):
            beat = {"rank": rank, "host": "h", "pid": 1, "count": 1, "progress": 0, "phase": "start"}
            path = folder.watch_folder / f"rank_{rank}.json"
            if rank != world.rank:
                path.write_text(json.dumps(beat))
        yield
        time.sleep(BEAT_SECONDS)
        yield


def save(folder: RunFolder, world: "OneOfMany") -> Iterator[None]:
    """Save, with a checkpoint before it that goes."""
    store, engine = _store(folder, world), Idle(world)
    for number in (1, 2):
        beside = folder.checkpoints_folder / f".step_{number:08d}.tmp"
        world.script.folder = beside
        if not world.is_first:
            beside.mkdir(parents=True)
        if number == 2:
            yield
        store.save(engine, RunState(step=number))  # type: ignore[arg-type]  # it has all that a save asks for
    yield
    store.close()
    assert [report.error for report in store.reports()] == ["", ""]
    for left in folder.checkpoints_folder.glob(".step_*"):
        shutil.rmtree(left)


def load_newest(folder: RunFolder, world: "OneOfMany") -> Iterator[None]:
    """Load what rank 0 has saved."""
    store, engine = _store(folder, world), Idle(world)
    world.script.folder = max(folder.checkpoints_folder.glob("step_*"))
    yield
    found = store.load(engine)  # type: ignore[arg-type]  # it has all that a load asks for
    yield
    assert found is not None
    store.close()


def look(folder: RunFolder, world: "OneOfMany") -> Iterator[None]:
    """Ask how far the run is, as `perceiver status` does, after many attempts."""
    for _ in range(NUM_ATTEMPTS):
        number = attempts.begin(folder, job_id="", nodes=["node0"]).number
        for rank in range(world.world_size if _ == NUM_ATTEMPTS - 1 else 1):
            attempts.write_rank(folder, number, RankRecord.here(rank, f"node{rank // RANKS_A_NODE}"))
        if _ < NUM_ATTEMPTS - 1:
            attempts.end(folder, number, 1)
    yield
    status.read(folder)
    yield


def _store(folder: RunFolder, world: World) -> Store:
    return Store(folder.checkpoints_folder, CheckpointConfig(keep_last=1, asynchronous=False), world)


PARTS: dict[str, Part] = {
    "start": start,
    "step": step,
    "heartbeat": heartbeat,
    "save": save,
    "load": load_newest,
    "status": look,
}


def measured(name: str, folder: RunFolder, rank: int, world_size: int, told: list[object]) -> tuple[Script, float]:
    """Return what one rank said in a part, and the seconds that it took; `told` is what rank 0 told."""
    script = Script(told=told)
    world = OneOfMany(rank, world_size, rank % RANKS_A_NODE, torch.device("cpu"), script=script)
    part = PARTS[name](folder, world)
    next(part)
    script.num_bytes, script.exchanges, script.others_seconds = {}, 0, 0.0
    mark(f"begin/{name}/{world_size}/{rank}")
    started = time.perf_counter()
    next(part)
    seconds = time.perf_counter() - started - script.others_seconds
    mark("end")
    next(part, None)
    return script, seconds
