"""fit() logs, evaluates, saves and stops where it is told to, and goes on as if it had never stopped."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
from tiny import CLASSES, OPTIMIZER, Network, engine, whole_batch

from data_shards.loading.batch import Batch
from trainer.checkpoint.layout import read_weights
from trainer.checkpoint.manifest import FileRecord, read_manifest
from trainer.checkpoint.names import complete
from trainer.checkpoint.store import Store
from trainer.checkpoint.tensor_file import write
from trainer.config import CheckpointConfig, HealthConfig, ProfileConfig, TrainConfig
from trainer.distributed.world import World
from trainer.engine.engine import Engine
from trainer.evaluation.evaluation import evaluate
from trainer.health.profiling import ProfileWindow
from trainer.health.stop_request import StopRequest
from trainer.loop import Batches, DivergedError, fit
from trainer.run_state import RunState
from trainer.sinks.attempt_time import AttemptTime, read
from trainer.sinks.writers import JsonLines

HEALTH = HealthConfig(max_skipped_in_a_row=2, max_rollbacks=1)
TRAIN = TrainConfig(steps=6, log_every_steps=2, evaluate_every_steps=3, global_batch=16)


class StopAfter(StopRequest):
    """A request that comes after so many steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def is_raised(self) -> bool:
        self.left -= 1
        return self.left <= 0


def run(folder: Path, world: World, stop: StopRequest, **checkpoint: object) -> tuple[str, RunState]:
    store = Store(folder / "checkpoints", CheckpointConfig(**checkpoint), world)
    trained = engine(world, steps=TRAIN.steps)
    loaded = store.load(trained)
    state = loaded.state if loaded else RunState()
    sink = JsonLines(folder / "metrics.jsonl", state.step)
    held_out = [whole_batch(1000), whole_batch(1001)]
    result = fit(
        TRAIN,
        engine=trained,
        batches=whole_batch,
        state=state,
        store=store,
        sinks=[sink],
        stop=stop,
        world=world,
        evaluate=lambda: evaluate(trained.network, CLASSES, held_out, world, ("points",)),
    )
    sink.close()
    store.close()
    trained.close()
    return result


def records(folder: Path, kind: str) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def test_a_stopped_run_goes_on_as_if_it_had_never_stopped(tmp_path: Path, world: World) -> None:
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    for folder in (straight, stopped):
        folder.mkdir()
    assert run(straight, world, StopRequest()) == ("finished", RunState(step=6))
    assert run(stopped, world, StopAfter(3)) == ("preempted", RunState(step=3))
    assert run(stopped, world, StopRequest()) == ("finished", RunState(step=6))
    losses = [[(line["step"], line["loss"]) for line in records(folder, "train")] for folder in (straight, stopped)]
    assert [step for step, _ in losses[0]] == [2, 4, 6]
    assert losses[0] == losses[1]
    assert [line["step"] for line in records(stopped, "evaluation")] == [3, 6]
    first, second = (read_weights(complete(folder / "checkpoints")[-1]) for folder in (straight, stopped))
    assert all(torch.equal(first[name], second[name]) for name in first)


def attempt_folder(folder: Path) -> Path:
    """Make the folder of an attempt that is the next."""
    path = folder / f"{len([*folder.glob('0*')]) + 1:04d}"
    path.mkdir(parents=True)
    return path


def train(
    folder: Path,
    world: World,
    batches: Batches,
    *,
    steps: int,
    health: HealthConfig = HEALTH,
    rate: float = 1e-2,
    every: int = 3,
) -> tuple[RunState, dict[str, torch.Tensor]]:
    """Return the last state and the weights of a run over these batches, resumed where there is one."""
    folder.mkdir(exist_ok=True)
    config = TrainConfig(steps=steps, log_every_steps=1, global_batch=16)
    store = Store(folder / "checkpoints", CheckpointConfig(save_every_steps=every), world)
    trained = engine(world, steps=steps, optimizer=replace(OPTIMIZER, learning_rate=rate, schedule="constant"))
    loaded = store.load(trained)
    first = loaded.state if loaded else RunState()
    sink = JsonLines(folder / "metrics.jsonl", first.step)
    try:
        _, state = fit(
            config,
            engine=trained,
            batches=batches,
            state=first,
            store=store,
            sinks=[sink],
            stop=StopRequest(),
            world=world,
            health=health,
            time=AttemptTime(attempt_folder(folder), world),
            profiler=ProfileWindow(ProfileConfig(first_step=2, num_steps=2), folder / "profile", world),
        )
    finally:
        sink.close()
        store.close()
        trained.close()
    return state, read_weights(complete(folder / "checkpoints")[-1])


