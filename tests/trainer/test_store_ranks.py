"""All ranks save or none, whoever meets the fault; what they load is what they wrote, and nothing that is damaged."""

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
from threads import ThreadWorld, on_ranks

from trainer.checkpoint import names
from trainer.checkpoint.choice import first_readable
from trainer.checkpoint.layout import read_weights
from trainer.checkpoint.manifest import FileRecord, read_manifest
from trainer.checkpoint.names import committed, complete
from trainer.checkpoint.store import Store
from trainer.checkpoint.tensor_file import write
from trainer.config import CheckpointConfig
from trainer.distributed.world import World
from trainer.optim.partitions import KINDS
from trainer.run_state import EngineState, PassedOver, RunState

SHAPES = {"first": torch.Size([3, 2]), "second": torch.Size([5])}
AT_ONCE = CheckpointConfig(asynchronous=False)
ALONE = World(0, 1, 0, torch.device("cpu"))


class Halves:
    """An engine whose first rank holds the first tensor, and whose last one holds the second."""

    def __init__(self, world: World, value: float = 0.0) -> None:
        self.names = [name for rank, name in enumerate(SHAPES) if rank % world.world_size == world.rank]
        self.tensors = {kind: {name: torch.full(SHAPES[name], value) for name in self.names} for kind in KINDS}
        self.progressed = EngineState(0, 0.0, {})

    def snapshot(self) -> dict[str, dict[str, Tensor]]:
        return self.tensors

    def progress(self) -> EngineState:
        return EngineState(4, 3.0, {"cur_scale": 512.0})

    def shapes(self) -> dict[str, dict[str, torch.Size]]:
        return dict.fromkeys(KINDS, SHAPES)

    def restore(self, read: Callable[[str, str, int, int], Tensor], progress: EngineState) -> None:
        for kind, tensors in self.tensors.items():
            for name, tensor in tensors.items():
                # In two parts, as another cut would.
                parts = [read(kind, name, 0, 2), read(kind, name, 2, tensor.numel())]
                tensor.copy_(torch.cat(parts).view(tensor.shape))
        self.progressed = progress


def values(engine: Halves) -> set[float]:
    return {
        float(value) for tensors in engine.tensors.values() for tensor in tensors.values() for value in tensor.unique()
    }


def saved(
    folder: Path,
    *steps: int,
    world_size: int = 2,
    config: CheckpointConfig = AT_ONCE,
    **parts: Any,  # noqa: ANN401
) -> list[Any]:
    """Save a checkpoint after each step, its values the step's number; return what each rank was told."""

    def rank(world: ThreadWorld) -> Any:  # noqa: ANN401
        store = Store(folder, config, world, **parts)
        for step in steps:
            store.save(Halves(world, float(step)), RunState(step=step))
        store.close()
        return store.reports()

    return on_ranks(world_size, rank)


def loaded(folder: Path, *, world_size: int = 2, **parts: Any) -> list[Any]:  # noqa: ANN401
    def rank(world: ThreadWorld) -> Any:  # noqa: ANN401
        store, engine = Store(folder, AT_ONCE, world, **parts), Halves(world, -1.0)
        found = store.load(engine)
        store.close()
        return found and (found.state, values(engine), engine.progressed, found.damaged)

    return on_ranks(world_size, rank)


@pytest.mark.parametrize("reads", [1, 2])
@pytest.mark.parametrize("writes", [1, 2])
def test_what_some_ranks_wrote_other_ranks_read(tmp_path: Path, writes: int, reads: int) -> None:
    assert loaded(tmp_path) == [None, None]
    reports = saved(tmp_path, 3, 7, world_size=writes)
    num_bytes = sum(path.stat().st_size for path in tmp_path.glob("step_00000007/*.safetensors"))
    assert [(told.step, told.num_bytes, told.error) for told in reports[-1]][-1] == (7, num_bytes, "")
    manifest = read_manifest(tmp_path / "step_00000007")
    assert (manifest.world_size, len(manifest.files)) == (writes, 3 * writes)
    assert manifest.versions is not None
    assert {"python", "torch", "deepspeed"} <= manifest.versions.keys()
    expected = (RunState(step=7), {7.0}, EngineState(4, 3.0, {"cur_scale": 512.0}), ())
    assert loaded(tmp_path, world_size=reads) == [expected] * reads


