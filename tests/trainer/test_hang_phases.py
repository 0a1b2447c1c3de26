"""The watch over hangs is told when the loop is at something that takes longer than a step."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.fx import GraphModule

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
from tiny import CLASSES, engine, whole_batch

from data_shards.loading.batch import Batch
from trainer.checkpoint.store import Loaded, Store
from trainer.config import CheckpointConfig, HealthConfig, TrainConfig
from trainer.distributed.board import Board
from trainer.distributed.node import Node
from trainer.distributed.world import World
from trainer.engine.engine import Engine
from trainer.engine.step_report import StepReport
from trainer.evaluation.evaluation import Evaluation, evaluate
from trainer.feed import Feed
from trainer.health.compilation import told_of_compiling
from trainer.health.hang import BATCH, COMPILE, STEP, HangWatch
from trainer.health.heartbeats import Beat, path_of, write
from trainer.health.stop_request import StopRequest
from trainer.loop import fit
from trainer.run_state import RunState
from trainer.steps import Course, steps


def test_evaluation_saves_and_going_back_are_not_judged_as_steps(tmp_path: Path, world: World) -> None:
    hang = HangWatch(None, world, 1.0)
    met: dict[str, set[str]] = {"evaluate": set(), "save": set(), "load": set(), "batch": set()}

    class Watched(Store):
        def save(self, engine: Engine, state: RunState, *, score: float | None = None) -> None:
            met["save"].add(hang._phase)
            super().save(engine, state, score=score)

        def load(self, engine: Engine) -> Loaded | None:
            met["load"].add(hang._phase)
            return super().load(engine)

    def batches(index: int) -> Batch:
        met["batch"].add(hang._phase)
        batch = whole_batch(index)
        if index in (3, 4):
            batch.arrays["points"].fill_(torch.inf)
        return batch

    def evaluation() -> Evaluation:
        met["evaluate"].add(hang._phase)
        return evaluate(trained.network, CLASSES, [whole_batch(1000)], world, ("points",))

    store = Watched(tmp_path, CheckpointConfig(save_every_steps=2), world)
    trained = engine(world, steps=6)
    try:
        fit(
            TrainConfig(steps=6, evaluate_every_steps=3, global_batch=16),
            engine=trained,
            batches=batches,
            state=RunState(),
            store=store,
            sinks=[],
            stop=StopRequest(),
            world=world,
            evaluate=evaluation,
            health=HealthConfig(max_skipped_in_a_row=2, max_rollbacks=1),
            hang=hang,
        )
    finally:
        store.close()
        trained.close()
    assert met["evaluate"] == {"evaluation"}
    assert met["save"] == {"a save"}
    assert met["load"] == {"going back"}
    assert met["batch"] == {"waiting for its batch"}
    assert hang._phase == "the last save"


STEP_SECONDS, COMPILE_SECONDS = 8.0, 100.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock of the watch, which stands still unless a test moves it."""
    hands = SimpleNamespace(now=1000.0, monotonic=lambda: hands.now)
    monkeypatch.setattr("trainer.health.hang.time", hands)
    monkeypatch.setattr("trainer.health.heartbeats.time", hands)
    return hands


def watch(folder: Path, rank: int = 0, world_size: int = 1) -> HangWatch:
    world = World(rank, world_size, rank, torch.device("cpu"))
    hang = HangWatch(folder, world, STEP_SECONDS, compile_seconds=COMPILE_SECONDS)
    first = [Beat(other, "elsewhere", 7, 0, 3, "a step") for other in range(world_size)]
    hang.listen_to(Node(rank, tuple(range(world_size)), Board.alone()), first)
    for _ in range(2):
        hang.at(BATCH)
    hang.at(STEP)
    return hang


def named(hang: HangWatch) -> list[str]:
    hang._ranks._next_exchange = 0.0
    hang._ranks.listen()
    return [why for _, why in hang._culprits()]


def doubled(values: torch.Tensor) -> torch.Tensor:
    return values * 2


