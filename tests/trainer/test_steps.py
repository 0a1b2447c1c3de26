"""A run that starts a step before it has looked at the last one does at the same steps what another does."""

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

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
from trainer.evaluation.evaluation import Evaluation
from trainer.feed import Feed
from trainer.health.hang import HangWatch
from trainer.health.profiling import ProfileWindow
from trainer.loop import fit
from trainer.run_state import RunState
from trainer.steps import Course, steps

ALONE = World(0, 1, 0, torch.device("cpu"))
STEPS = 12


class Ahead:
    """An engine whose steps do nothing, but that knows how many of them nobody has looked at."""

    def __init__(self, world: World, steps_ahead: int, skipped: tuple[int, ...] = ()) -> None:
        self.world, self.steps_ahead, self.skipped = world, steps_ahead, skipped
        self.started: list[int] = []
        self.under_way = 0

    def start(self, batch: Batch, flags: tuple[bool, ...]) -> Any:  # noqa: ANN401
        self.started.append(batch.index)
        self.under_way += 1
        assert self.under_way <= 1 + self.steps_ahead
        raised = tuple(bool(flag) for flag in self.world.sum(torch.tensor(flags, dtype=torch.float32)))

        def report() -> StepReport:
            self.under_way -= 1
            is_skipped = batch.index in self.skipped
            return StepReport(1.0 + batch.index / 100, {}, 0.1, 1.0, is_skipped, {}, 0.0, 16, raised)

        return SimpleNamespace(report=report)


@dataclass
class Saves:
    """A store that saves every few steps, and whenever its clock, which is this rank's own, says so."""

    engine: Ahead
    every: int = 5
    at: tuple[int, ...] = ()
    saved: list[int] = field(default_factory=list)

    def newest(self) -> Path:
        return Path("step_00000000")

    def is_planned(self, step: int, *, is_scored: bool = False) -> bool:
        return step % self.every == 0

    def is_due(self, step: int, *, is_scored: bool = False) -> bool:
        return self.is_planned(step) or step in self.at

    def save(self, engine: Ahead, state: RunState, *, score: float | None = None) -> None:
        assert engine.under_way == 0, "a save while a step was under way"
        self.saved.append(state.step)

    def reports(self) -> list[SaveReport]:
        return []

    def wait(self) -> None:
        pass

    def pass_over(self, passed: Any) -> str:  # noqa: ANN401
        self.passed = passed
        return ""

    def load(self, engine: Ahead) -> Any:  # noqa: ANN401
        engine.under_way = 0
        return SimpleNamespace(state=RunState(step=self.saved[-1]).passing_over(self.passed))


def train(world: World, ahead: int, *, skipped: tuple[int, ...] = (), **parts: Any) -> tuple[Any, Saves, Ahead]:  # noqa: ANN401
    engine = Ahead(world, ahead, skipped)
    store = Saves(engine, at=parts.pop("save_at", ()))
    batches = parts.pop("batches", lambda index: replace(whole_batch(index), index=index))
    result = fit(
        parts.pop("config", TrainConfig(steps=STEPS, global_batch=16, log_every_steps=3)),
        engine=engine,
        batches=batches,
        state=RunState(),
        store=store,
        sinks=[],
        stop=parts.pop("stop", StopsAt(None)),
        world=world,
        **parts,
    )
    return result, store, engine


def test_a_step_is_started_before_the_last_one_is_looked_at() -> None:
    _, _, engine = train(ALONE, 1)
    assert engine.started == list(range(STEPS))
    seen: list[int] = []

    class Watching(Ahead):
        def start(self, batch: Batch, flags: tuple[bool, ...]) -> Any:  # noqa: ANN401
            seen.append(self.under_way)
            return super().start(batch, flags)

    engine = Watching(ALONE, 1)
    fit(
        TrainConfig(steps=STEPS, global_batch=16),
        engine=engine,
        batches=lambda index: replace(whole_batch(index), index=index),
        state=RunState(),
        store=Saves(engine),
        sinks=[],
        stop=StopsAt(None),
        world=ALONE,
    )
    # After a save, as at the start, the first step has none before it.
    assert [step for step, before in enumerate(seen) if not before] == [0, 5, 10]


@pytest.mark.parametrize(("ahead", "newest"), [(0, [True] * 4), (1, [False, True, False, True])])
def test_a_step_has_its_states_its_batch_and_the_flags_that_were_asked_for(ahead: int, newest: list[bool]) -> None:
    engine, hang = Ahead(ALONE, ahead, skipped=(3,)), HangWatch(None, ALONE, 0.0)
    feed = Feed(lambda index: replace(whole_batch(index), index=index), ALONE)
    course = Course(until=4, window=2, flags=lambda step: (step == 2, step == 3), pauses=lambda step: step == 2)
    made = list(steps(engine, feed, RunState(), course, hang))
    assert [step.report.flags for step in made] == [(False, False), (True, False), (False, True), (False, False)]
    assert [step.batch.index for step in made] == [0, 1, 2, 3]
    assert [step.is_newest for step in made] == newest
    states = [RunState(), *(step.state for step in made)]
    assert [step.before for step in made] == states[:-1]
    # A window of two losses; the last step was skipped.
    assert [state.recent_losses for state in states] == [(), (1.0,), (1.0, 1.01), (1.01, 1.02), (1.01, 1.02)]
    assert (states[-1].step, states[-1].skipped_steps) == (4, 1)
    assert all(0 <= step.time.data_seconds <= step.time.seconds for step in made)
    without = list(steps(Ahead(ALONE, ahead), feed, RunState(), replace(course, window=0), hang))
    assert without[-1].state.recent_losses == ()
    assert list(steps(engine, feed, RunState(step=4), course, hang)) == []