@pytest.mark.parametrize("number", range(6))
def test_damage_in_any_file_is_found_by_one_rank_and_told_to_all(tmp_path: Path, number: int) -> None:
    saved(tmp_path, 3, 7)
    path = sorted(tmp_path.glob("step_00000007/*.safetensors"))[number]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    for state, found, _, damaged in loaded(tmp_path):
        assert (state.step, found) == (3, {3.0})
        assert damaged == (f"{path}: content does not match its hash",)


@pytest.mark.parametrize("broken_rank", [0, 1])
def test_a_write_that_fails_on_one_rank_is_no_save_on_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken_rank: int
) -> None:
    def on_a_full_disk(path: Path, tensors: dict[str, Tensor]) -> FileRecord:
        if f"exp_avg-{broken_rank:05d}" in path.name and "step_00000007" in str(path):
            raise OSError(28, "No space left on device")
        return write(path, tensors)

    monkeypatch.setattr("trainer.checkpoint.store.write", on_a_full_disk)
    for reports in saved(tmp_path, 3, 7, 8):
        assert [report.error for report in reports] == [
            "",
            f"rank {broken_rank}: [Errno 28] No space left on device",
            "",
        ]
    assert [path.name for path in complete(tmp_path)] == ["step_00000003", "step_00000008"]
    assert not list(tmp_path.glob(".step_*"))


@pytest.mark.parametrize("work", ["clear", "commit"])
def test_what_only_the_first_rank_does_and_fails_at_is_told_to_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    saved(tmp_path, 3)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        target = "atomic.remove" if work == "clear" else "write_manifest"
        broken.setattr(f"trainer.checkpoint.store.{target}", full)
        (tmp_path / ".step_00000001.tmp").mkdir()
        assert [reports[0].error for reports in saved(tmp_path, 7)] == ["[Errno 28] No space left on device"] * 2
    assert [path.name for path in committed(tmp_path)] == ["step_00000003"]
    assert [reports[0].error for reports in saved(tmp_path, 8)] == [""] * 2
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_process_whose_run_is_anothers_now_changes_nothing(tmp_path: Path) -> None:
    """The fence is asked before the folder is touched, and again before a checkpoint gets its name."""
    saved(tmp_path, 3)
    for allowed in (0, 1):
        asked = list[bool]()

        def fence(asked: list[bool] = asked, allowed: int = allowed) -> None:
            asked.append(True)
            if len(asked) > allowed:
                raise PermissionError(1, "another start owns this run")

        (tmp_path / ".step_00000007.tmp").mkdir(exist_ok=True)
        reports = saved(tmp_path, 7, world_size=1, guard=fence)
        assert "another start owns this run" in reports[0][0].error
        assert [path.name for path in committed(tmp_path)] == ["step_00000003"]
        # Neither what the other start is writing.
        assert (tmp_path / ".step_00000007.tmp").exists()


def test_the_exchanges_of_a_save_in_the_background_do_not_meet_those_of_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchanged = threading.Event()

    def late(path: Path, tensors: dict[str, Tensor]) -> FileRecord:
        if "-00000-of-" in path.name:
            exchanged.wait(20.0)
        return write(path, tensors)

    monkeypatch.setattr("trainer.checkpoint.store.write", late)

    def rank(world: ThreadWorld) -> Any:  # noqa: ANN401
        store = Store(tmp_path, CheckpointConfig(), world)
        store.save(Halves(world, 1.0), RunState(step=1))
        assert store.reports() == [], "it is still being written"
        found = [world.gather((world.rank, number)) for number in range(20)]
        exchanged.set()
        store.close()
        return found, [report.error for report in store.reports()]

    assert on_ranks(2, rank) == [([[(0, number), (1, number)] for number in range(20)], [""])] * 2


