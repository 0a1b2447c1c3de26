"""What fit() tells, in which order, without a network: records, pictures, the watch, and where the time goes."""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
from test_steps import ALONE, Ahead, Saves
from threads import StopsAt
from tiny import accuracy, whole_batch

from data_shards.loading.batch import Batch
from trainer.checkpoint.store import SaveReport
from trainer.config import HealthConfig, TrainConfig
from trainer.engine.step_report import StepReport
from trainer.evaluation.evaluation import Evaluation
from trainer.loop import DivergedError, fit
from trainer.run_state import Improvement, RunState

Told = list[tuple[Any, ...]]


@dataclass
class Everything:
    """In the place of a sink, the watch over hangs, and the count of seconds: remembers what each is told."""

    told: Told = field(default_factory=list)

    def write(self, kind: str, record: dict[str, Any]) -> None:
        self.told.append((kind, record))

    def draw(self, name: str, picture: np.ndarray, step: int) -> None:
        self.told.append(("picture", name, picture.shape, step))

    def rewind(self, step: int) -> None:
        self.told.append(("rewind", step))

    def at(self, phase: str, *, is_cold: bool = False) -> None:
        self.told.append(("at", phase, is_cold))

    def started(self, step: int) -> None:
        self.told.append(("started", step))

    def reached(self, step: int, rollbacks: int) -> None:
        self.told.append(("reached", step, rollbacks))

    def add(self, part: str, seconds: float) -> None:
        self.told.append(("add", part, seconds))

    @contextmanager
    def spent(self, part: str) -> Iterator[None]:
        self.told.append(("spent", part))
        yield


class Noticing(Ahead):
    """Has something to tell after the third step."""

    def start(self, batch: Batch, flags: tuple[bool, ...]) -> Any:  # noqa: ANN401
        started = super().start(batch, flags)

        def report() -> StepReport:
            return replace(started.report(), notice="unused.*" if batch.index == 2 else "")

        return SimpleNamespace(report=report)


@dataclass
class Reporting(Saves):
    """A store that tells of its saves; the first so many of the last step fail."""

    failures: int = 0
    pending: list[SaveReport] = field(default_factory=list)
    scores: list[tuple[int, float | None, Improvement]] = field(default_factory=list)
    last: int = 0
    note: str = ""

    def save(self, engine: Ahead, state: RunState, *, score: float | None = None) -> None:
        super().save(engine, state, score=score)
        self.scores.append((state.step, score, state.improvement))
        fails = state.step == self.last and self.failures > 0
        self.failures -= fails
        self.pending.append(SaveReport(state.step, 0.0, 0.0, 7, "disk is full" if fails else ""))

    def reports(self) -> list[SaveReport]:
        found, self.pending = self.pending, []
        return found

    def pass_over(self, passed: Any) -> str:  # noqa: ANN401
        super().pass_over(passed)
        return self.note


def run(
    config: TrainConfig,
    *,
    scores: tuple[float, ...] = (),
    skipped: tuple[int, ...] = (),
    state: RunState | None = None,
    store: dict[str, Any] | None = None,
    stop: StopsAt | None = None,
    **parts: Any,  # noqa: ANN401
) -> tuple[str, RunState, Reporting, Everything]:
    engine, told, left = Noticing(ALONE, 0, skipped), Everything(), iter(scores)
    saves = Reporting(engine, last=config.steps, **(store or {}))

    def evaluate() -> Evaluation:
        return replace(accuracy(9, next(left)), pictures={"drawn": np.zeros((2, 3, 3), np.uint8)})

    outcome, after = fit(
        replace(config, global_batch=16),
        engine=engine,  # type: ignore[arg-type]
        batches=lambda index: replace(whole_batch(index), index=index, keys=(f"s{index}", "")),
        state=state or RunState(),
        store=saves,  # type: ignore[arg-type]
        sinks=[told],
        stop=stop or StopsAt(None),
        world=ALONE,
        evaluate=evaluate if scores else None,
        hang=told,  # type: ignore[arg-type]
        time=told,  # type: ignore[arg-type]
        **parts,
    )
    return outcome, after, saves, told


