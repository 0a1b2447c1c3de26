"""What the ranks of a training agree on, and what the loop tells while it goes: without an engine that computes."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
from threads import StopsAt, ThreadWorld, on_ranks
from tiny import accuracy, whole_batch

from data_shards.loading.batch import Batch
from trainer.checkpoint.store import SaveReport
from trainer.config import HealthConfig, ProfileConfig, TrainConfig
from trainer.distributed.world import World
from trainer.engine.step_report import StepReport
from trainer.health.hang import HangWatch
from trainer.health.profiling import ProfileWindow
from trainer.loop import DivergedError, fit
from trainer.run_state import RunState
from trainer.sinks.attempt_time import AttemptTime, read
from trainer.sinks.meter import Record

ALONE = World(0, 1, 0, torch.device("cpu"))
CONFIG = TrainConfig(steps=6, global_batch=16, log_every_steps=2)


class Steps:
    """An engine whose steps do nothing; those of some batches are skipped. It may be as far ahead as a GPU."""

    def __init__(self, *skipped: int, steps_ahead: int = 0) -> None:
        self.skipped = skipped
        self.asked: list[int] = []
        self.steps_ahead = steps_ahead
        self.world: World = ALONE

    def start(self, batch: Batch, flags: Sequence[bool]) -> Any:  # noqa: ANN401
        report = self.step(batch)
        raised = self.world.sum(torch.tensor(flags, dtype=torch.float32))
        return SimpleNamespace(report=lambda: replace(report, flags=tuple(bool(flag) for flag in raised)))

    def step(self, batch: Batch) -> StepReport:
        index = int(batch.keys[0].split("-")[0])
        self.asked.append(index)
        return StepReport(1.0 + index, {}, 0.1, 1.0, index in self.skipped, {}, 0.0, len(batch.keys))


@dataclass
class Checkpoints:
    """A store that remembers what it was asked to save; due at some steps."""

    is_there: bool = False
    due: tuple[int, ...] = ()
    errors: tuple[str, ...] = ()
    """Of the first saves."""
    saved: list[tuple[int, float | None]] = field(default_factory=list)
    ended: list[SaveReport] = field(default_factory=list)

    def newest(self) -> Path | None:
        return Path("step_00000000") if self.is_there else None

    def is_due(self, step: int, *, is_scored: bool = False) -> bool:
        return step in self.due

    def is_planned(self, step: int, *, is_scored: bool = False) -> bool:
        # By its clock alone.
        return False

    def save(self, engine: object, state: RunState, *, score: float | None = None) -> None:
        error = self.errors[len(self.saved)] if len(self.saved) < len(self.errors) else ""
        self.saved.append((state.step, score))
        self.ended.append(SaveReport(state.step, 0.0, 0.0, 1, error))

    def reports(self) -> list[SaveReport]:
        ended, self.ended = self.ended, []
        return ended

    def wait(self) -> None:
        pass

    def pass_over(self, passed: Any) -> str:  # noqa: ANN401
        self.passed = passed
        return ""

    def load(self, engine: object) -> Any:  # noqa: ANN401
        @dataclass
        class Loaded:
            state: RunState

        return Loaded(RunState().passing_over(self.passed))


class Told:
    """A sink that keeps everything in order."""

    def __init__(self) -> None:
        self.records: list[tuple[str, Record]] = []

    def write(self, kind: str, record: Record) -> None:
        self.records.append((kind, record))

    def draw(self, *_: object) -> None:
        pass

    def rewind(self, step: int) -> None:
        self.records.append(("rewind", {"step": step}))

    def close(self) -> None:
        pass


class Phases(HangWatch):
    """A watch that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(None, ALONE, 0.0)
        self.told: list[str] = []

    def at(self, phase: str, *, is_cold: bool = False) -> None:
        self.told.append(phase)


def part(index: int, world: World) -> Batch:
    return whole_batch(index).micro_batches(world.world_size)[world.rank]


