"""When a checkpoint is due, which are kept, and what a save that fails leaves."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
from tiny import accuracy, engine, whole_batch

from trainer.checkpoint.manifest import read_manifest
from trainer.checkpoint.names import complete
from trainer.checkpoint.store import SaveReport, Store
from trainer.config import CheckpointConfig, TrainConfig
from trainer.distributed.world import World
from trainer.health.stop_request import StopRequest
from trainer.loop import fit
from trainer.run_state import RunState


def steps(folder: Path) -> dict[int, float | None]:
    return {read_manifest(path).state.step: read_manifest(path).score for path in complete(folder)}


def fitted(world: World, store: Store, config: TrainConfig, scores: Iterator[float]) -> None:
    """Train with a score for each evaluation, and close what was open."""
    trained = engine(world, steps=config.steps)
    fit(
        config,
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


def test_the_best_checkpoint_is_kept_however_old_it_is(tmp_path: Path, world: World) -> None:
    store = Store(tmp_path, CheckpointConfig(save_every_steps=1, keep_last=2, keep_best=True), world)
    scores = iter([0.25, 0.75, 0.5, float("nan"), 0.125, 0.0])
    fitted(world, store, TrainConfig(steps=6, global_batch=16, evaluate_every_steps=1), scores)
    assert steps(tmp_path) == {2: 0.75, 5: 0.125, 6: 0.0}


def test_every_evaluated_step_is_saved_where_the_best_is_kept_and_no_other(tmp_path: Path, world: World) -> None:
    config = CheckpointConfig(save_every_steps=0, save_every_minutes=0.0, keep_last=9, keep_best=True)
    for keeps_best, saved in ((True, {0: None, 2: 0.5, 4: 0.5, 5: 0.5}), (False, {0: None, 5: 0.5})):
        folder = tmp_path / str(keeps_best)
        store = Store(folder, replace(config, keep_best=keeps_best), world)
        fitted(world, store, TrainConfig(steps=5, global_batch=16, evaluate_every_steps=2), repeat(0.5))
        assert steps(folder) == saved


def test_what_is_due_follows_from_the_step_the_score_and_the_clock(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("trainer.checkpoint.store.time", clock)
    by_steps = [(3, False), (3, True), (6, False), (6, True)]
    by_score = [(1, True), (2, True), (3, True), (4, True), (5, False), (5, True), (6, True)]
    for config, planned in (
        (CheckpointConfig(save_every_steps=3, save_every_minutes=0.0), by_steps),
        (CheckpointConfig(save_every_steps=0, save_every_minutes=0.0), []),
        (CheckpointConfig(save_every_steps=5, save_every_minutes=0.0, keep_best=True), by_score),
    ):
        store = Store(tmp_path, config, world)
        every = [(step, is_scored) for step in range(1, 7) for is_scored in (False, True)]
        assert [
            (step, is_scored) for step, is_scored in every if store.is_planned(step, is_scored=is_scored)
        ] == planned
        clock.now = 1e9
        assert [(step, is_scored) for step, is_scored in every if store.is_due(step, is_scored=is_scored)] == planned
        assert not store.is_planned(1)
        clock.now = 0.0
        store.close()


def test_a_save_in_the_background_is_reported_once_when_it_has_ended(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("trainer.checkpoint.store.time", clock)
    store, trained = Store(tmp_path, CheckpointConfig(), world), engine(world)
    snapshot = trained.snapshot
    monkeypatch.setattr(trained, "snapshot", lambda: (vars(clock).update(now=clock.now + 2.0), snapshot())[1])
    assert store.reports() == []
    store.save(trained, RunState(step=3))
    assert store._pending is not None
    store._pending.result()
    [report] = store.reports()
    size = sum(path.stat().st_size for path in (tmp_path / "step_00000003").glob("*.safetensors"))
    assert report == SaveReport(step=3, wait_seconds=2.0, seconds=2.0, num_bytes=size, error="")
    assert store.reports() == []
    store.close()
    trained.close()


def test_a_save_that_failed_is_due_again_after_a_minute_and_no_later_than_by_the_clock(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("trainer.checkpoint.store.time", clock)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainer.checkpoint.store.write_manifest", full)
    trained = engine(world)
    for minutes, due_at in ((0.5, 30.0), (10.0, 60.0), (0.0, 60.0)):
        clock.now = 0.0
        store = Store(tmp_path, CheckpointConfig(save_every_steps=0, save_every_minutes=minutes), world)
        store.save(trained, RunState(step=1))
        store.wait()
        for clock.now, is_due in ((due_at - 1, False), (due_at, True)):
            assert store.is_due(1) is is_due
        store.close()
    trained.close()


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