def of(told: Everything, *kinds: str) -> Told:
    return [each for each in told.told if each[0] in kinds]


def test_a_run_tells_of_its_steps_evaluations_and_saves_in_their_order() -> None:
    config = TrainConfig(steps=6, log_every_steps=4, evaluate_every_steps=3)
    outcome, state, saves, told = run(config, scores=(0.25, 0.5))
    assert (outcome, state.step) == ("finished", 6)
    assert saves.scores == [(5, None, Improvement()), (6, 0.5, Improvement())]
    shown = [(kind, record["step"]) for kind, record in of(told, "train", "evaluation", "save", "event")]
    assert shown == [
        ("event", 3),
        ("evaluation", 3),
        ("train", 4),
        ("save", 5),
        ("train", 6),
        ("evaluation", 6),
        ("save", 6),
    ]
    assert of(told, "event") == [("event", {"step": 3, "message": "unused.*"})]
    evaluated = {"samples": 9, "summary": "label accuracy 25.00%", "label/accuracy": 0.25}
    assert of(told, "evaluation")[0][1] == {"step": 3, **evaluated}
    assert of(told, "picture") == [("picture", "drawn", (2, 3, 3), step) for step in (3, 6)]
    first = of(told, "train")[0][1]
    assert (first["loss"], first["total_skipped_steps"]) == (1.03, 0)
    expected = {"step": 5, "wait_seconds": 0.0, "seconds": 0.0, "num_bytes": 7, "error": ""}
    assert of(told, "save")[0][1] == expected


def test_the_watch_knows_what_the_run_is_at_and_the_attempt_where_its_time_goes() -> None:
    config = TrainConfig(steps=3, evaluate_every_steps=3)
    *_, told = run(config, scores=(0.25,), state=RunState(step=1))
    step = [("at", "waiting for its batch"), ("at", "a step")]
    phases = [each[:2] for each in of(told, "at", "spent", "started", "reached")]
    assert phases == [
        ("started", 1),
        *step,
        ("reached", 2),
        *step,
        ("reached", 3),
        ("at", "evaluation"),
        ("spent", "evaluation"),
        ("at", "a save"),
        ("spent", "save"),
        ("at", "the last save"),
        ("spent", "save"),
    ]
    # The first step of a start is cold.
    assert [cold for _, phase, cold in of(told, "at")][:4] == [True, True, False, False]
    assert of(told, "reached") == [("reached", 2, 0), ("reached", 3, 0)]
    assert [part for _, part, _ in of(told, "add")] == ["data_wait", "compile", "compute"] * 2
    assert all(math.isfinite(seconds) and seconds >= 0 for *_, seconds in of(told, "add"))


def test_a_run_without_a_better_value_for_so_long_ends_early_and_says_so() -> None:
    config = TrainConfig(steps=12, evaluate_every_steps=2, patience=2, least_improvement=0.1)
    scores = (0.5, 0.55, 0.7, 0.75, 0.78)
    outcome, state, saves, told = run(config, scores=scores)
    assert (outcome, state.step) == ("finished", 10)
    assert saves.scores[-1] == (10, 0.78, Improvement(0.7, 2))
    message = "stops early: 2 evaluations in a row brought no better value"
    assert of(told, "event")[-1] == ("event", {"step": 10, "message": message})
    # Another start has nothing to do, and one with more patience has.
    ended = replace(state, improvement=Improvement(0.7, 2))
    outcome, state, saves, _ = run(config, scores=scores, state=ended)
    assert (outcome, state.step, saves.saved) == ("finished", 10, [])
    outcome, state, _, _ = run(replace(config, patience=3), scores=(0.9,), state=ended)
    assert (outcome, state.step) == ("finished", 12)
    # Without patience nothing of it is kept.
    *_, saves, _ = run(replace(config, patience=0, least_improvement=0.0), scores=(0.5,) * 6)
    assert saves.scores[-1] == (12, 0.5, Improvement())