def train(world: World, store: Checkpoints, engine: Steps | None = None, **parts: Any) -> tuple[Any, Told]:  # noqa: ANN401
    told = Told()
    config = parts.pop("config", CONFIG)
    engine = engine or Steps()
    engine.world = world
    result = fit(
        config,
        engine=engine,
        batches=lambda index: part(index, world),
        state=parts.pop("state", RunState()),
        store=store,
        sinks=[told] if world.is_first else [],
        stop=parts.pop("stop", StopsAt(None)),
        world=world,
        **parts,
    )
    return result, told


def scored(*scores: float) -> Any:  # noqa: ANN401
    """Return an evaluation that finds these scores, one after the other."""
    left = iter(scores)
    return lambda: accuracy(3, next(left))


@pytest.mark.parametrize("asked_of", [0, 1])
def test_a_stop_that_one_rank_wants_stops_and_saves_on_all_at_the_same_step(asked_of: int) -> None:
    def rank(world: ThreadWorld) -> Any:  # noqa: ANN401
        store = Checkpoints()
        (outcome, state), _ = train(world, store, stop=StopsAt(3 if world.rank == asked_of else None))
        return outcome, state.step, store.saved

    assert on_ranks(2, rank) == [("preempted", 3, [(0, None), (3, None)])] * 2


@pytest.mark.parametrize("due_on", [0, 1])
def test_a_save_that_is_due_on_one_rank_is_made_by_all(due_on: int) -> None:
    def rank(world: ThreadWorld) -> Any:  # noqa: ANN401
        store = Checkpoints(due=(2,) if world.rank == due_on else ())
        train(world, store)
        return [step for step, _ in store.saved]

    assert on_ranks(2, rank) == [[0, 2, 6]] * 2


def test_the_samples_of_a_skipped_step_are_those_of_all_ranks() -> None:
    def rank(world: ThreadWorld) -> list[str]:
        _, told = train(world, Checkpoints(), Steps(1), health=HealthConfig(max_skipped_in_a_row=3))
        return [str(record["message"]) for kind, record in told.records if kind == "event"]

    [message], nothing = on_ranks(2, rank)
    assert message == f"not finite, skipped: batch 1, samples {' '.join(f'1-{row}' for row in range(16))}"
    assert nothing == []


def test_steps_that_keep_going_wrong_end_the_run_after_so_many_rollbacks_and_not_later() -> None:
    engine = Steps(*range(100))
    with pytest.raises(ValueError, match="after 2 rollbacks"):
        train(ALONE, Checkpoints(), engine, health=HealthConfig(max_skipped_in_a_row=2, max_rollbacks=2))
    # Each start again passes over what went wrong before.
    assert engine.asked == [0, 1, 2, 3, 4, 5]


class Noticing(Steps):
    """An engine with something to say of a step."""

    def step(self, batch: Batch) -> StepReport:
        report = super().step(batch)
        return replace(report, notice="a layer learns nothing" if self.asked[-1] == 3 else "")


def test_what_an_engine_notices_is_told_at_its_step_by_the_first_rank() -> None:
    def rank(world: ThreadWorld) -> list[Record]:
        _, told = train(world, Checkpoints(), Noticing())
        return [record for kind, record in told.records if kind == "event"]

    assert on_ranks(2, rank) == [[{"step": 4, "message": "a layer learns nothing"}], []]


@pytest.mark.parametrize("ahead", [0, 1])
def test_a_run_whose_steps_were_all_skipped_ends_with_a_sentence_and_saves_no_end(ahead: int) -> None:
    store, engine = Checkpoints(due=(2,)), Steps(*range(6), steps_ahead=ahead)
    health = HealthConfig(max_skipped_in_a_row=7)
    with pytest.raises(DivergedError, match=r"0 of 6 steps .*metrics\.jsonl.*train\.precision=bf16") as caught:
        train(ALONE, store, engine, health=health, config=replace(CONFIG, precision="fp16"))
    assert [step for step, _ in store.saved] == [0, 2 + ahead]
    with pytest.raises(DivergedError) as in_fp32:
        train(ALONE, Checkpoints(), Steps(*range(6)), health=health)
    assert "bf16" in str(caught.value)
    assert "bf16" not in str(in_fp32.value)
    # The last save may be of any of these steps: a resume ends alike.
    with pytest.raises(DivergedError, match="0 of 6 steps"):
        train(ALONE, store, Steps(*range(6)), health=health, state=RunState(4, skipped_steps=4, skipped_in_a_row=4))


