"""The loop: steps() makes steps; fit() decides what happens between them."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from data_shards.batch import Batch
from trainer import guard
from trainer.checkpoint import Store
from trainer.config import ProfileConfig, TrainConfig, WatchConfig
from trainer.engine import Engine
from trainer.evaluate import Evaluation
from trainer.hang import BATCH, STEP, HangWatch
from trainer.ledger import Ledger
from trainer.metrics import Meter, StepTime
from trainer.profiling import ProfileWindow
from trainer.run_state import PassedOver, RunState
from trainer.sink_group import SinkGroup
from trainer.sinks import Sink
from trainer.step_report import StepReport
from trainer.stopwatch import compile_seconds
from trainer.watch import StopRequest
from trainer.world import World

Outcome = Literal["finished", "preempted"]
Evaluate = Callable[[], Evaluation]
Batches = Callable[[int], Batch]

_LAST_SAVE_TRIES = 3


class DivergedError(ValueError):
    """Steps keep going wrong. Every rank raises it alike, and a restart would meet the same steps."""


@dataclass(frozen=True)
class Step:
    """One step that was made."""

    before: RunState
    state: RunState
    """After it."""
    batch: Batch
    """This rank's part."""
    report: StepReport
    time: StepTime
    """On this rank."""


def steps(
    engine: Engine, batches: Batches, state: RunState, *, until: int, hang: HangWatch, window: int
) -> Iterator[Step]:
    """Yield the steps from `state` on; `window` recent losses are kept in the state. Collective."""
    is_cold = True
    while state.step < until:
        hang.at(BATCH, is_cold=is_cold)
        started = time.perf_counter()
        batch = batches(state.batch_index)
        arrived = time.perf_counter()
        hang.at(STEP, is_cold=is_cold)
        report = engine.step(batch)
        loss = float(report.loss) if window else None
        is_cold = False
        before, state = state, state.after(loss, is_skipped=report.is_skipped, window=window)
        yield Step(before, state, batch, report, StepTime(time.perf_counter() - started, arrived - started))


def fit(
    config: TrainConfig,
    *,
    engine: Engine,
    batches: Batches,
    state: RunState,
    store: Store,
    sinks: Sequence[Sink],
    stop: StopRequest,
    world: World,
    evaluate: Evaluate | None = None,
    watch: WatchConfig | None = None,
    meter: Meter | None = None,
    ledger: Ledger | None = None,
    hang: HangWatch | None = None,
    profiler: ProfileWindow | None = None,
) -> tuple[Outcome, RunState]:
    """Train from `state` to the end or to a stop, leave a checkpoint of where it got, and return both. Collective.

    `sinks` are empty on all ranks but the first, and one that fails does not end the run; what is None watches or
    counts nothing. DivergedError where steps keep going wrong although the run went back as often as it may.
    """
    training = _Training(
        config,
        watch or WatchConfig(),
        engine,
        batches,
        store,
        SinkGroup(sinks),
        stop,
        world,
        evaluate,
        meter or Meter(world),
        ledger or Ledger(None, world),
        hang or HangWatch(None, world, 0.0),
        profiler or ProfileWindow(ProfileConfig(), None, world),
    )
    return training.run(state)