def test_skipped_steps_are_told_with_their_samples_and_lead_back_to_the_newest_checkpoint() -> None:
    health = HealthConfig(max_skipped_in_a_row=2, max_rollbacks=1)
    config = TrainConfig(steps=9, log_every_steps=9)
    for note in ("", "disk is full"):
        outcome, state, _, told = run(config, skipped=(6, 7), health=health, store={"note": note})
        assert (outcome, state.step, state.rollbacks) == ("finished", 9, 1)
        expected = [
            ("event", {"step": 3, "message": "unused.*"}),
            ("event", {"step": 7, "message": "not finite, skipped: batch 6, samples s6"}),
            ("event", {"step": 8, "message": "not finite, skipped: batch 7, samples s7"}),
            ("rewind", 5),
            ("event", {"step": 5, "message": "rolled back from step 8; skips batches 6, 7"}),
        ]
        if note:
            message = "a restart would meet these batches again: disk is full"
            expected.append(("event", {"step": 5, "message": message}))
        assert of(told, "event", "rewind") == expected
        assert ("at", "going back", False) in told.told
        assert of(told, "reached")[-1] == ("reached", 9, 1)
    with pytest.raises(DivergedError, match="step 8 went wrong after 1 rollbacks"):
        run(config, skipped=(6, 7), health=health, state=RunState(rollbacks=1))


@pytest.mark.parametrize(("failures", "saved"), [(0, [5, 6]), (1, [5, 6, 6]), (2, [5, 6, 6, 6])])
def test_a_last_save_that_fails_is_made_again(failures: int, saved: list[int]) -> None:
    outcome, _, saves, told = run(TrainConfig(steps=6), store={"failures": failures})
    assert (outcome, saves.saved) == ("finished", saved)
    errors = [record["error"] for _, record in of(told, "save")]
    assert errors == ["", *["disk is full"] * failures, ""]
    with pytest.raises(RuntimeError, match=r"step 6 could not be saved \(disk is full\)"):
        run(TrainConfig(steps=6), store={"failures": 3})


def test_a_run_of_skipped_steps_alone_is_not_finished() -> None:
    health = HealthConfig(max_skipped_in_a_row=9)
    with pytest.raises(DivergedError, match=r"0 of 3 steps changed the weights.*look at them and at the network$"):
        run(TrainConfig(steps=3), skipped=(0, 1, 2), health=health)
    config = TrainConfig(steps=3, precision="fp16")
    with pytest.raises(DivergedError, match=r"take train\.precision=bf16, or more steps$"):
        run(config, skipped=(0, 1, 2), health=health)
    assert run(TrainConfig(steps=3), skipped=(0, 1), health=health)[0] == "finished"


@pytest.mark.parametrize(("asked_at", "outcome", "step"), [(3, "preempted", 3), (6, "finished", 6), (7, "finished", 6)])
def test_a_stop_is_made_at_its_step_and_at_the_last_one_there_is_nothing_to_stop(
    asked_at: int, outcome: str, step: int
) -> None:
    found, state, saves, _ = run(TrainConfig(steps=6), stop=StopsAt(asked_at))
    assert (found, state.step, saves.saved[-1]) == (outcome, step, step)


def test_a_score_is_of_the_weights_that_are_saved_with_it_or_there_is_none() -> None:
    # Where no number of steps lies between two evaluations there is one, at the end.
    *_, saves, _ = run(TrainConfig(steps=6), scores=(0.5,))
    assert [(step, score) for step, score, _ in saves.scores] == [(5, None), (6, 0.5)]
    *_, saves, _ = run(TrainConfig(steps=12, evaluate_every_steps=4), scores=(0.25, 0.5, 0.75))
    assert [(step, score) for step, score, _ in saves.scores] == [(5, None), (10, None), (12, 0.75)]
