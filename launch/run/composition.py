"""The composition root: a configuration becomes parts, and the parts become a run.

    start    the ranks join --> RUN/ is made, or is this run's --> claim: the lock, and an attempt of its own
    parts    loader --> network, perhaps given weights --> engine --> store: the newest checkpoint --> sinks, evaluation
    steps    trainer/loop.py, to the end or to a stop --> the claim is released --> the end is reported

What can fail on one rank alone is asked for by all of them together: either each has the part, or all end with one
sentence.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache, partial
from itertools import chain
from pathlib import Path

import torch

from configs.plugins import of_kind
from configs.run import RunConfig
from data_shards.files.plugin_files import PluginError, fault_in, place_of
from data_shards.loading.quarantine import num_listed
from data_shards.loading.shard_folders import Places
from launch.lifecycle.agreement import batches_of_all, first_does, joined, leave, together, told_by_first
from launch.lifecycle.claim import Claim
from launch.lifecycle.exit_status import FINISHED, RUN_ME_AGAIN
from launch.lifecycle.fence import Fence
from launch.lifecycle.heartbeat import Heartbeat
from launch.lifecycle.run_folder import RunFolder
from launch.pictures.predictions import shown
from launch.planning.activation_policy import planned, refuse_large
from launch.run import announcements, initial_weights, trained_parameters
from launch.run.creation import open_run, with_choices
from launch.run.first_cuts import FirstCuts
from launch.run.loaders import (
    absolute,
    eval_split,
    identity,
    inputs_read,
    look,
    open_eval_split,
    places_of_all,
    train_loader,
)
from launch.run.origin import origin_of
from launch.run.read_form import reading_of_this_start
from model.budget import flops
from model.custom import new_network
from model.training.compilation import is_compiled
from trainer.checkpoint.names import newest
from trainer.checkpoint.store import Store
from trainer.distributed.world import World
from trainer.engine import arithmetic
from trainer.engine.engine import Engine
from trainer.engine.memory import fitting
from trainer.evaluation.evaluation import Evaluation, evaluate
from trainer.feed import Feed
from trainer.health.compilation import told_of_compiling
from trainer.health.hang import HangWatch
from trainer.health.profiling import ProfileWindow
from trainer.health.stop_request import StopRequest
from trainer.loop import DivergedError, Evaluate, Outcome, fit
from trainer.optim import groups
from trainer.optim.optimizers import num_beside
from trainer.run_length import idle
from trainer.run_state import RunState
from trainer.sinks.attempt_time import AttemptTime
from trainer.sinks.meter import Meter, Work, measured_peak_flops
from trainer.sinks.sink import RunSink
from trainer.sinks.sink_group import SinkGroup
from trainer.sinks.writers import JsonLines, ProgressBar, TensorBoard
from trainer.tasks.network_draws import NetworkDraws
from trainer.tasks.objective import objective


def main(
    config: RunConfig,
    path: Path,
    *,
    take_over: bool = False,
    as_json: bool = False,
    heartbeat: Heartbeat | None = None,
) -> int:
    """Train the run in the folder to its end or to a stop; return the exit status. Collective."""
    config, folder = absolute(config), RunFolder(path.resolve())
    # Before anything touches a GPU: cuBLAS reads its variable when CUDA starts, and never again.
    arithmetic.prepare(config.train)
    world = joined(config.train.collective_timeout_seconds)
    # One rank that looks for the file of a stop is enough: all of them would ask the disk every second.
    with StopRequest(folder.stop_path if world.is_first else None, config.train.time_limit_minutes * 60) as stop:
        places = Places(config.data)
        first_does(world, lambda: open_run(config, folder, world.world_size, world.device.type, places=places))
        with (
            told_by_first(world, DivergedError),
            Claim(folder, world, take_over=take_over, heartbeat=heartbeat) as claim,
            _time(claim.fence, world) as time,
            _watch(config, folder, world) as hang,
        ):
            config = with_choices(config, folder, world)
            outcome, state = _train(config, folder, world, stop, time, hang, claim.fence, places)
            time.end(outcome if outcome == "finished" else f"{outcome} ({stop.reason or 'asked of another rank'})")
            status = RUN_ME_AGAIN if outcome == "preempted" else FINISHED
            # Within the claim: what it records of this rank is this status.
            claim.leaves_with(status)
    # Said after the claim is released: whoever reads that the run has ended may start it at once.
    if world.is_first:
        announcements.tell_end(config, folder, outcome, state, stop.reason, as_json=as_json)
    world.close()
    return status


def _watch(config: RunConfig, folder: RunFolder, world: World) -> HangWatch:
    health = config.health
    return HangWatch(folder.watch_folder, world, health.hang_seconds, compile_seconds=health.compile_seconds)


@contextmanager
def _time(fence: Fence, world: World) -> Iterator[AttemptTime]:
    """Count the time of this attempt; an error ends it too."""
    time = AttemptTime(fence.attempt, world)
    try:
        yield time
    except Exception as error:
        time.end(f"failed: {error}")
        raise


def _train(
    config: RunConfig,
    folder: RunFolder,
    world: World,
    stop: StopRequest,
    time: AttemptTime,
    hang: HangWatch,
    fence: Fence,
    places: Places,
) -> tuple[Outcome, RunState]:
    with ExitStack() as stack:
        with time.spent("start_up"):
            arithmetic.apply(config.train, world.device)
            together(world, lambda: config.train.micro_batches_per_rank(world.world_size))
            places = places_of_all(config, world, places, partial(look, config))
            loader = stack.enter_context(
                together(world, lambda: train_loader(config, folder.quarantine_path, world, places))
            )
            together(world, lambda: refuse_large(config.model))
            here = together(world, lambda: planned(config, world.world_size, world.device.type))
            # Drawn from the seed on every rank, so that no weights travel.
            network = new_network(here, seed=config.seed)
            has_initial_weights = _begins_from_weights(config, folder, world)
            if has_initial_weights:
                together(world, lambda: initial_weights.take(network, folder))
            # Before the trial of the micro-batch: what is frozen needs no memory for its gradient.
            groups.freeze(network, config.optimizer)
            if is_compiled(network.config.compile, world.device.type):
                stack.enter_context(told_of_compiling(hang))
            train = config.train
            # Dropout and the number of latents are functions of seed, batch and place; no generator has a state to
            # save.
            draws = NetworkDraws.of(config.model, config.seed)
            answers = config.model.answers()
            goal = objective(answers, label_smoothing=train.label_smoothing, seed=config.seed, draws=draws)
            # On a CPU the kernel kills who takes too much: there is no error that a trial could catch.
            if world.device.type == "cuda":
                first = batches_of_all(world, loader)(0)
                # With as many latents as can take part: the step that needs the most memory.
                trial, beside = replace(goal, draws=draws.largest()), num_beside(config.optimizer, config.ema)
                train = together(world, lambda: fitting(network, trial, first, train, world, beside))
            engine = Engine(network, goal, optimizer=config.optimizer, train=train, world=world, ema=config.ema)
            stack.callback(engine.close)
            # After the engine, whose partitions a checkpoint is read into.
            store = _store(config, folder, world, fence, places)
            stack.callback(store.close)
            loaded = together(world, lambda: store.load(engine))
            state = loaded.state if loaded else RunState()
            sinks = together(world, lambda: _sinks(config, folder, state) if world.is_first else SinkGroup([]))
            stack.callback(sinks.close)
            sinks.write("event", {"step": state.step, "message": arithmetic.sentence(train, world.device)})
            if has_initial_weights:
                sinks.write("event", {"step": 0, "message": f"starts from weights of {config.initial_weights.source}"})
            announcements.announce_policy(sinks, state, network, train)
            announced = chain(
                reading_of_this_start(config.model, folder, world.device),
                trained_parameters.sentences(config),
                idle(config.optimizer, config.train, config.checkpoint, config.health, config.profile),
            )
            for sentence in announced if world.is_first else ():
                announcements.say(sinks, state, sentence)
            split, evaluated = together(world, lambda: eval_split(config, places))
            sinks.write("event", {"step": state.step, "message": evaluated})
            # Nothing else can have changed, see trainer/engine/memory.py.
            halved = train.micro_batch if train != config.train else 0
            announcements.announce(sinks, state, loaded, loader.order, loader.left_out, halved=halved)
            say = partial(announcements.say, sinks, state)
            evaluation = _evaluation(config, folder, engine, world, stack, split, say, places) if split else None
            origin = together(world, lambda: origin_of(folder))
            batches = FirstCuts(loader, config.data, train.steps - state.step, world.world_size, say)
        return fit(
            train,
            engine=engine,
            batches=Feed(batches, world, partial(leave, world)),
            state=state,
            store=store,
            sinks=[sinks],
            stop=stop,
            world=world,
            evaluate=evaluation,
            begun=RunState(step=origin.step, skipped_steps=origin.skipped_steps),
            health=config.health,
            meter=Meter(world, _work(config, world), count_bad_samples=partial(_num_bad, folder, world)),
            time=time,
            hang=hang,
            profiler=ProfileWindow(config.profile, folder.profile_folder, world),
        )


def _begins_from_weights(config: RunConfig, folder: RunFolder, world: World) -> bool:
    """Return whether the run has no checkpoint yet, and takes given weights in place of random ones. Collective."""
    is_wanted = bool(config.initial_weights.source)
    return is_wanted and world.broadcast(world.is_first and newest(folder.checkpoints_folder) is None)


def _store(config: RunConfig, folder: RunFolder, world: World, fence: Fence, places: Places) -> Store:
    data = identity(config, places)
    return Store(folder.checkpoints_folder, config.checkpoint, world, identity=data, guard=fence.check)


def _evaluation(
    config: RunConfig,
    folder: RunFolder,
    engine: Engine,
    world: World,
    stack: ExitStack,
    name: str,
    say: Callable[[str], None],
    places: Places,
) -> Evaluate:
    split = together(world, lambda: open_eval_split(config, name, folder.quarantine_path, world, places))
    loader = stack.enter_context(split.loader)
    for sentence in loader.left_out:
        say(sentence)
    read, goal = inputs_read(config), objective(config.model.answers())
    # Every evaluation of the split cuts the same samples.
    say_once = cache(say)

    def evaluation() -> Evaluation:
        batches = map(batches_of_all(world, loader), range(split.num_batches))
        # The moving average takes the place of the weights meanwhile, where the run has one.
        with engine.evaluated():
            found = evaluate(engine.network, goal, batches, world, read, num_clips=config.data.num_clips)
            pictures = shown(engine.network, goal, loader(0), world, config.data.ordered_inputs)
        for sentence in found.cuts.sentences(config.data):
            say_once(f"split {name!r}: {sentence}")
        return replace(found, pictures=pictures, decided_by=config.checkpoint.best_by)

    return evaluation


def _num_bad(folder: RunFolder, world: World) -> int:
    """Return how many bad samples are listed; only the first rank, whose record is kept, reads the list."""
    return num_listed(folder.quarantine_path) if world.is_first else 0


def _work(config: RunConfig, world: World) -> Work:
    dtype = torch.float32 if config.train.precision == "fp32" else torch.bfloat16
    return Work(
        flops_per_sample=flops.training_flops(config.model),
        tokens_per_sample=config.model.num_tokens,
        peak_flops=measured_peak_flops(world.device, dtype),
    )


def _sinks(config: RunConfig, folder: RunFolder, state: RunState) -> SinkGroup:
    return SinkGroup(
        [
            JsonLines(folder.metrics_path, state.step),
            TensorBoard(folder.tensorboard_folder, state.step),
            ProgressBar(config.train.steps, state.step),
            *(_own_sink(kind, folder, state) for kind in of_kind(RunSink)),  # type: ignore[type-abstract]  # theirs are not
        ]
    )


def _own_sink(kind: type[RunSink], folder: RunFolder, state: RunState) -> RunSink:
    try:
        return kind(folder.path, state.step)
    except Exception as error:
        raise PluginError(fault_in(error) or f"{place_of(kind)}: {error}") from error