def test_of_a_fork_its_own_steps_count_and_not_those_of_the_run_before() -> None:
    health, begun = HealthConfig(max_skipped_in_a_row=7), RunState(4, skipped_steps=1)
    store = Checkpoints(is_there=True)
    with pytest.raises(DivergedError, match="0 of 2 steps changed the weights"):
        train(ALONE, store, Steps(4, 5), health=health, state=begun, begun=begun)
    assert store.saved == []
    (outcome, state), _ = train(ALONE, Checkpoints(), Steps(5), health=health, state=begun, begun=begun)
    assert (outcome, state.skipped_steps) == ("finished", 2)


def test_one_step_that_changed_the_weights_is_enough_to_finish_and_the_others_are_counted() -> None:
    health = HealthConfig(max_skipped_in_a_row=7)
    (outcome, state), told = train(ALONE, Checkpoints(), Steps(0, 1, 3, 4, 5), health=health)
    assert (outcome, state.skipped_steps) == ("finished", 5)
    lines = [record for kind, record in told.records if kind == "train"]
    assert [line["skipped_steps"] for line in lines] == [2, 1, 2]
    assert [line["total_skipped_steps"] for line in lines] == [2, 3, 5]


def test_patience_does_not_finish_a_run_whose_weights_never_changed() -> None:
    config = replace(CONFIG, evaluate_every_steps=1, patience=2)
    store, health = Checkpoints(), HealthConfig(max_skipped_in_a_row=7)
    with pytest.raises(DivergedError, match="0 of 3 steps"):
        train(ALONE, store, Steps(*range(6)), config=config, health=health, evaluate=scored(*[1.0] * 6))
    assert [step for step, _ in store.saved] == [0]


def test_a_run_that_is_stopped_before_its_end_keeps_its_skipped_steps_for_the_resume() -> None:
    store, health = Checkpoints(), HealthConfig(max_skipped_in_a_row=7)
    (outcome, state), _ = train(ALONE, store, Steps(*range(6)), health=health, stop=StopsAt(3))
    assert (outcome, state.step, state.skipped_steps) == ("preempted", 3, 3)


@pytest.mark.parametrize(("every", "expected"), [(0, [5]), (2, [2, 4, 5]), (5, [5]), (9, [5])])
def test_a_run_is_evaluated_every_so_many_steps_and_at_its_end(every: int, expected: list[int]) -> None:
    config = TrainConfig(steps=5, global_batch=16, evaluate_every_steps=every)
    _, told = train(ALONE, Checkpoints(), config=config, evaluate=scored(*range(9)))
    assert [record["step"] for kind, record in told.records if kind == "evaluation"] == expected


def test_a_save_has_the_score_of_its_own_weights_or_none() -> None:
    store = Checkpoints(due=(1, 3, 4))
    config = TrainConfig(steps=5, global_batch=16, evaluate_every_steps=2)
    train(ALONE, store, config=config, evaluate=scored(0.5, 0.75, 0.25))
    assert store.saved == [(0, None), (1, None), (3, None), (4, 0.75), (5, 0.25)]


def test_saves_are_told_while_the_run_goes_on_and_failed_ones_as_failed() -> None:
    _, told = train(ALONE, Checkpoints(due=(2,), errors=("", "No space left on device")))
    saves = [(record["step"], record["error"]) for kind, record in told.records if kind == "save"]
    assert saves == [(0, ""), (2, "No space left on device"), (6, "")]
    kinds = [(kind, record["step"]) for kind, record in told.records]
    assert kinds.index(("save", 2)) < kinds.index(("train", 4))