def test_the_batch_of_the_next_step_is_prepared_while_one_runs() -> None:
    prepared: list[int] = []

    class Preparing(Feed):
        def prepare(self, index: int) -> None:
            prepared.append(index)

    feed = Preparing(lambda index: replace(whole_batch(index), index=index), ALONE)
    course = Course(until=4, window=0, flags=lambda _: (False, False), pauses=lambda _: False)
    state = RunState(skipped_batches=(2,))
    made = list(steps(Ahead(ALONE, 1), feed, state, course, HangWatch(None, ALONE, 0.0)))
    assert [step.batch.index for step in made] == [0, 1, 3, 4]
    # Nothing follows the last step.
    assert prepared == [1, 3, 4]


@pytest.mark.parametrize("ahead", [0, 1])
def test_saves_evaluations_and_profiles_come_at_their_steps_with_no_step_under_way(ahead: int, tmp_path: Path) -> None:
    engine = Ahead(ALONE, ahead)
    store, edges, evaluated = Saves(engine), [], []

    class Profile(ProfileWindow):
        def between(self, steps_done: int) -> None:
            if self.acts_after(steps_done):
                edges.append((steps_done, engine.under_way))

    def evaluate() -> Evaluation:
        evaluated.append(engine.under_way)
        return accuracy(1, 0.5)

    fit(
        TrainConfig(steps=STEPS, global_batch=16, evaluate_every_steps=4),
        engine=engine,
        batches=lambda index: replace(whole_batch(index), index=index),
        state=RunState(),
        store=store,
        sinks=[],
        stop=StopsAt(None),
        world=ALONE,
        evaluate=evaluate,
        profiler=Profile(ProfileConfig(first_step=3, num_steps=4), tmp_path, ALONE),
    )
    assert store.saved == [5, 10, 12]
    assert evaluated == [0, 0, 0]
    assert edges == [(2, 0), (6, 0)]


@pytest.mark.parametrize(("ahead", "stops_at"), [(0, 3), (1, 4)])
@pytest.mark.parametrize("asked_of", [0, 1])
def test_what_one_rank_asks_for_is_done_on_all_at_the_same_step(ahead: int, stops_at: int, asked_of: int) -> None:
    def rank(world: ThreadWorld) -> Any:  # noqa: ANN401
        stop = StopsAt(3 if world.rank == asked_of else None)
        (outcome, state), store, engine = train(world, ahead, stop=stop)
        return outcome, state.step, store.saved, engine.started

    # One step later where a step was under way already when the wish became known.
    assert on_ranks(2, rank) == [("preempted", stops_at, [stops_at], list(range(stops_at)))] * 2


@pytest.mark.parametrize(("ahead", "saved"), [(0, [2, 5, 10, 12]), (1, [3, 5, 10, 12])])
def test_a_save_that_one_ranks_clock_asks_for_is_made_by_all(ahead: int, saved: list[int]) -> None:
    def rank(world: ThreadWorld) -> list[int]:
        _, store, _ = train(world, ahead, save_at=(2,) if world.rank else ())
        return store.saved

    assert on_ranks(2, rank) == [saved] * 2


@pytest.mark.parametrize("ahead", [0, 1])
def test_steps_that_go_wrong_are_passed_over_alike_and_nothing_is_saved_beyond_them(ahead: int) -> None:
    health = HealthConfig(max_skipped_in_a_row=2, max_rollbacks=2)
    (outcome, state), store, _ = train(ALONE, ahead, skipped=(6, 7, 8), health=health)
    assert outcome == "finished"
    assert (state.step, state.skipped_batches, state.rollbacks) == (STEPS, (6, 7), 1)
    assert (state.skipped_steps, state.skipped_in_a_row) == (1, 0)
    assert store.saved == [5, 10, 12]


@pytest.mark.parametrize("ahead", [0, 1])
def test_the_last_step_is_looked_at_before_it_is_saved(ahead: int) -> None:
    health = HealthConfig(max_skipped_in_a_row=1, max_rollbacks=1)
    (outcome, state), store, _ = train(ALONE, ahead, skipped=(11,), health=health)
    assert (outcome, state.skipped_batches) == ("finished", (11,))
    assert store.saved == [5, 10, 12]


class LeftError(Exception):
    """All ranks left, and why."""


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize(("broken", "saved"), [(0, []), (3, []), (6, [5]), (11, [5, 10])])
def test_a_batch_that_one_rank_cannot_have_ends_all_ranks_and_nothing_later_is_saved(
    ahead: int, broken: int, saved: list[int]
) -> None:
    def rank(world: ThreadWorld) -> Any:  # noqa: ANN401
        def batches(index: int) -> Batch:
            if world.rank == 1 and index == broken:
                raise ValueError("shard 7 is cut")
            return replace(whole_batch(index), index=index)

        def leave(problem: str) -> NoReturn:
            raise LeftError(sorted(world.gather(problem)))

        engine = Ahead(world, ahead)
        store = Saves(engine)
        with pytest.raises(LeftError) as left:
            fit(
                TrainConfig(steps=STEPS, global_batch=16),
                engine=engine,
                batches=Feed(batches, world, leave),
                state=RunState(),
                store=store,
                sinks=[],
                stop=StopsAt(None),
                world=world,
            )
        return left.value.args[0], store.saved

    assert on_ranks(2, rank) == [(["", "shard 7 is cut"], saved)] * 2
