"""Of the ranks that load a checkpoint each opens a share of its files, and all are told the same."""

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
sys.path.insert(0, str(Path(__file__).parent))
from checkpoints import rewrite
from threads import ThreadWorld, on_ranks

from trainer.checkpoint.choice import read_weights
from trainer.checkpoint.manifest import examine, read_manifest
from trainer.checkpoint.names import MANIFEST
from trainer.checkpoint.store import Store
from trainer.config import CheckpointConfig
from trainer.optim.ownership import Ownership
from trainer.optim.partitions import KINDS, WEIGHT, Piece
from trainer.run_state import EngineState, RunState

NAMES = [f"layer{number}" for number in range(12)]
SHAPES = {name: torch.Size([8, 3]) for name in NAMES}
Opened = Callable[[], list[str]]
WRITERS, NUM_FILES = 4, 4 * len(KINDS)


def value(kind: str, name: str) -> Tensor:
    return torch.arange(24.0) + 100 * NAMES.index(name) + 10_000 * KINDS.index(kind)


class Even:
    """What a store wants of an engine, cut as at ZeRO 3 (or held whole by all, as at ZeRO 0)."""

    def __init__(self, world: ThreadWorld, *, stage: int = 3, filled: bool = False) -> None:
        part = 24 if stage == 0 else 24 // world.world_size
        start = 0 if stage == 0 else part * world.rank
        self.world = world
        self.pieces = [
            Piece(name, start, {kind: value(kind, name)[start : start + part] * filled for kind in KINDS})
            for name in NAMES
        ]
        self.ownership = Ownership(self.pieces, SHAPES, world)

    def snapshot(self) -> dict[str, dict[str, Tensor]]:
        return self.ownership.snapshot(self.pieces)

    def progress(self) -> EngineState:
        return EngineState(4, 3.0, {})

    def shapes(self) -> dict[str, dict[str, torch.Size]]:
        return dict.fromkeys(KINDS, SHAPES)

    def restore(self, read: Callable[[str, str, int, int], Tensor], _: EngineState) -> None:
        self.world.from_each(lambda: self.ownership.read(self.pieces, read))
        self.ownership.deal(self.pieces)

    @property
    def is_right(self) -> bool:
        return all(
            torch.equal(tensor, value(kind, piece.name)[piece.start : piece.stop])
            for piece in self.pieces
            for kind, tensor in piece.tensors.items()
        )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    def save(world: ThreadWorld) -> None:
        store = Store(tmp_path, CheckpointConfig(asynchronous=False), world)
        store.save(Even(world, filled=True), RunState(step=3))
        store.close()

    on_ranks(WRITERS, save)
    return tmp_path


def loads(folder: Path, world_size: int, stage: int, opens: Opened) -> list[Counter[str]]:
    """Return which files each rank opens while it loads; all of them get every bit."""

    def load(world: ThreadWorld) -> Counter[str]:
        store, engine = Store(folder, CheckpointConfig(), world), Even(world, stage=stage)
        found = store.load(engine)
        assert found is not None
        assert found.state == RunState(step=3)
        assert engine.is_right
        store.close()
        return Counter(opens())

    return on_ranks(world_size, load)


@pytest.mark.parametrize("stage", [0, 3])
@pytest.mark.parametrize("world_size", [1, 2, 8])
def test_a_load_opens_each_file_of_a_checkpoint_as_often_whatever_the_number_of_ranks(
    folder: Path, opens: Opened, world_size: int, stage: int
) -> None:
    by_rank = loads(folder, world_size, stage, opens)
    tensors = [Counter({name: count for name, count in one.items() if "safetensors" in name}) for one in by_rank]
    # Once to hash it, once for its header, and once for each tensor in it.
    assert sum(tensors, Counter()).total() == 2 * NUM_FILES + len(KINDS) * len(NAMES)
    assert max(one.total() for one in tensors) <= -(-(2 * NUM_FILES + len(KINDS) * len(NAMES)) // world_size) + 6
    assert [one[MANIFEST] > 0 for one in by_rank] == [True] + [False] * (world_size - 1)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_weights_alone_are_read_once_too_and_are_everyones(folder: Path, opens: Opened, world_size: int) -> None:
    def read(world: ThreadWorld) -> tuple[bool, list[str]]:
        found = read_weights(folder, "newest", world).tensors
        mine = [name for name in opens() if name.startswith(WEIGHT)]
        return all(torch.equal(found[name].view(-1), value(WEIGHT, name)) for name in NAMES), mine

    told = on_ranks(world_size, read)
    assert all(is_right for is_right, _ in told)
    assert sum(len(mine) for _, mine in told) == 2 * WRITERS + len(NAMES)


@pytest.mark.parametrize("stage", [0, 3])
def test_a_file_that_is_none_of_tensors_is_refused_by_all_ranks_alike(folder: Path, stage: int) -> None:
    """Its hash is that of the manifest, so that only who opens it can tell."""
    [checkpoint] = folder.glob("step_*")
    path = sorted(checkpoint.glob("exp_avg_sq-*"))[1]
    path.write_bytes(b"none of ours")
    files = {name: asdict(record) for name, record in read_manifest(checkpoint).files.items()}
    rewrite(checkpoint, "files", {**files, path.name: asdict(examine(path))})

    def load(world: ThreadWorld) -> str:
        store = Store(folder, CheckpointConfig(), world)
        with pytest.raises(ValueError, match="safetensors") as refused:
            store.load(Even(world, stage=stage))
        store.close()
        return str(refused.value)

    sentences = on_ranks(3, load)
    assert len(set(sentences)) == 1
    assert sentences[0].startswith(f"{path}: is not a safetensors file")


def test_a_file_that_is_cut_while_it_is_read_is_refused_by_all_ranks(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [checkpoint] = folder.glob("step_*")
    path = checkpoint / "weight-00002-of-00004.safetensors"

    def load(world: ThreadWorld) -> str:
        store, engine = Store(folder, CheckpointConfig(), world), Even(world)
        restore = engine.restore

        def cut(read: Callable[[str, str, int, int], Tensor], progress: EngineState) -> None:
            if world.is_first:
                path.write_bytes(path.read_bytes()[:-100])
            world.barrier()
            restore(read, progress)

        monkeypatch.setattr(engine, "restore", cut)
        with pytest.raises(ValueError, match="became shorter") as refused:
            store.load(engine)
        store.close()
        return str(refused.value)

    [sentence] = set(on_ranks(2, load))
    assert sentence == f"{path}: became shorter while it was read"