def interrupted(batches: Batches, at: int) -> Batches:
    """Return the batches of a process that is ended when it asks for one of them."""

    def batch(index: int) -> Batch:
        made = batches(index)
        if index == at:
            raise KeyboardInterrupt
        return made

    return batch


def spoiled(*indices: int, factor: float) -> Batches:
    """Return the batches, some of them multiplied."""

    def batch(index: int) -> Batch:
        made = whole_batch(index)
        made.arrays["points"].mul_(factor if index in indices else 1.0)
        return made

    return batch


def test_a_run_that_cannot_go_on_goes_back_and_past_the_batches_that_spoiled_it(tmp_path: Path, world: World) -> None:
    state, weights = train(tmp_path / "spoiled", world, spoiled(3, 4, factor=float("inf")), steps=6)
    assert state == RunState(step=6, skipped_batches=(3, 4), rollbacks=1)
    clean = [0, 1, 2, 5, 6, 7]
    _, expected = train(tmp_path / "clean", world, lambda index: whole_batch(clean[index]), steps=6)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    losses = [[line["loss"] for line in records(tmp_path / name, "train")] for name in ("spoiled", "clean")]
    assert losses[0] == losses[1]
    messages = [line["message"] for line in records(tmp_path / "spoiled", "event")]
    assert messages[-1] == "rolled back from step 5; skips batches 3, 4"
    assert [entry.number for entry in read([tmp_path / "spoiled" / "0001"])] == [1]


@pytest.mark.parametrize("stops_at", [0, 5])
def test_two_bad_stretches_between_two_saves_are_both_passed_over_in_a_restart_too(
    tmp_path: Path, world: World, stops_at: int
) -> None:
    health = replace(HEALTH, max_rollbacks=2)
    batches, met = spoiled(4, 5, 8, 9, factor=float("inf")), list[int]()

    def noted(index: int) -> Batch:
        met.append(index)
        return batches(index)

    if stops_at:
        # Killed after it went back for the second time: the checkpoint of step 0 knows of neither stretch.
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "run", world, interrupted(noted, 10), steps=9, health=health, every=8)
        assert met == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 6, 7, 8, 9, 0, 1, 2, 3, 6, 7, 10]
        met.clear()
    state, weights = train(tmp_path / "run", world, noted, steps=9, health=health, every=8)
    assert state == RunState(step=9, skipped_batches=(4, 5, 8, 9), rollbacks=2)
    clean = [0, 1, 2, 3, 6, 7, 10, 11, 12]
    if stops_at:
        assert met == clean
    _, expected = train(tmp_path / "clean", world, lambda index: whole_batch(clean[index]), steps=9, every=8)
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    losses = [[line["loss"] for line in records(tmp_path / name, "train")] for name in ("run", "clean")]
    assert losses[0] == losses[1]


def test_a_run_that_goes_wrong_again_and_again_fails(tmp_path: Path, world: World) -> None:
    with pytest.raises(DivergedError, match=r"after 1 rollbacks.*health\.max_rollbacks"):
        train(tmp_path / "run", world, spoiled(*range(3, 20), factor=float("inf")), steps=6)


def test_a_loss_spike_is_passed_over_where_that_is_asked_for(tmp_path: Path, world: World) -> None:
    def spiked(index: int) -> Batch:
        # At this rate the loss of the same batch hardly moves; that of batch 3 lies well above it.
        return whole_batch(3 if index == 13 else 1)

    health = HealthConfig(spike_score=100.0, spike_window_steps=20)
    state, _ = train(tmp_path / "watched", world, spiked, steps=15, health=health, rate=1e-6)
    assert (state.skipped_batches, state.rollbacks) == ((13,), 1)
    state, _ = train(tmp_path / "unwatched", world, spiked, steps=15, rate=1e-6)
    assert state == RunState(step=15)


