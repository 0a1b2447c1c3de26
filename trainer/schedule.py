"""The learning rate as a function of the step, and the keys that each schedule has. Standard library only."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from data_shards.files.quoting import counted, listed

if TYPE_CHECKING:
    from trainer.config import OptimizerConfig

_KEYS: dict[str, tuple[str, ...]] = {
    "cosine": ("final_fraction",),
    "constant": (),
    "step": ("decay_steps", "decay_factor"),
    "flat_cosine": ("flat_steps", "final_fraction"),
    "stable_decay": ("cooldown_steps", "final_fraction"),
}


def learning_rate(config: "OptimizerConfig", step: int, total_steps: int) -> float:
    """Return the rate of the step after `step` done ones, of `total_steps`.

    Warm-up: peak * (step + 1) / warmup_steps. Then, with p the share of the way from the end of the warm-up (or of
    the flat part) to the last step:
      cosine, flat_cosine   peak * (f + (1 - f) * (1 + cos(pi p)) / 2), f the final fraction
      step                  peak * decay_factor ** (number of decay_steps passed)
      constant              peak
      stable_decay          peak, and over the last cooldown_steps linearly to peak * f (warm-up, stable, decay)
    """
    peak = config.learning_rate
    if step < config.warmup_steps:
        # From the first fraction on and not from 0, at which the first step would change nothing.
        return peak * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return peak
    if config.schedule == "step":
        return peak * config.decay_factor ** sum(step >= decay for decay in config.decay_steps)
    floor = config.final_fraction
    if config.schedule == "stable_decay":
        return peak * (floor + (1 - floor) * min(max(total_steps - step, 0) / config.cooldown_steps, 1.0))
    start = config.warmup_steps
    if config.schedule == "flat_cosine":
        start = max(start, config.flat_steps)
    # At least 1: where a run ends with its warm-up, no step is left for the fall.
    share = min(max(step - start, 0) / max(total_steps - start, 1), 1.0)
    return peak * (floor + (1 - floor) * (1 + math.cos(math.pi * share)) / 2)


def schedule_problems(config: "OptimizerConfig") -> Iterator[tuple[str, str]]:
    """Yield (key, sentence) for what a schedule lacks, and for what is set and belongs to another one."""
    own, defaults = _KEYS[config.schedule], type(config)()
    for key in dict.fromkeys(key for keys in _KEYS.values() for key in keys):
        default = getattr(defaults, key)
        # Read from a file, a tuple is a list.
        is_set = bool(config.decay_steps) if key == "decay_steps" else getattr(config, key) != default
        if key not in own and is_set:
            others = " or ".join(name for name, keys in _KEYS.items() if key in keys)
            remedy = f"leave it out or set it to {_written(default)}, or take schedule={others}"
            yield key, f"has no effect with schedule={config.schedule}; {remedy}"
    if config.schedule == "step" and not config.decay_steps:
        yield "decay_steps", "schedule=step needs the steps at which the rate falls, such as [1000,2000]"
    elif config.schedule == "step" and tuple(sorted(set(config.decay_steps))) != tuple(config.decay_steps):
        yield "decay_steps", f"must rise, got {list(config.decay_steps)}"
    elif config.schedule == "step" and config.decay_steps[0] < max(config.warmup_steps, 1):
        of_warmup = f" and optimizer.warmup_steps={config.warmup_steps}" if config.warmup_steps else ""
        first = f"the first is {config.decay_steps[0]}, before the rate is at its peak"
        yield "decay_steps", f"{first}; it must be at least 1{of_warmup}"
    if config.schedule == "flat_cosine" and 0 < config.flat_steps < config.warmup_steps:
        warmup = f"optimizer.warmup_steps={config.warmup_steps}"
        yield "flat_steps", f"is {config.flat_steps}, and contains {warmup}: set at least that many, or 0"
    if config.schedule == "stable_decay" and config.cooldown_steps == 0:
        yield "cooldown_steps", "schedule=stable_decay needs the number of steps in which the rate falls, such as 1000"


def unreached(config: "OptimizerConfig", total_steps: int) -> Iterator[str]:
    """Yield a sentence for what a run of so many steps never comes to: the peak of its rate, or the fall after it.

    No refusal: whoever tries a configuration with train.steps=20 asks for just that.
    """
    warmup, cooldown = config.warmup_steps, config.cooldown_steps
    run = f"the run of {counted(total_steps, 'step')}"
    if warmup > total_steps:
        yield f"optimizer.warmup_steps = {warmup}: {run} ends before its learning rate is at the peak"
    elif config.schedule == "stable_decay" and warmup + cooldown > total_steps:
        left = max(total_steps - warmup, 0)
        fall = f"the rate jumps from its warm-up into a fall that began {counted(cooldown - left, 'step')} earlier"
        yield f"optimizer.cooldown_steps = {cooldown}: {run} has {left} after the warm-up, and {fall}"
    elif config.schedule == "flat_cosine" and config.flat_steps >= total_steps:
        yield f"optimizer.flat_steps = {config.flat_steps}: {run} ends before its learning rate falls"
    late = [str(step) for step in config.decay_steps if step >= total_steps]
    if config.schedule == "step" and late:
        yield f"optimizer.decay_steps: {run} ends before {listed(late)}"


def _written(value: object) -> str:
    return "[]" if value == () else f"{value}"
