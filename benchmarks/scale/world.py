"""One rank of many. The other ranks are simulated, and its exchanges with them are counted.

The simulated ranks send what this rank sends, with their own pieces, hosts and files where that matters. Rank 0 comes
first, and the others receive what it sent. Nothing here needs a network.
"""

import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from trainer.checkpoint import tensor_file
from trainer.checkpoint.layout import file_name
from trainer.checkpoint.manifest import FileRecord
from trainer.checkpoint.tensor_file import TensorFile
from trainer.distributed.board import Board
from trainer.distributed.exchange import Extent
from trainer.distributed.world import World
from trainer.engine.step_report import StepReport
from trainer.optim.ownership import Ownership, owners
from trainer.optim.partitions import KINDS, Piece
from trainer.run_state import EngineState

# As many as a node of H100s has GPUs.
RANKS_A_NODE = 8
NUM_ELEMENTS = 1024
TENSORS = {f"layer{number:03d}": torch.Size([NUM_ELEMENTS]) for number in range(256)}
"""Its tensors: as many as a Perceiver of the papers has, so small that time goes into calls and not into bytes."""


def mark(word: str) -> None:
    """Say where the process is to who traces it."""
    with suppress(OSError):
        # Of a path that is nowhere: strace writes it down in its place among the other calls, and it asks no disk.
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
class Cost:
    """What a part asks of one rank."""

    num_bytes: dict[str, int] = field(default_factory=dict)
    """The bytes that exchanges move to or from this rank, by collective."""
    exchanges: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def count(self, collective: str, num_bytes: int) -> None:
        """Count an exchange."""
        self.exchanges += 1
        self.num_bytes[collective] = self.num_bytes.get(collective, 0) + num_bytes

    @contextmanager
    def timed(self, sign: int = 1) -> Iterator[None]:
        """Add the time inside; with the sign -1 take it away again."""
        seconds, cpu_seconds = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.seconds += sign * (time.perf_counter() - seconds)
            self.cpu_seconds += sign * (time.process_time() - cpu_seconds)


@dataclass
class Script:
    """What the others say."""

    told: list[object]
    """The objects that rank 0 has sent, in their order."""
    beat_seconds: float
    """How long heartbeats are watched."""
    folder: Path | None = None
    """The folder in which the other ranks have their files of a checkpoint."""
    shares_memory: bool = False
    """Whether the first rank of each node tells where the memory is that its ranks share."""
    board: Board | None = field(default_factory=lambda: Board.create(RANKS_A_NODE))
    """The memory that the ranks of a node share."""
    cost: Cost = field(default_factory=Cost)


@dataclass(frozen=True)
class OneOfMany(World):
    """One rank of a world of which only this rank is there."""

    script: Script = field(default_factory=lambda: Script([], 0.0))

    def twin(self, _: float) -> "OneOfMany":
        return self

    def sum(self, tensor: Tensor) -> Tensor:
        self.script.cost.count("all_reduce", tensor.numel() * tensor.element_size())
        return tensor.detach().clone()

    def maximum(self, tensor: Tensor) -> Tensor:
        return self.sum(tensor)

    def broadcast(self, item: Any) -> Any:  # noqa: ANN401
        if self.is_first:
            self.script.told.append(item)
        else:
            item = self.script.told.pop(0)
        # As long as what torch.distributed would send: it pickles objects.
        self.script.cost.count("broadcast", len(pickle.dumps(item)))
        return item

    def gather(self, item: Any) -> list[Any]:  # noqa: ANN401
        self.script.cost.count("all_gather", len(pickle.dumps(item)) * self.world_size)
        return self._everyones(item)

    def collect(self, item: Any) -> list[Any]:  # noqa: ANN401
        self.script.cost.count("gather", len(pickle.dumps(item)) * (self.world_size if self.is_first else 1))
        return self._everyones(item) if self.is_first else []

    def spread(self, tensor: Tensor, _: int) -> None:
        self.script.cost.count("broadcast", tensor.numel() * tensor.element_size())

    def exchange(self, tensor: Tensor, sent: list[int], expected: list[int]) -> Tensor:
        self.script.cost.count("all_to_all", 4 * (sum(sent) + sum(expected)))
        return tensor.new_zeros(sum(expected))

    def _everyones(self, item: Any) -> list[Any]:  # noqa: ANN401
        with paused(), self.script.cost.timed(-1):
            return self._made_up(item)

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
            # What a rank says of its host: those of other nodes come from other hosts.
            case (str(), str(), str()):
                here, nodes = self.rank // RANKS_A_NODE, [rank // RANKS_A_NODE for rank in range(self.world_size)]
                return [item if node == here else (f"node{node}", *item[1:]) for node in nodes]
            # Which rank is the first of its node.
            case int() if self.script.shares_memory:
                return [rank // RANKS_A_NODE * RANKS_A_NODE for rank in range(self.world_size)]
            case str() if self.script.shares_memory and not item:
                assert self.script.board is not None, "this machine has no memory to share"
                return [str(self.script.board.path)] * self.world_size
            case _:
                return [item] * self.world_size


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
    # What the other ranks wait for is not this rank's time.
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
        self.report = StepReport(1.0, {"label": 1.0}, 0.1, 1.0, False, {}, 0.0, 1024)
        self.steps_ahead = 0
        self._ownership: Ownership | None = None

    @property
    def ownership(self) -> Ownership:
        self._ownership = self._ownership or Ownership(self.pieces, TENSORS, self.world)
        return self._ownership

    def start(self, _: object, flags: Sequence[bool]) -> Any:  # noqa: ANN401
        """Make a step of no time; what any rank wants is what this one wants."""
        return SimpleNamespace(report=lambda: replace(self.report, flags=tuple(flags)))

    def snapshot(self) -> dict[str, dict[str, Tensor]]:
        return self.ownership.snapshot(self.pieces)

    def progress(self) -> EngineState:
        return EngineState(1, 1.0, {})

    def shapes(self) -> dict[str, dict[str, torch.Size]]:
        return dict.fromkeys(KINDS, TENSORS)

    def restore(self, read: Callable[[str, str, int, int], Tensor], _: EngineState) -> None:
        self.world.from_each(lambda: self.ownership.read(self.pieces, read))
        self.ownership.deal(self.pieces)

    def is_due(self, *_: object, **__: object) -> bool:
        return False

    def newest(self) -> str:
        return "one that is there"

    def reports(self) -> list[object]:
        return []

    def save(self, *_: object, **__: object) -> None: ...

    def wait(self) -> None: ...