@pytest.mark.parametrize("failures", [1, 3])
def test_a_last_save_that_fails_is_tried_again_and_then_ends_the_run_as_failed(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    calls = []

    def on_a_full_disk(path: Path, tensors: dict[str, torch.Tensor]) -> FileRecord:
        # Three files a save; the saves at steps 0 and 3 succeed.
        calls.append(path)
        if 6 < len(calls) <= 6 + failures:
            raise OSError(28, "No space left on device")
        return write(path, tensors)

    monkeypatch.setattr("trainer.checkpoint.store.write", on_a_full_disk)
    if failures == 1:
        state, _ = train(tmp_path / "run", world, whole_batch, steps=5)
        assert state == RunState(step=5)
        assert [path.name for path in complete(tmp_path / "run" / "checkpoints")][-1] == "step_00000005"
    else:
        with pytest.raises(RuntimeError, match=r"step 5 could not be saved.*No space left on device"):
            train(tmp_path / "run", world, whole_batch, steps=5)


def test_the_rate_of_a_step_is_that_of_the_global_batch(world: World) -> None:
    optimizer = replace(OPTIMIZER, learning_rate=1e-3, schedule="constant", warmup_steps=0)
    rates = []
    for reference in (0, 32):
        train = TrainConfig(steps=1, global_batch=16, log_every_steps=1)
        scaled = replace(optimizer, reference_batch=reference)
        trained = Engine(Network(seed=0), CLASSES, optimizer=scaled, train=train, world=world)
        rates.append(trained.step(whole_batch(0)).learning_rate)
        trained.close()
    assert rates == [1e-3, 0.5e-3]


def test_a_save_is_due_by_steps_or_by_time(tmp_path: Path, world: World) -> None:
    def due(step: int, **fields: float) -> bool:
        store = Store(tmp_path, CheckpointConfig(**fields), world)
        store.close()
        return store.is_due(step)

    assert [due(step, save_every_steps=3, save_every_minutes=0) for step in range(1, 7)] == [False, False, True] * 2
    assert due(1, save_every_steps=0, save_every_minutes=1e-9)
    assert not due(1, save_every_steps=0, save_every_minutes=10)


def test_the_profiler_records_the_window_that_was_asked_for(tmp_path: Path, world: World) -> None:
    train(tmp_path / "run", world, whole_batch, steps=4)
    trace = json.loads((tmp_path / "run" / "profile" / "trace_rank_0.json").read_text())
    assert any("linear" in str(event.get("name")) for event in trace["traceEvents"])


def test_saves_come_by_step_and_the_best_is_kept(tmp_path: Path, world: World) -> None:
    assert run(tmp_path, world, StopRequest(), save_every_steps=1, keep_last=2, keep_best=True)[0] == "finished"
    steps = {read_manifest(path).state.step: read_manifest(path).score for path in complete(tmp_path / "checkpoints")}
    assert {5, 6} <= steps.keys()
    assert len(steps) <= 3
    assert [line["step"] for line in records(tmp_path, "save")] == [0, 1, 2, 3, 4, 5, 6]


def test_the_best_is_what_was_evaluated_and_not_what_was_trained_on_since(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter((0.9, 0.5))
    monkeypatch.setattr("trainer.evaluation.evaluation.Evaluation.best_by", property(lambda _: next(scores)))
    run(tmp_path, world, StopRequest(), save_every_steps=2, keep_last=1, keep_best=True)
    found = {read_manifest(path).state.step: read_manifest(path).score for path in complete(tmp_path / "checkpoints")}
    assert found == {3: 0.9, 6: 0.5}


def test_every_real_labelled_sample_is_counted_once_and_modalities_are_hidden(world: World) -> None:
    network = Network(seed=0)
    batch = whole_batch(0)
    classes = network(batch.arrays, batch.lengths)["label"].argmax(dim=-1)
    hidden = network(batch.arrays, {"points": torch.zeros(16, dtype=torch.int64)})["label"].argmax(dim=-1)
    labels = torch.where(torch.arange(16) < 12, classes, -1)
    padded = Batch(
        batch.arrays,
        {**batch.lengths, "text": torch.tensor([1] * 8 + [0] * 8)},
        labels,
        batch.weights,
        (*batch.keys[:10], *[""] * 6),
    )
    result = evaluate(network, CLASSES, [padded, padded], world, ("points", "text")).as_json()
    assert result["samples"] == 20
    accuracy = result["metrics"]["label"]["accuracy"]
    assert accuracy["all"] == 1.0
    assert accuracy["points"] == 1.0
    # Alone, text leaves the points out; it is asked only of the eight samples that have it.
    assert accuracy["text"] == pytest.approx((hidden[:8] == labels[:8]).float().mean().item())
