"""A run whose evaluations bring no better value ends early, at the same step whether or not it was stopped between."""

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
from threads import StopsAt
from tiny import accuracy, engine, whole_batch

from trainer.checkpoint.layout import read_weights, scores
from trainer.checkpoint.manifest import read_manifest
from trainer.checkpoint.names import committed, newest, step_of
from trainer.checkpoint.store import Store
from trainer.config import CheckpointConfig, TrainConfig
from trainer.distributed.world import World
from trainer.evaluation.evaluation import Evaluation
from trainer.health.stop_request import StopRequest
from trainer.loop import fit
from trainer.run_state import Improvement, RunState

SCORES = {1: 0.1, 2: 0.5, 3: 0.4, 4: math.nan, 5: 0.45, 6: 0.9, 7: 0.9, 8: 0.9}
CONFIG = TrainConfig(steps=8, log_every_steps=2, evaluate_every_steps=1, global_batch=16, patience=3)


class Killed(BaseException):
    """The end of a process: nothing is saved after it."""


def run(
    folder: Path, world: World, stop: StopRequest, config: TrainConfig = CONFIG, *, dies_at: int = 0
) -> tuple[str, int]:
    """Return how a start ended and at which step; one may die in an evaluation."""
    store = Store(folder, CheckpointConfig(keep_best=True, keep_last=2, asynchronous=not dies_at), world)
    trained = engine(world, steps=config.steps)
    loaded = store.load(trained)

    def evaluate() -> Evaluation:
        step = trained.progress().steps
        if step == dies_at:
            raise Killed
        return accuracy(16, SCORES[step])

    outcome, state = fit(
        config,
        engine=trained,
        batches=whole_batch,
        state=loaded.state if loaded else RunState(),
        store=store,
        sinks=[],
        stop=stop,
        world=world,
        evaluate=evaluate,
    )
    store.close()
    trained.close()
    return outcome, state.step


@pytest.mark.slow
def test_a_run_ends_where_its_evaluations_brought_no_better_value_so_often_and_keeps_the_best(
    tmp_path: Path, world: World
) -> None:
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    assert run(straight, world, StopRequest()) == ("finished", 5)
    assert run(stopped, world, StopsAt(3)) == ("preempted", 3)
    assert run(stopped, world, StopsAt(1)) == ("preempted", 4)
    assert run(stopped, world, StopRequest()) == ("finished", 5)
    weights = [read_weights(newest(folder)) for folder in (straight, stopped)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert scores(committed(straight))[2] == 0.5
    # Another start has nothing to do.
    assert run(straight, world, StopRequest()) == ("finished", 5)
    assert [step_of(path) for path in committed(straight)] == [2, 4, 5]
    assert run(straight, world, StopRequest(), replace(CONFIG, patience=4)) == ("finished", 8)


@pytest.mark.slow
def test_the_count_of_evaluations_survives_a_kill_between_any_two_checkpoints(tmp_path: Path, world: World) -> None:
    straight = tmp_path / "straight"
    assert run(straight, world, StopRequest()) == ("finished", 5)
    for step in (2, 4, 5):
        killed = tmp_path / str(step)
        with pytest.raises(Killed):
            run(killed, world, StopRequest(), dies_at=step)
        assert run(killed, world, StopRequest()) == ("finished", 5)
        states = [read_manifest(newest(folder)).state for folder in (straight, killed)]
        assert states[0] == states[1]
        assert (states[0].improvement.best, states[0].improvement.since_best) == (0.5, 3)
        weights = [read_weights(newest(folder)) for folder in (straight, killed)]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_score_is_better_by_more_than_what_is_asked_for_and_no_number_is_none() -> None:
    found = Improvement()
    told = []
    for score in (math.nan, 0.5, 0.505, 0.52, math.nan, -math.inf):
        found = found.after(score, 0.01)
        told.append((found.best, found.since_best))
    assert told == [(None, 1), (0.5, 0), (0.5, 1), (0.52, 0), (0.52, 1), (0.52, 2)]


@pytest.mark.parametrize(
    ("fields", "keys"),
    [
        ({"patience": 2}, ["patience"]),
        ({"least_improvement": 0.1}, ["least_improvement"]),
        ({"patience": -1, "evaluate_every_steps": 5}, ["patience"]),
        ({"patience": 2, "evaluate_every_steps": 5, "least_improvement": 0.1}, []),
    ],
)
def test_patience_counts_evaluations_and_needs_some(fields: dict[str, float], keys: list[str]) -> None:
    assert [key for key, _ in TrainConfig(**fields).problems()] == keys