def test_a_commit_waits_for_one_message_a_rank_and_tells_its_end_in_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = dict[tuple[int, bool], list[str]]()

    def counted(name: str, exchange: Callable[[ThreadWorld, Any], Any]) -> Callable[[ThreadWorld, Any], Any]:
        def call(world: ThreadWorld, item: Any) -> Any:  # noqa: ANN401
            is_save = threading.current_thread().name.startswith("checkpoint")
            said.setdefault((world.rank, is_save), []).append(name)
            return exchange(world, item)

        return call

    gather = ThreadWorld.gather
    monkeypatch.setattr(ThreadWorld, "gather", counted("gather", gather))
    monkeypatch.setattr(ThreadWorld, "broadcast", counted("broadcast", lambda world, item: gather(world, item)[0]))
    collect = counted("collect", lambda world, item: gather(world, item) if world.is_first else gather(world, item)[:0])
    monkeypatch.setattr(ThreadWorld, "collect", collect, raising=False)
    saved(tmp_path, 1, world_size=4)
    # The folder is there; what was written; what became of it.
    assert [said[rank, True] for rank in range(4)] == [["broadcast", "collect", "broadcast"]] * 4


def test_a_save_does_not_read_the_checkpoints_before_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = list[Path]()
    problem = names.problem

    def counted(path: Path) -> str:
        looked.append(path)
        return problem(path)

    saved(tmp_path, 1, config=CheckpointConfig(keep_last=9, asynchronous=False))
    monkeypatch.setattr(names, "problem", counted)
    saved(tmp_path, 2, 3, 4, 5, config=CheckpointConfig(keep_last=9, asynchronous=False))
    # That of the process before, which nobody here has seen whole.
    assert looked == [tmp_path / "step_00000001"]


def test_a_checkpoint_that_was_harmed_since_it_was_written_counts_no_more(tmp_path: Path) -> None:
    def rank(world: ThreadWorld) -> list[str]:
        store = Store(tmp_path, CheckpointConfig(keep_last=2, asynchronous=False), world)
        for step in (1, 2):
            store.save(Halves(world), RunState(step=step))
        if world.is_first:
            next(tmp_path.glob("step_00000002/exp_avg-*")).unlink()
        store.save(Halves(world), RunState(step=3))
        store.close()
        return [path.name for path in complete(tmp_path)]

    assert on_ranks(2, rank) == [["step_00000001", "step_00000003"]] * 2


def test_a_save_waits_for_the_one_before_it_and_both_are_told(tmp_path: Path) -> None:
    [reports] = saved(tmp_path, 1, 2, 3, world_size=1, config=CheckpointConfig(keep_last=5))
    assert [report.step for report in reports] == [1, 2, 3]
    assert all(0 <= report.wait_seconds <= report.seconds for report in reports)
    assert [path.name for path in complete(tmp_path)] == [f"step_{step:08d}" for step in (1, 2, 3)]


def test_a_store_that_was_closed_saves_no_more(tmp_path: Path) -> None:
    store = Store(tmp_path, CheckpointConfig(), ALONE)
    store.close()
    with pytest.raises(RuntimeError):
        store.save(Halves(ALONE), RunState(step=1))


def test_a_run_on_other_data_is_refused_and_on_the_same_goes_on(tmp_path: Path) -> None:
    identity = {"seed": 1, "data": "a1b2", "global_batch": 16}
    saved(tmp_path, 3, identity=identity)
    for key, value in (("seed", 2), ("data", "c3d4"), ("global_batch", 32), ("further", 1)):
        with pytest.raises(
            ValueError, match=rf"step_00000003: belongs to a run on other data \({key} was .*, is {value!r}\)"
        ):
            loaded(tmp_path, identity={**identity, key: value})
    assert [found[0].step for found in loaded(tmp_path, identity=identity)] == [3, 3]


def test_a_damaged_checkpoint_gives_its_place_to_a_whole_one_of_its_step(tmp_path: Path) -> None:
    saved(tmp_path, 3, 7)
    path = next(tmp_path.glob("step_00000007/weight*"))
    path.write_bytes(path.read_bytes()[:-1])
    assert [found[0].step for found in loaded(tmp_path)] == [3, 3]
    assert [reports[0].error for reports in saved(tmp_path, 7)] == ["", ""]
    assert [(found[0].step, found[3]) for found in loaded(tmp_path)] == [(7, ())] * 2
    saved(tmp_path, 8)
    assert not list(tmp_path.glob(".step_*"))


