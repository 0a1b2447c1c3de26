"""What a configuration plans and a run of its length never does: a start says it, and trains.

Standard library only.
"""

from collections.abc import Iterator

from data_shards.files.quoting import counted
from trainer.config import CheckpointConfig, HealthConfig, OptimizerConfig, ProfileConfig, TrainConfig
from trainer.schedule import unreached

LEAST_WINDOW = 10
"""Losses that a spike is judged by at least."""


def idle(
    optimizer: OptimizerConfig,
    train: TrainConfig,
    checkpoint: CheckpointConfig,
    health: HealthConfig,
    profile: ProfileConfig,
) -> Iterator[str]:
    """Yield a sentence for every key that is set and changes nothing in a run of this length."""
    steps, between, needed = train.steps, train.evaluate_every_steps, train.patience + 1
    yield from unreached(optimizer, steps)
    if optimizer.learning_rate == 0:
        yield "optimizer.learning_rate = 0: no step changes a weight"
    if train.patience and needed * between > steps:
        yield (
            f"train.patience = {train.patience} cannot end the run early: it takes {needed} evaluations, {between} "
            f"steps apart, and the run has {steps}"
        )
    if checkpoint.keep_every_steps > steps:
        length = counted(steps, "step")
        yield f"checkpoint.keep_every_steps = {checkpoint.keep_every_steps} keeps no checkpoint of {length}"
    if profile.first_step > steps:
        yield f"profile.first_step = {profile.first_step} is after the last step, {steps}: nothing is traced"
    elif profile.first_step and profile.first_step + profile.num_steps - 1 > steps:
        left = f"{steps - profile.first_step + 1} of its {counted(profile.num_steps, 'step')}"
        yield f"profile.first_step = {profile.first_step} leaves {left} before the run ends, and no trace is written"
    if health.spike_score and steps <= LEAST_WINDOW:
        window = f"it needs {LEAST_WINDOW} before, and the run has {counted(steps, 'step')}"
        yield f"health.spike_score = {health.spike_score} judges no loss: {window}"
