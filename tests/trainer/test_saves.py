"""When a checkpoint is due, which are kept, and what a save that fails leaves."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
from tiny import accuracy, engine, whole_batch

from trainer.checkpoint.manifest import read_manifest
from trainer.checkpoint.names import complete
from trainer.checkpoint.store import Store
from trainer.config import CheckpointConfig, TrainConfig
from trainer.distributed.world import World
from trainer.health.stop_request import StopRequest
from trainer.loop import fit
from trainer.run_state import RunState


def steps(folder: Path) -> dict[int, float | None]:
    return {read_manifest(path).state.step: read_manifest(path).score for path in complete(folder)}


def test_the_best_checkpoint_is_kept_however_old_it_is(tmp_path: Path, world: World) -> None:
    store = Store(tmp_path, CheckpointConfig(save_every_steps=1, keep_last=2, keep_best=True), world)
    scores = iter([0.25, 0.75, 0.5, float("nan"), 0.125, 0.0])
    trained = engine(world, steps=6)
    fit(
        TrainConfig(steps=6, global_batch=16, evaluate_every_steps=1),
        engine=trained,
        batches=whole_batch,
        state=RunState(),
        store=store,
        sinks=[],
        stop=StopRequest(),
        world=world,
        evaluate=lambda: accuracy(1, next(scores)),
    )
    store.close()
    trained.close()
    assert steps(tmp_path) == {2: 0.75, 5: 0.125, 6: 0.0}


def test_the_time_to_the_next_save_begins_anew_with_every_save(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("trainer.checkpoint.store.time", clock)
    store = Store(tmp_path, CheckpointConfig(save_every_steps=0, save_every_minutes=10), world)
    trained = engine(world)
    due = []
    for seconds in (599, 600, 601, 1199, 1200):
        clock.now = float(seconds)
        due.append(store.is_due(1))
        if due[-1]:
            store.save(trained, RunState(step=seconds))
            store.wait()
    store.close()
    trained.close()
    assert due == [False, True, False, False, True]
    assert set(steps(tmp_path)) == {600, 1200}


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_commit_that_fails_is_reported_tried_again_and_leaves_the_older_checkpoints(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    store = Store(tmp_path, CheckpointConfig(keep_last=1, asynchronous=asynchronous), world)
    trained = engine(world)
    store.save(trained, RunState(step=1))
    store.wait()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("trainer.checkpoint.store.write_manifest", full)
        store.save(trained, RunState(step=2))
        store.wait()
    assert [bool(report.error) for report in store.reports()] == [False, True]
    assert set(steps(tmp_path)) == {1}
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]
    store.save(trained, RunState(step=3))
    store.wait()
    assert [report.error for report in store.reports()] == [""]
    assert set(steps(tmp_path)) == {3}
    loaded = store.load(trained)
    assert loaded is not None
    assert loaded.state.step == 3
    store.close()
    trained.close()


def test_a_save_is_of_its_moment_though_training_goes_on(tmp_path: Path, world: World) -> None:
    store = Store(tmp_path, CheckpointConfig(), world)
    trained = engine(world)
    trained.step(whole_batch(0))
    before = {name: tensor.clone() for name, tensor in trained.snapshot()["weight"].items()}
    store.save(trained, RunState(step=1))
    trained.step(whole_batch(1))
    assert store.load(trained) is not None
    assert all(torch.equal(tensor, before[name]) for name, tensor in trained.snapshot()["weight"].items())
    store.close()
    trained.close()
