"""The loop: fit() decides what happens between the steps that steps() makes.

    no checkpoint yet --> save --> steps, with evaluations and saves between them --> last save --> finished, preempted
                                     |        ^             no better value for train.patience evaluations: finished
                                     |        ^
                       bad batches   |        |  the batches are skipped from here on, in every restart too
                                     v        |
                                   newest checkpoint            after health.max_rollbacks: DivergedError

A step is judged when its report is read. What is done between two steps waits until no other step is under way.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from data_shards.files.quoting import counted
from trainer.checkpoint.store import Store
from trainer.config import HealthConfig, ProfileConfig, TrainConfig
from trainer.distributed.world import World
from trainer.engine.engine import Engine
from trainer.engine.stopwatch import compile_seconds
from trainer.evaluation.evaluation import Evaluation
from trainer.feed import Batches, Feed
from trainer.health import spikes
from trainer.health.hang import HangWatch
from trainer.health.profiling import ProfileWindow
from trainer.health.stop_request import StopRequest
from trainer.run_state import Improvement, PassedOver, RunState
from trainer.sinks.attempt_time import AttemptTime
from trainer.sinks.meter import Meter, Record
from trainer.sinks.sink_group import SinkGroup
from trainer.sinks.writers import Sink
from trainer.steps import Course, Step, steps

Outcome = Literal["finished", "preempted"]
Evaluate = Callable[[], Evaluation]

_LAST_SAVE_TRIES = 3


class DivergedError(ValueError):
    """Steps keep going wrong. Every rank raises it alike, and a restart would meet the same steps."""


def fit(
    config: TrainConfig,
    *,
    engine: Engine,
    batches: Batches | Feed,
    state: RunState,
    store: Store,
    sinks: Sequence[Sink],
    stop: StopRequest,
    world: World,
    evaluate: Evaluate | None = None,
    begun: RunState | None = None,
    health: HealthConfig | None = None,
    meter: Meter | None = None,
    time: AttemptTime | None = None,
    hang: HangWatch | None = None,
    profiler: ProfileWindow | None = None,
) -> tuple[Outcome, RunState]:
    """Train from `state` to the end or to a stop, leave a checkpoint of where it got, and return both. Collective.

    `sinks` are empty on all ranks but the first, and one that fails does not end the run; `begun` is the state of
    another run that this one took over; what is None watches or counts nothing. DivergedError where steps keep going
    wrong although the run went back as often as it may, or none changed the weights.
    """
    training = _Training(
        config,
        health or HealthConfig(),
        engine,
        batches if isinstance(batches, Feed) else Feed(batches, world),
        store,
        SinkGroup(sinks),
        stop,
        world,
        evaluate,
        begun or RunState(),
        meter or Meter(world),
        time or AttemptTime(None, world),
        hang or HangWatch(None, world, 0.0),
        profiler or ProfileWindow(ProfileConfig(), None, world),
    )
    return training.run(state)


@dataclass
class _Training:
    """The collaborators of a training, and what happens between its steps."""

    config: TrainConfig
    health: HealthConfig
    engine: Engine
    feed: Feed
    store: Store
    sinks: SinkGroup
    stop: StopRequest
    world: World
    evaluate: Evaluate | None
    begun: RunState
    meter: Meter
    time: AttemptTime
    hang: HangWatch
    profiler: ProfileWindow
    score: float | None = None
    """The score of an evaluation after the newest step; the best checkpoint is known by it."""
    compiled_seconds: float = field(default_factory=compile_seconds)
    """Seconds in torch.compile until the newest step; it compiles while steps run."""
    improvement: Improvement = field(default_factory=Improvement)
    """What the evaluations up to the newest step have brought."""
    save_error: str = ""
    """The error of the newest save that ended; empty if it succeeded."""
    wanted: tuple[bool, bool] = (False, False)
    """Whether any rank wants to stop, and to save, at the next step boundary without a step under way."""

    def run(self, state: RunState) -> tuple[Outcome, RunState]:
        """See `fit`."""
        self.time.started(state.step)
        self.improvement = state.improvement
        if self.store.newest() is None:
            # So that there is something to go back to, and a disk that cannot be written is met now.
            self._save(state)
        while True:
            outcome, state, to_pass = self._until_trouble(state)
            if not to_pass:
                break
            state = self._go_back(state, to_pass)
        self._finish_saving(state)
        return outcome, state

    def _until_trouble(self, state: RunState) -> tuple[Outcome, RunState, tuple[int, ...]]:
        """Return how the steps ended, and the batches to pass over if they went wrong."""
        window = self.health.spike_window_steps if self.health.spike_score > 0 else 0
        course = Course(self.config.steps, window, self._wants, self._pauses)
        # After a rollback, too: what was asked for after steps that are given up is asked for again.
        self.wanted = (False, False)
        # A window of the profiler may begin with the first step of this start.
        self.profiler.between(state.step)
        # A run that ended early and is started again has nothing left to train.
        if self._has_patience_ended():
            return "finished", state, ()
        for step in steps(self.engine, self.feed, state, course, self.hang):
            state = step.state
            self._count(step)
            to_pass = self._judge(step)
            if to_pass:
                # Of no weights: those that were judged are given up.
                self.score = None
                return "preempted", state, to_pass
            # A request stays until no step is under way: on a GPU it is read while the next step runs.
            stops, saves = self.wanted = _either(self.wanted, step.report.flags)
            if not step.is_newest:
                continue
            self._between(state, saves=stops or saves)
            if self._has_patience_ended():
                evaluations = counted(self.config.patience, "evaluation")
                self._event(state, f"stops early: {evaluations} in a row brought no better value")
                return "finished", state, ()
            # At the last step there is nothing left to resume.
            if stops and state.step < self.config.steps:
                return "preempted", state, ()
        return "finished", state, ()

    def _between(self, state: RunState, *, saves: bool) -> None:
        """Do what is due while the engine is where this state is."""
        # Of these weights, or of none: the best checkpoint would else be one that was trained on since.
        self.score = None
        self.wanted = (False, False)
        # Before the save, which carries the score of these weights.
        if self.evaluate is not None and self._is_evaluated(state.step):
            self._evaluate(self.evaluate, state.step)
        is_end = state.step == self.config.steps or self._has_patience_ended()
        if is_end:
            self._refuse_unchanged(state)
        if saves or is_end:
            self._save(state)
        self._report_saves()
        self.profiler.between(state.step)

    def _wants(self, step: int) -> tuple[bool, bool]:
        """Whether this rank wants the run to stop, and to be saved, after a step that is about to start."""
        return self.stop.is_raised(), self.store.is_due(step, is_scored=self._is_evaluated(step))

    def _pauses(self, step: int) -> bool:
        """Whether all ranks know that something is done after this step."""
        is_scored = self._is_evaluated(step)
        is_known = is_scored or self.store.is_planned(step, is_scored=is_scored) or self.profiler.acts_after(step)
        return is_known or any(self.wanted)

    def _is_evaluated(self, step: int) -> bool:
        is_last = step == self.config.steps
        return self.evaluate is not None and (is_last or _is_multiple(step, self.config.evaluate_every_steps))

    def _has_patience_ended(self) -> bool:
        """Whether the evaluations have ended the run; all ranks have their scores."""
        return 0 < self.config.patience <= self.improvement.since_best

    def _count(self, step: Step) -> None:
        self.meter.add(step.report, step.time)
        self.time.add("data_wait", step.time.data_seconds)
        compiled, self.compiled_seconds = compile_seconds() - self.compiled_seconds, compile_seconds()
        # Taken out of the step, in which it happens: as compute it would raise the goodput.
        self.time.add("compile", compiled)
        self.time.add("compute", step.time.seconds - step.time.data_seconds - compiled)
        self.time.reached(step.state.step, step.state.rollbacks)
        if self.config.logs(step.state.step):
            total: Record = {"total_skipped_steps": step.state.skipped_steps}
            self.sinks.write("train", self.meter.record(step.state.step, step.report) | total)

    def _judge(self, step: Step) -> tuple[int, ...]:
        """Log the samples of a skipped step, and what else is to be told of it; return the batches to go back for."""
        if step.report.is_skipped:
            # An exchange: all ranks skip a step alike.
            keys = [key for part in self.world.gather(step.batch.keys) for key in part if key]
            self._event(step.state, f"not finite, skipped: batch {step.before.batch_index}, samples {' '.join(keys)}")
        if step.report.notice:
            self._event(step.state, step.report.notice)
        return spikes.offending(step.before, step.state, step.report.loss, self.health)

    def _refuse_unchanged(self, state: RunState) -> None:
        """End a run that comes to its end with the weights that it began with, before it is saved as finished."""
        # A fork has the steps of the other run in its state, too, which say nothing of its own.
        num_own = state.step - self.begun.step
        if state.skipped_steps - self.begun.skipped_steps < num_own:
            return
        precision = "; fp16 lowers its loss scale in such steps: take train.precision=bf16, or more steps"
        raise DivergedError(
            f"0 of {counted(num_own, 'step')} changed the weights: loss or gradient was finite in none, and "
            "all were skipped. The run is not finished, and its last checkpoint stays. The events of metrics.jsonl "
            f"name the samples: look at them and at the network{precision if self.config.precision == 'fp16' else ''}"
        )

    def _go_back(self, state: RunState, to_pass: tuple[int, ...]) -> RunState:
        """Roll back to the newest checkpoint and resume after the batches that went wrong."""
        if state.rollbacks >= self.health.max_rollbacks:
            raise DivergedError(
                f"step {state.step} went wrong after {state.rollbacks} rollbacks, the most that "
                "health.max_rollbacks allows; look at the samples in metrics.jsonl, and lower optimizer.learning_rate "
                "in a new run, or in one that `perceiver fork` makes of an earlier checkpoint"
            )
        self.hang.at("going back")
        # All of the run, not of the checkpoint: that one knows nothing of what was met since it was saved.
        passed = PassedOver(state.skipped_batches).joined(PassedOver(to_pass, state.rollbacks + 1))
        # Before the load, which gives the note to the state.
        error = self.store.pass_over(passed)
        loaded = self.store.load(self.engine)
        assert loaded is not None, "the training saved before its first step"
        resumed = loaded.state
        self.improvement = resumed.improvement
        # The steps that are given up will come again, and no step may occur twice in the records.
        self.sinks.rewind(resumed.step)
        self._event(resumed, f"rolled back from step {state.step}; skips batches {', '.join(map(str, to_pass))}")
        if error:
            self._event(resumed, f"a restart would meet these batches again: {error}")
        return resumed

    def _evaluate(self, evaluate: Evaluate, step: int) -> None:
        self.hang.at("evaluation")
        with self.time.spent("evaluation"):
            evaluation = evaluate()
        self.score = evaluation.best_by
        if self.config.patience:
            self.improvement = self.improvement.after(self.score, self.config.least_improvement)
        found: Record = {"samples": evaluation.samples, "summary": evaluation.summary()}
        self.sinks.write("evaluation", {"step": step, **found, **evaluation.flat()})
        for name, picture in evaluation.pictures.items():
            self.sinks.draw(name, picture, step)

    def _save(self, state: RunState) -> None:
        self.hang.at("a save")
        with self.time.spent("save"):
            self.store.save(self.engine, replace(state, improvement=self.improvement), score=self.score)

    def _report_saves(self) -> None:
        for saved in self.store.reports():
            self.save_error = saved.error
            self.sinks.write("save", vars(saved))

    def _finish_saving(self, state: RunState) -> None:
        """Wait for the last save. One that failed is tried again: no later one would, and its steps would be lost."""
        for tries_left in reversed(range(_LAST_SAVE_TRIES)):
            self.hang.at("the last save")
            with self.time.spent("save"):
                self.store.wait()
            self._report_saves()
            if not self.save_error:
                return
            if tries_left:
                self._save(state)
        raise RuntimeError(
            f"step {state.step} could not be saved ({self.save_error}); the same command resumes from the checkpoint "
            "before it once files can be written again"
        )

    def _event(self, state: RunState, message: str) -> None:
        self.sinks.write("event", {"step": state.step, "message": message})


def _either(wanted: tuple[bool, bool], flags: tuple[bool, ...]) -> tuple[bool, bool]:
    return wanted[0] or flags[0], wanted[1] or flags[1]


def _is_multiple(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
