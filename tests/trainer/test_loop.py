"""fit() logs, evaluates, saves and stops where it is told to, and goes on as if it had never stopped."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
from tiny import Network, engine, whole_batch

from data_shards.batch import Batch
from trainer.checkpoint import Store
from trainer.checkpoint_folder import complete, read_manifest, read_weights
from trainer.config import CheckpointConfig, TrainConfig
from trainer.evaluate import evaluate
from trainer.loop import fit
from trainer.run_state import RunState
from trainer.sinks import JsonLines
from trainer.watch import StopRequest
from trainer.world import World

TRAIN = TrainConfig(steps=6, log_every_steps=2, evaluate_every_steps=3, global_batch=16)


class StopAfter(StopRequest):
    """A request that comes after so many steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def is_raised(self) -> bool:
        self.left -= 1
        return self.left <= 0


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    alone = World.alone()
    yield alone
    alone.close()


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
        evaluate=lambda: evaluate(trained.network, held_out, world, ("points",)),
    )
    sink.close()
    store.close()
    trained.close()
    return result


def records(folder: Path, kind: str) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


@pytest.mark.slow
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


@pytest.mark.slow
def test_saves_come_by_step_and_the_best_is_kept(tmp_path: Path, world: World) -> None:
    assert run(tmp_path, world, StopRequest(), save_every_steps=1, keep_last=2, keep_best=True)[0] == "finished"
    steps = {
        read_manifest(path).state.step: read_manifest(path).accuracy for path in complete(tmp_path / "checkpoints")
    }
    assert {5, 6} <= steps.keys()
    assert len(steps) <= 3
    assert [line["step"] for line in records(tmp_path, "save")] == [0, 1, 2, 3, 4, 5, 6]


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
    result = evaluate(network, [padded, padded], world, ("points", "text"))
    assert result["samples"] == 20
    assert result["accuracy"]["all"] == 1.0
    assert result["accuracy"]["points"] == 1.0
    # Alone, text leaves the points out; it is asked only of the eight samples that have it.
    assert result["accuracy"]["text"] == pytest.approx((hidden[:8] == labels[:8]).float().mean().item())
