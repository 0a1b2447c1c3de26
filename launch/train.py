"""The composition root: a configuration becomes parts, and the parts become a run."""

import json
import sys
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path

from configs.run import RunConfig
from launch.fence import Fence
from launch.folder import RunFolder
from launch.loaders import absolute, identity, test_loader, train_loader, train_order
from launch.open_run import open_run
from launch.together import first_does, together
from model.perceiver import Perceiver
from trainer.checkpoint import Store
from trainer.engine import Engine
from trainer.evaluate import evaluate
from trainer.lock import RunLock
from trainer.loop import Evaluate, fit
from trainer.objective import Classification
from trainer.run_state import RunState
from trainer.sinks import JsonLines, ProgressBar, Sink, TensorBoard
from trainer.watch import StopRequest
from trainer.world import World

FINISHED, PREEMPTED = 0, 85
"""Exit statuses; 85 asks to be run again."""


def main(config: RunConfig, path: Path, *, take_over: bool = False, as_json: bool = False) -> int:
    """Train the run in the folder to its end or to a stop; return the exit status. Collective."""
    config, folder = absolute(config), RunFolder(path.resolve())
    world = World.from_environment(config.train.collective_timeout_seconds)
    with StopRequest(folder.stop_path, config.train.time_limit_minutes * 60) as stop:
        first_does(world, lambda: open_run(config, folder))
        with _lock(folder, world, take_over=take_over):
            outcome, state = _train(config, folder, world, stop)
    if world.is_first:
        _tell(config, folder, outcome, state, stop.reason, as_json=as_json)
    world.close()
    return PREEMPTED if outcome == "preempted" else FINISHED


def _lock(folder: RunFolder, world: World, *, take_over: bool) -> AbstractContextManager[object]:
    """Return what keeps a second start out; a supervised attempt has its fence, which a dead host cannot hold."""
    return nullcontext() if Fence.of(folder).is_supervised else RunLock(folder.lock_path, world, take_over=take_over)


def _train(config: RunConfig, folder: RunFolder, world: World, stop: StopRequest) -> tuple[str, RunState]:
    with ExitStack() as stack:
        together(world, lambda: config.train.micro_batches_per_rank(world.world_size))
        order = together(world, lambda: train_order(config))
        batches = stack.enter_context(together(world, lambda: train_loader(config, order, world)))
        network = Perceiver(config.model, seed=config.seed)
        objective = Classification(label_smoothing=config.train.label_smoothing)
        engine = Engine(network, objective, optimizer=config.optimizer, train=config.train, world=world)
        stack.callback(engine.close)
        store = Store(
            folder.checkpoints_folder, config.checkpoint, world, identity=identity(config), guard=Fence.of(folder).check
        )
        stack.callback(store.close)
        loaded = store.load(engine)
        state = loaded.state if loaded else RunState()
        sinks = _sinks(config, folder, state) if world.is_first else []
        for sink in sinks:
            stack.callback(sink.close)
        for sentence in loaded.damaged if loaded else ():
            for sink in sinks:
                sink.write("event", {"step": state.step, "message": f"passed over a damaged checkpoint: {sentence}"})
        return fit(
            config.train,
            engine=engine,
            batches=batches,
            state=state,
            store=store,
            sinks=sinks,
            stop=stop,
            world=world,
            evaluate=_evaluation(config, engine, world, stack),
        )


def _evaluation(config: RunConfig, engine: Engine, world: World, stack: ExitStack) -> Evaluate | None:
    found = together(world, lambda: test_loader(config, world))
    if found is None:
        return None
    loader, num_batches = found
    stack.enter_context(loader)
    modalities = tuple(config.data.modalities())
    return lambda: evaluate(engine.network, (loader(step) for step in range(num_batches)), world, modalities)


def _sinks(config: RunConfig, folder: RunFolder, state: RunState) -> list[Sink]:
    return [
        JsonLines(folder.metrics_path, state.step),
        TensorBoard(folder.tensorboard_folder, state.step),
        ProgressBar(config.train.steps, state.step),
    ]


def _tell(config: RunConfig, folder: RunFolder, outcome: str, state: RunState, reason: str, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps({"outcome": outcome, "step": state.step, "run": str(folder.path)}) + "\n")
    elif outcome == "preempted":
        sys.stdout.write(
            f"stopped by {reason or 'another rank'} after step {state.step} of {config.train.steps}; "
            "the same command goes on\n"
        )
    else:
        sys.stdout.write(
            f"finished at step {state.step}; curves: tensorboard --logdir {folder.tensorboard_folder}\n"
            f"evaluate: perceiver eval {folder.path}\n"
        )
