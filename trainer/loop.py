"""The loop: steps() makes steps; fit() decides what happens between them."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch

from data_shards.batch import Batch
from trainer.checkpoint import Store
from trainer.config import TrainConfig
from trainer.engine import Engine, StepReport
from trainer.metrics import Meter, Record, StepTime
from trainer.run_state import RunState
from trainer.sinks import Sink
from trainer.watch import StopRequest
from trainer.world import World

Outcome = Literal["finished", "preempted"]
Evaluate = Callable[[], dict[str, int | dict[str, float]]]


def steps(
    engine: Engine, batches: Callable[[int], Batch], state: RunState, *, until: int
) -> Iterator[tuple[RunState, StepReport, StepTime]]:
    """Yield the state after each step, what the step did, and its time on this rank. Collective."""
    while state.step < until:
        started = time.perf_counter()
        batch = batches(state.batch_index)
        arrived = time.perf_counter()
        report = engine.step(batch)
        state = state.after(is_skipped=report.is_skipped)
        yield state, report, StepTime(time.perf_counter() - started, arrived - started)


def fit(
    config: TrainConfig,
    *,
    engine: Engine,
    batches: Callable[[int], Batch],
    state: RunState,
    store: Store,
    sinks: Sequence[Sink],
    stop: StopRequest,
    world: World,
    evaluate: Evaluate | None = None,
) -> tuple[Outcome, RunState]:
    """Train from `state` to the end or to a stop, and leave a checkpoint of where it got. Collective.

    Returns how it ended and the last state. `sinks` are empty on all ranks but the first.
    """
    meter = Meter(world)
    now, saved = state, state.step
    accuracy = None
    outcome: Outcome = "finished"
    for now, report, step_time in steps(engine, batches, state, until=config.steps):
        is_last = now.step == config.steps
        meter.add(report, step_time)
        if now.step % config.log_every_steps == 0 or is_last:
            _write(sinks, "train", meter.record(now.step, report))
        if evaluate is not None and (is_last or _is_multiple(now.step, config.evaluate_every_steps)):
            accuracy = _evaluate(evaluate, now.step, sinks)
        stops, saves = _votes(world, stop.is_raised(), store.is_due(now.step))
        if stops or saves or is_last:
            store.save(engine, now, accuracy=accuracy)
            saved = now.step
        _report_saves(store, sinks)
        if stops and not is_last:
            outcome = "preempted"
            break
    if saved != now.step:
        store.save(engine, now, accuracy=accuracy)
    store.wait()
    _report_saves(store, sinks)
    return outcome, now


def _votes(world: World, *flags: bool) -> list[bool]:
    """Return what any rank wants: one exchange a step, which also keeps the ranks together."""
    return [bool(flag) for flag in world.maximum(torch.tensor(flags, dtype=torch.float32))]


def _evaluate(evaluate: Evaluate, step: int, sinks: Sequence[Sink]) -> float:
    result = evaluate()
    accuracy, samples = result["accuracy"], result["samples"]
    assert isinstance(accuracy, dict)
    assert isinstance(samples, int)
    values = {f"accuracy/{name}": value for name, value in accuracy.items()}
    _write(sinks, "evaluation", {"step": step, "samples": samples, **values})
    return accuracy["all"]


def _report_saves(store: Store, sinks: Sequence[Sink]) -> None:
    for saved in store.reports():
        _write(sinks, "save", vars(saved))


def _write(sinks: Sequence[Sink], kind: str, record: Record) -> None:
    for sink in sinks:
        sink.write(kind, record)


def _is_multiple(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