@dataclass
class _Training:
    """The collaborators of a training, and what happens between its steps."""

    config: TrainConfig
    watch: WatchConfig
    engine: Engine
    batches: Batches
    store: Store
    sinks: SinkGroup
    stop: StopRequest
    world: World
    evaluate: Evaluate | None
    meter: Meter
    ledger: Ledger
    hang: HangWatch
    profiler: ProfileWindow
    score: float | None = None
    """The score of an evaluation after the newest step; the best checkpoint is known by it."""
    compiled_seconds: float = field(default_factory=compile_seconds)
    """Of torch.compile until the newest step; it compiles while steps run."""
    save_error: str = ""
    """Of the newest save that ended."""

    def run(self, state: RunState) -> tuple[Outcome, RunState]:
        """See `fit`."""
        self.ledger.started(state.step)
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
        window = self.watch.spike_window_steps if self.watch.spike_score > 0 else 0
        self.profiler.between(state.step)
        for step in steps(self.engine, self.batches, state, until=self.config.steps, hang=self.hang, window=window):
            state = step.state
            self._count(step)
            to_pass = self._judge(step)
            # Of these weights, or of none: the best checkpoint would else be one that was trained on since.
            self.score = None
            if to_pass:
                return "preempted", state, to_pass
            is_last = state.step == self.config.steps
            if self.evaluate is not None and (is_last or _is_multiple(state.step, self.config.evaluate_every_steps)):
                self._evaluate(self.evaluate, state.step)
            stops, saves = _votes(
                self.world, self.stop.is_raised(), self.store.is_due(state.step, is_scored=self.score is not None)
            )
            if stops or saves or is_last:
                self._save(state)
            self._report_saves()
            if stops and not is_last:
                return "preempted", state, ()
            self.profiler.between(state.step)
        return "finished", state, ()

    def _count(self, step: Step) -> None:
        self.meter.add(step.report, step.time)
        self.ledger.add("data_wait", step.time.data_seconds)
        compiled, self.compiled_seconds = compile_seconds() - self.compiled_seconds, compile_seconds()
        self.ledger.add("compile", compiled)
        self.ledger.add("compute", step.time.seconds - step.time.data_seconds - compiled)
        self.ledger.reached(step.state.step, step.state.rollbacks)
        if self.config.logs(step.state.step):
            self.sinks.write("train", self.meter.record(step.state.step, step.report))

    def _judge(self, step: Step) -> tuple[int, ...]:
        """Log the samples of a skipped step; return the batches to go back for."""
        if step.report.is_skipped:
            keys = [key for part in self.world.gather(step.batch.keys) for key in part if key]
            self._event(step.state, f"not finite, skipped: batch {step.before.batch_index}, samples {' '.join(keys)}")
        # Whoever judges nothing need not read the loss from the device.
        is_judged = self.watch.spike_score > 0 or step.state.skipped_in_a_row > 0
        return guard.offending(step.before, step.state, float(step.report.loss) if is_judged else 0.0, self.watch)

    def _go_back(self, state: RunState, to_pass: tuple[int, ...]) -> RunState:
        """Load the newest checkpoint and go on from it past the batches that went wrong."""
        if state.rollbacks >= self.watch.max_rollbacks:
            raise DivergedError(
                f"step {state.step} went wrong after {state.rollbacks} rollbacks, the most that "
                "watch.max_rollbacks allows; look at the samples in metrics.jsonl, and lower optimizer.learning_rate "
                "in a new run, or in one that `perceiver fork` makes of an earlier checkpoint"
            )
        self.hang.at("going back")
        # All of the run, not of the checkpoint: that one knows nothing of what was met since it was saved.
        passed = PassedOver(state.skipped_batches).joined(PassedOver(to_pass, state.rollbacks + 1))
        error = self.store.pass_over(passed)
        loaded = self.store.load(self.engine)
        assert loaded is not None, "the training saved before its first step"
        resumed = loaded.state
        self.sinks.rewind(resumed.step)
        self._event(resumed, f"went back from step {state.step}; passes over batches {', '.join(map(str, to_pass))}")
        if error:
            self._event(resumed, f"a restart would meet these batches again: {error}")
        return resumed

    def _evaluate(self, evaluate: Evaluate, step: int) -> None:
        self.hang.at("evaluation")
        with self.ledger.spent("evaluation"):
            evaluation = evaluate()
        self.score = evaluation.best_by
        self.sinks.write("evaluation", {"step": step, "samples": evaluation.samples, **evaluation.flat()})
        for name, picture in evaluation.pictures.items():
            self.sinks.draw(name, picture, step)

    def _save(self, state: RunState) -> None:
        self.hang.at("a save")
        with self.ledger.spent("save"):
            self.store.save(self.engine, state, score=self.score)

    def _report_saves(self) -> None:
        for saved in self.store.reports():
            self.save_error = saved.error
            self.sinks.write("save", vars(saved))

    def _finish_saving(self, state: RunState) -> None:
        """Wait for the last save. One that failed is tried again: no later one would, and its steps would be lost."""
        for tries_left in reversed(range(_LAST_SAVE_TRIES)):
            self.hang.at("the last save")
            with self.ledger.spent("save"):
                self.store.wait()
            self._report_saves()
            if not self.save_error:
                return
            if tries_left:
                self._save(state)
        raise RuntimeError(
            f"step {state.step} could not be saved ({self.save_error}); the same command goes on from the checkpoint "
            "before it once the disk takes files again"
        )

    def _event(self, state: RunState, message: str) -> None:
        self.sinks.write("event", {"step": state.step, "message": message})


def _votes(world: World, *flags: bool) -> list[bool]:
    """Return what any rank wants: one exchange a step, which also keeps the ranks together."""
    return [bool(flag) for flag in world.maximum(torch.tensor(flags, dtype=torch.float32))]


def _is_multiple(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
