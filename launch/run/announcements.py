"""What a run says: before its first step, and when it ends."""

import json
import shlex
import sys
from collections.abc import Sequence

from configs.run import RunConfig
from data_shards.files.quoting import counted
from data_shards.order.sample_order import Order
from launch.lifecycle.run_folder import RunFolder, as_typed
from model.network import AnyNetwork
from trainer.checkpoint.store import Loaded
from trainer.config import TrainConfig
from trainer.run_state import RunState
from trainer.sinks.sink_group import SinkGroup


def say(sinks: SinkGroup, state: RunState, sentence: str) -> None:
    """Write a sentence into the metrics of the run, and to whoever watches it."""
    sinks.write("event", {"step": state.step, "message": sentence})


def announce_policy(sinks: SinkGroup, state: RunState, network: AnyNetwork, train: TrainConfig) -> None:
    """Say which policy train.activation_memory_gib chose."""
    if train.activation_memory_gib:
        policy = network.config.activation_checkpointing
        message = (
            f"activations fit into {train.activation_memory_gib:g} GiB with model.activation_checkpointing={policy}"
        )
        sinks.write("event", {"step": state.step, "message": message})


def announce(
    sinks: SinkGroup, state: RunState, loaded: Loaded | None, order: Order, left_out: Sequence[str], *, halved: int
) -> None:
    """Say what a user should know before the first step."""
    messages = [f"skipped a damaged checkpoint: {sentence}" for sentence in (loaded.damaged if loaded else ())]
    messages += left_out
    if order.num_dropped:
        messages.append(
            f"an epoch of {counted(order.steps_per_epoch, 'step')} drops {counted(order.num_dropped, 'sample')}, "
            "different ones each epoch"
        )
    if halved:
        messages.append(f"out of memory: the micro-batch is now {halved}; the global batch and the results stay")
    for message in messages:
        sinks.write("event", {"step": state.step, "message": message})


def tell_end(
    config: RunConfig, folder: RunFolder, outcome: str, state: RunState, reason: str, *, as_json: bool
) -> None:
    """Print what became of the run."""
    if as_json:
        sys.stdout.write(json.dumps({"outcome": outcome, "step": state.step, "run": str(folder.path)}) + "\n")
    elif outcome == "preempted":
        sys.stdout.write(
            f"stopped by {reason or 'another rank'} after step {state.step} of {config.train.steps}; "
            "the same command resumes it\n"
        )
    else:
        # As it can be pasted into the shell from which the run was started.
        skipped = f", of which {state.skipped_steps} were skipped (not finite)" if state.skipped_steps else ""
        curves = shlex.quote(as_typed(folder.tensorboard_folder))
        sys.stdout.write(
            f"finished at step {state.step}{skipped}; curves: tensorboard --logdir {curves}\n"
            f"evaluate: perceiver eval {shlex.quote(as_typed(folder.path))}\n"
        )
