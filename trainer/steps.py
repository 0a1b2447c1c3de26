"""steps(): the steps of a training in order. On a GPU a step starts before the result of the previous one is read.

The device then has its next work while the host reads. Nothing is decided on a step whose result was not read: between
two steps where something may be saved, evaluated or ended, no step is under way. Why this is needed on a GPU:
docs/decisions/8-the-host-reads-a-step-later.md.

    host     start 1 | start 2 | read 1 | start 3 | read 2 | read 3 | save | start 4 ...
    device             1111111111 2222222222 3333333333
                                                    no step starts where all ranks know that 3 is saved
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from data_shards.loading.batch import Batch
from trainer.engine.engine import Engine
from trainer.engine.step_report import StartedStep, StepReport
from trainer.feed import Fed, Feed
from trainer.health.hang import BATCH, STEP, HangWatch
from trainer.run_state import RunState
from trainer.sinks.meter import StepTime


@dataclass(frozen=True)
class Step:
    """One step that was made."""

    before: RunState
    state: RunState
    """The state after it."""
    batch: Batch
    """This rank's part of the global batch."""
    report: StepReport
    time: StepTime
    """The times of the step on this rank."""
    is_newest: bool
    """Whether the engine is where this step left it; else one more step is under way."""


@dataclass(frozen=True)
class Course:
    """What the steps are made for."""

    until: int
    """Steps of the whole run."""
    window: int
    """Recent losses that are kept in the state."""
    flags: Callable[[int], Sequence[bool]]
    """What this rank wants after so many steps; the report of that step says what any rank wants."""
    pauses: Callable[[int], bool]
    """Whether something is done after so many steps, for which no other may be under way. Alike on all ranks."""


@dataclass(frozen=True)
class _Started:
    fed: Fed
    step: StartedStep
    seconds: float
    data_seconds: float


def steps(engine: Engine, feed: Feed, state: RunState, course: Course, hang: HangWatch) -> Iterator[Step]:
    """Yield the steps from `state` on. Collective."""
    waiting: deque[_Started] = deque()
    # Caches and connections are cold in the first step of a start: the hang watch gives it ten times as long.
    is_cold = True
    while state.step < course.until:
        count = state.step + len(waiting)
        if count < course.until and _may_start(waiting, engine.steps_ahead, count, course):
            waiting.append(_start(engine, feed, state, count, course, hang, is_cold=is_cold))
            is_cold = False
            continue
        began = time.perf_counter()
        made = waiting.popleft()
        report = made.step.report()
        *flags, has_problem = report.flags
        # All ranks read the same flag in the report of the same step, and so leave together.
        if has_problem:
            feed.leave(made.fed.problem)
        loss = report.loss if course.window else None
        before, state = (
            state,
            state.after(loss, is_skipped=report.is_skipped, is_rescaled=report.is_rescaled, window=course.window),
        )
        spent = StepTime(made.seconds + time.perf_counter() - began, made.data_seconds)
        yield Step(before, state, made.fed.batch, replace(report, flags=tuple(flags)), spent, not waiting)


def _may_start(waiting: Sequence[_Started], ahead: int, count: int, course: Course) -> bool:
    # Without a step under way the pause before this one is over.
    return not waiting or (len(waiting) <= ahead and not course.pauses(count))


def _start(
    engine: Engine, feed: Feed, state: RunState, count: int, course: Course, hang: HangWatch, *, is_cold: bool
) -> _Started:
    """Start the step that follows `count` steps."""
    hang.at(BATCH, is_cold=is_cold)
    began = time.perf_counter()
    fed = feed(state.batch_of(count))
    arrived = time.perf_counter()
    hang.at(STEP, is_cold=is_cold)
    step = engine.start(fed.batch, (*course.flags(count + 1), bool(fed.problem)))
    started = time.perf_counter()
    # After the start: the batch is read and copied while the device computes.
    if count + 1 < course.until:
        feed.prepare(state.batch_of(count + 1))
    ended = time.perf_counter()
    return _Started(fed, step, ended - began, arrived - began + ended - started)