@pytest.mark.parametrize("failures", [1, 2])
def test_a_last_save_that_failed_is_not_counted_as_saved(failures: int) -> None:
    store = Checkpoints(is_there=True, errors=("disk is full",) * failures)
    assert train(ALONE, store)[0][0] == "finished"
    assert [step for step, _ in store.saved] == [6] * (1 + failures)
    with pytest.raises(RuntimeError, match="step 6 could not be saved"):
        train(ALONE, Checkpoints(is_there=True, errors=("disk is full",) * 9))


def test_the_watch_knows_of_all_that_may_take_longer_than_a_step() -> None:
    hang = Phases()
    config = TrainConfig(steps=5, global_batch=16, evaluate_every_steps=5)
    health = HealthConfig(max_skipped_in_a_row=1)
    train(ALONE, Checkpoints(due=(2,)), Steps(3), config=config, evaluate=scored(1.0), hang=hang, health=health)
    assert {"evaluation", "going back", "a save", "the last save"} <= set(hang.told)
    # Each is left again by the next step, or by what follows it.
    assert all(first != second for first, second in zip(hang.told, hang.told[1:], strict=False))


def test_a_stopped_run_resumes_at_the_step_that_it_saved() -> None:
    store = Checkpoints()
    (outcome, state), _ = train(ALONE, store, stop=StopsAt(4))
    assert (outcome, state.step, store.saved[-1]) == ("preempted", 4, (4, None))
    engine = Steps()
    train(ALONE, Checkpoints(is_there=True), engine, state=state)
    assert engine.asked == [4, 5]


def test_a_stop_at_the_last_step_is_a_finished_run() -> None:
    (outcome, state), _ = train(ALONE, Checkpoints(), stop=StopsAt(6))
    assert (outcome, state.step) == ("finished", 6)


def test_the_window_of_losses_has_the_newest_and_none_of_a_skipped_step() -> None:
    state = RunState()
    for loss in (1.0, 2.0, 3.0, 4.0):
        state = state.after(loss, window=3)
    assert state.recent_losses == (2.0, 3.0, 4.0)
    assert state.after(float("nan"), is_skipped=True, window=3).recent_losses == (2.0, 3.0, 4.0)
    assert replace(state, recent_losses=()).after(None, window=3).recent_losses == ()


def test_a_spike_is_judged_by_the_losses_before_it() -> None:
    # A window of ten: the eleventh loss is judged by the ten before it, and is none of them.
    class Spiked(Steps):
        def step(self, batch: Batch) -> StepReport:
            report = super().step(batch)
            index = self.asked[-1]
            return replace(report, loss=9.0 if index == 10 else 1.0 + index / 100)

    engine = Spiked()
    config = TrainConfig(steps=12, global_batch=16)
    health = HealthConfig(spike_score=10.0, spike_window_steps=10)
    (_, state), _ = train(ALONE, Checkpoints(), engine, config=config, health=health)
    assert state.skipped_batches == (10,)
    assert engine.asked == [*range(11), *range(10), 11, 12]