def test_what_is_passed_over_is_known_to_all_ranks_of_a_restart(tmp_path: Path) -> None:
    saved(tmp_path, 3)

    def note(world: ThreadWorld) -> Any:  # noqa: ANN401
        store = Store(tmp_path, AT_ONCE, world)
        told = store.pass_over(PassedOver((5, 4), 2)), store.pass_over(PassedOver((9,), 1))
        found = store.load(Halves(world))
        store.close()
        return told, found and found.state

    state = RunState(step=3, skipped_batches=(4, 5, 9), rollbacks=2)
    assert on_ranks(2, note) == [(("", ""), state)] * 2
    assert [found[0] for found in loaded(tmp_path)] == [state] * 2


def test_a_note_that_the_disk_does_not_take_is_told_and_holds_in_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, 3)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainer.checkpoint.store.atomic.write", full)

    def note(world: ThreadWorld) -> Any:  # noqa: ANN401
        store = Store(tmp_path, AT_ONCE, world)
        told = store.pass_over(PassedOver((4,), 1))
        found = store.load(Halves(world))
        store.close()
        return told, found and found.state.skipped_batches

    assert on_ranks(2, note) == [("[Errno 28] No space left on device", (4,))] * 2


def test_a_save_that_failed_is_due_again_in_a_minute_and_not_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("trainer.checkpoint.store.time", clock)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    store = Store(tmp_path, CheckpointConfig(save_every_steps=0, save_every_minutes=10, asynchronous=False), ALONE)
    with monkeypatch.context() as broken:
        broken.setattr("trainer.checkpoint.store.write", full)
        store.save(Halves(ALONE), RunState(step=1))
    due = []
    for clock.now in (59.9, 60.5):
        due.append(store.is_due(1))
    store.save(Halves(ALONE), RunState(step=2))
    for clock.now in (122.0, 659.0, 660.5):
        due.append(store.is_due(3))
    store.close()
    assert due == [False, True, False, False, True]


@pytest.mark.parametrize("keep_best", [True, False])
def test_what_was_evaluated_is_saved_where_the_best_is_kept(tmp_path: Path, keep_best: bool) -> None:
    store = Store(tmp_path, CheckpointConfig(save_every_steps=4, save_every_minutes=0, keep_best=keep_best), ALONE)
    store.close()
    assert [store.is_due(step, is_scored=True) for step in (3, 4)] == [keep_best, True]
    assert [store.is_due(step) for step in (3, 4)] == [False, True]


def test_weights_are_read_from_all_files_of_the_weights(tmp_path: Path) -> None:
    saved(tmp_path, 3)
    tensors = read_weights(tmp_path / "step_00000003")
    assert {name: tensor.shape for name, tensor in tensors.items()} == SHAPES
    assert all(bool((tensor == 3).all()) for tensor in tensors.values())


@pytest.mark.parametrize("sees_it", [0, 1])
def test_a_checkpoint_that_one_rank_cannot_read_is_loaded_by_none(tmp_path: Path, sees_it: int) -> None:
    saved(tmp_path, 3, 7)

    def rank(world: ThreadWorld) -> Any:  # noqa: ANN401
        def read(path: Path) -> str:
            if world.rank == sees_it and path.name == "step_00000007":
                raise ValueError("its disk is gone")
            return path.name

        return first_readable(tmp_path, "newest", world, read)

    path = tmp_path / "step_00000003"
    assert on_ranks(2, rank) == [(path, path.name, ("its disk is gone",))] * 2


def test_a_save_is_told_with_the_time_that_it_took_and_that_the_training_waited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=1000.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("trainer.checkpoint.store.time", clock)

    class Copied(Halves):
        def snapshot(self) -> dict[str, dict[str, Tensor]]:
            clock.now += 0.5
            return super().snapshot()

    def slow(path: Path, tensors: dict[str, Tensor]) -> FileRecord:
        clock.now += 1.0
        return write(path, tensors)

    monkeypatch.setattr("trainer.checkpoint.store.write", slow)
    store = Store(tmp_path, AT_ONCE, ALONE)
    store.save(Copied(ALONE), RunState(step=1))
    store.close()
    # One file a kind.
    assert [(report.wait_seconds, report.seconds) for report in store.reports()] == [(0.5, 3.5)]