@pytest.mark.parametrize(("seconds", "is_hang"), [(STEP_SECONDS + 1, False), (COMPILE_SECONDS + 1, True)])
def test_a_step_that_compiles_may_take_as_long_as_compiling_may_and_no_longer(
    tmp_path: Path, clock: SimpleNamespace, seconds: float, is_hang: bool
) -> None:
    hang, found, inside = watch(tmp_path), [], []

    def slow(graph: GraphModule, _: object) -> GraphModule:
        clock.now += seconds
        found.extend(named(hang))
        inside.append(hang._beat().phase)
        return graph

    with told_of_compiling(hang):
        torch.compile(doubled, backend=slow)(torch.ones(3))
    assert inside == [COMPILE]
    assert found == (["stuck in compiling"] if is_hang else [])
    # The step goes on, with its own limit, and its time is without that of the compiler.
    assert hang.limit_seconds == STEP_SECONDS
    assert named(hang) == []
    clock.now += STEP_SECONDS + 1
    assert named(hang) == ["stuck in a step"]
    hang.at(BATCH)
    assert hang.limit_seconds == STEP_SECONDS + 2 * (STEP_SECONDS + 1)


def test_after_the_watch_a_compilation_is_told_to_nobody(tmp_path: Path, clock: SimpleNamespace) -> None:
    hang = watch(tmp_path)
    with told_of_compiling(hang):
        pass
    torch.compile(doubled, backend=lambda graph, _: graph)(torch.ones(3, 2))
    assert hang.limit_seconds == STEP_SECONDS


def other(folder: Path, *, limit: float, phase: str = COMPILE, progress: int = 3, count: int = 1) -> None:
    write(path_of(folder, 1), [Beat(1, "elsewhere", 7, count, progress, phase, limit)])


def test_who_waits_for_a_rank_that_compiles_waits_as_long_as_it_may_take(
    tmp_path: Path, clock: SimpleNamespace
) -> None:
    hang = watch(tmp_path, world_size=2)
    other(tmp_path, limit=COMPILE_SECONDS)
    assert named(hang) == []
    clock.now += COMPILE_SECONDS
    other(tmp_path, limit=COMPILE_SECONDS, count=2)
    assert named(hang) == []
    clock.now += 1
    other(tmp_path, limit=COMPILE_SECONDS, count=3)
    assert named(hang) == ["stuck in compiling"]


def test_who_waits_for_a_rank_that_left_does_not_wait_for_its_limit(tmp_path: Path, clock: SimpleNamespace) -> None:
    hang = watch(tmp_path, world_size=2)
    other(tmp_path, limit=COMPILE_SECONDS, phase="left", progress=sys.maxsize)
    clock.now += STEP_SECONDS + 1
    assert named(hang) == ["stuck in a step"]


def test_the_first_step_of_a_start_has_ten_times_as_long_and_is_no_measure(
    tmp_path: Path, clock: SimpleNamespace
) -> None:
    limits = []
    world = World(0, 1, 0, torch.device("cpu"))
    hang = HangWatch(tmp_path, world, STEP_SECONDS)

    class Slow:
        steps_ahead = 0

        def start(self, batch: Batch, flags: tuple[bool, ...]) -> SimpleNamespace:
            limits.append(hang.limit_seconds)
            clock.now += 50.0 if len(limits) == 2 else 1.0
            report = StepReport(0.0, {}, 0.1, 1.0, False, {}, 0.0, 1, flags)
            return SimpleNamespace(report=lambda: report)

    def batches(index: int) -> Batch:
        limits.append(hang.limit_seconds)
        return whole_batch(index)

    course = Course(until=3, window=0, flags=lambda _: (), pauses=lambda _: False)
    made = steps(Slow(), Feed(batches, world), RunState(), course, hang)  # type: ignore[arg-type]
    assert sum(1 for _ in made) == 3
    cold, warm = 10 * STEP_SECONDS, STEP_SECONDS
    assert limits == [cold, cold, warm, warm, warm + 2, warm + 2]