def test_the_time_of_an_attempt_is_told_by_its_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0, compiled=0.0)
    clock.perf_counter = clock.monotonic = clock.time = lambda: clock.now
    monkeypatch.setattr("trainer.steps.time", clock)
    monkeypatch.setattr("trainer.sinks.attempt_time.time", clock)
    compiler = SimpleNamespace(calculate_time_spent=lambda: {"total_wall_time": clock.compiled})
    monkeypatch.setitem(sys.modules, "torch._dynamo.utils", compiler)

    def takes(seconds: float, result: Any = None) -> Any:  # noqa: ANN401
        clock.now += seconds
        return result

    class Timed(Steps):
        def step(self, batch: Batch) -> StepReport:
            clock.compiled += 1.0
            return takes(5.0, super().step(batch))

    class Slow(Checkpoints):
        def save(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401
            takes(0.25)
            super().save(*arguments, **options)

        def wait(self) -> None:
            takes(0.5)

    folder = tmp_path / "0001"
    folder.mkdir()
    time = AttemptTime(folder, ALONE)
    fit(
        TrainConfig(steps=6, global_batch=16, log_every_steps=9, evaluate_every_steps=6),
        engine=Timed(),
        batches=lambda index: takes(2.0, whole_batch(index)),
        state=RunState(step=3),
        store=Slow(is_there=True),
        sinks=[],
        stop=StopsAt(None),
        world=ALONE,
        evaluate=lambda: takes(7.0, accuracy(1, 0.5)),
        time=time,
    )
    time.end("finished")
    [entry] = read([folder])
    assert (entry.first_step, entry.last_step) == (3, 6)
    parts = {"data_wait": 6.0, "compile": 3.0, "compute": 12.0, "evaluation": 7.0, "save": 0.75}
    assert {part: seconds for part, seconds in entry.seconds.items() if seconds} == parts


def test_what_an_evaluation_drew_is_shown_at_its_step() -> None:
    class Gallery(Told):
        def draw(self, name: str, picture: Any, step: int) -> None:  # noqa: ANN401
            self.records.append((name, {"step": step, "sum": int(picture.sum())}))

    told = Gallery()
    picture = np.ones((2, 3, 3), np.uint8)
    fit(
        TrainConfig(steps=3, global_batch=16, log_every_steps=9, evaluate_every_steps=2),
        engine=Steps(),
        batches=whole_batch,
        state=RunState(),
        store=Checkpoints(is_there=True),
        sinks=[told],
        stop=StopsAt(None),
        world=ALONE,
        evaluate=lambda: replace(accuracy(7, 0.5, image=0.25), pictures={"drawn": picture}),
    )
    shown = [(kind, record) for kind, record in told.records if kind in ("evaluation", "drawn")]
    scores = {"samples": 7, "label/accuracy": 0.5, "label/accuracy/image": 0.25}
    scores["summary"] = "label accuracy 50.00%, label of image alone 25.00%"
    assert shown == [
        entry
        for step in (2, 3)
        for entry in (("evaluation", {"step": step, **scores}), ("drawn", {"step": step, "sum": 18}))
    ]


def test_going_back_rewinds_what_was_told_and_says_so_and_what_a_restart_will_not_know() -> None:
    class Forgetful(Checkpoints):
        def pass_over(self, passed: Any) -> str:  # noqa: ANN401
            super().pass_over(passed)
            return "disk is full"

    health = HealthConfig(max_skipped_in_a_row=2, max_rollbacks=2)
    (outcome, state), told = train(ALONE, Forgetful(), Steps(1, 2, 5, 6), health=health)
    assert (outcome, state) == ("finished", RunState(step=6, skipped_batches=(1, 2, 5, 6), rollbacks=2))
    events = [record for kind, record in told.records if kind == "event" and "skipped" not in str(record["message"])]
    lost = {"step": 0, "message": "a restart would meet these batches again: disk is full"}
    assert events == [
        {"step": 0, "message": "rolled back from step 3; skips batches 1, 2"},
        lost,
        {"step": 0, "message": "rolled back from step 5; skips batches 5, 6"},
        lost,
    ]
    assert [record for kind, record in told.records if kind == "rewind"] == [{"step": 0}] * 2


def test_the_profiler_is_told_of_every_boundary_between_two_steps() -> None:
    class Boundaries(ProfileWindow):
        def __init__(self) -> None:
            super().__init__(ProfileConfig(), None, ALONE)
            self.told: list[int] = []

        def between(self, step: int) -> None:
            self.told.append(step)

    profiler = Boundaries()
    train(ALONE, Checkpoints(), state=RunState(step=2), profiler=profiler)
    assert profiler.told == [2, 3, 4, 5, 6]


def test_losses_are_kept_only_where_spikes_are_watched() -> None:
    for score, kept in ((0.0, 0), (1e9, 4)):
        health = HealthConfig(spike_score=score, spike_window_steps=4)
        (_, state), _ = train(ALONE, Checkpoints(), health=health)
        assert state.recent_losses == (3.0, 4.0, 5.0, 6.0)[:kept]
