"""The watch over hangs is told when the loop is at something that takes longer than a step."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent / "scenarios"))
from tiny import CLASSES, engine, whole_batch

from data_shards.batch import Batch
from trainer.checkpoint import Loaded, Store
from trainer.config import CheckpointConfig, TrainConfig, WatchConfig
from trainer.engine import Engine
from trainer.evaluate import Evaluation, evaluate
from trainer.hang import HangWatch
from trainer.loop import fit
from trainer.run_state import RunState
from trainer.watch import StopRequest
from trainer.world import World


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
            watch=WatchConfig(max_skipped_in_a_row=2, max_rollbacks=1),
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
